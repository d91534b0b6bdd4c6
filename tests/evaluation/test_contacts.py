"""Gauges leave p alone, mean-field couplings are known, and rankings of real contacts are the published ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist.energies import IsingEnergy, PottsEnergy
from gwg_dist.evaluation.contacts import (
    average_product_correction,
    contact_precision,
    contact_scores,
    frobenius,
    mean_field_couplings,
    pair_model,
    ranked_pairs,
    zero_sum,
)
from gwg_dist.evaluation.statistics import pair_statistics
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical, Space


def all_codes(space: Space) -> torch.Tensor:
    return torch.cartesian_prod(*map(torch.arange, space.sizes))


@pytest.mark.parametrize("make", [
    lambda: PottsEnergy(Categorical(4, 3), scale=1.0),
    lambda: PottsEnergy(Categorical(4, (2, 4, 3, 2)), scale=1.0),
    lambda: PottsEnergy(Binary(5), scale=1.0),
    lambda: IsingEnergy(Binary(5), scale=1.0),
])  # fmt: skip
def test_the_zero_sum_gauge_leaves_f_alone_at_every_point(make) -> None:
    torch.manual_seed(0)
    energy = make().double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(torch.randn_like(parameter))
    codes = all_codes(energy.space)
    rows, slope, constant = energy.structure()
    model = pair_model(rows, slope, constant, energy.space.num_categories)
    if isinstance(energy.space, Categorical):
        model = model._replace(shares=energy.space.uniform_probabilities())
    f = Target(energy).f(energy.space.encode(codes, torch.float64))
    assert torch.allclose(model.f(codes), f, atol=1e-10)
    gauged = model.zero_sum()
    assert torch.allclose(gauged.f(codes), f, atol=1e-10)
    assert float(gauged.couplings.sum(2).abs().max()) < 1e-10
    assert float(gauged.fields.sum(1).abs().max()) < 1e-10
    assert torch.allclose(gauged.couplings, gauged.couplings.transpose(0, 1).transpose(2, 3), atol=1e-12)
    assert float(gauged.couplings.square().sum()) < float(model.couplings.square().sum())
    dropped = gauged._replace(fields=model.fields)  # the gauge of the couplings without what the fields get for it
    assert not torch.allclose(dropped.f(codes), f, atol=1e-3)


def test_the_scores_do_not_depend_on_the_gauge() -> None:
    torch.manual_seed(1)
    model = pair_model(*PottsEnergy(Categorical(5, 4), scale=1.0).double().structure(), 4)
    shift = torch.randn(5, 5, 4, 1, dtype=torch.float64)
    moved = model.couplings + shift + shift.transpose(0, 1).transpose(2, 3)
    assert torch.allclose(contact_scores(moved, without=0), contact_scores(model.couplings, without=0), atol=1e-10)


def test_norms_and_corrections_by_hand() -> None:
    block = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double().expand(1, 1, 2, 2)
    assert float(frobenius(block)) == pytest.approx(30**0.5)
    assert float(frobenius(block, without=0)) == pytest.approx(4.0)
    assert torch.allclose(zero_sum(block), torch.zeros_like(block), atol=1e-12)
    scores = torch.tensor([[9.0, 1.0, 2.0], [1.0, 9.0, 3.0], [2.0, 3.0, 9.0]])
    mean = torch.tensor([1.5, 2.0, 2.5])
    right = scores - mean[:, None] * mean / 2.0
    assert torch.allclose(average_product_correction(scores), right.fill_diagonal_(0))


def test_pairs_are_ranked_apart_and_from_the_top() -> None:
    scores = torch.zeros(10, 10)
    scores[0, 1], scores[0, 7], scores[2, 9] = 9.0, 5.0, 6.0
    pairs = ranked_pairs(scores, min_separation=6)
    assert pairs[:2].tolist() == [[2, 9], [0, 7]]
    assert int((pairs[:, 1] - pairs[:, 0]).min()) == 6
    columns = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 18])
    assert len(ranked_pairs(scores, min_separation=10, columns=columns)) == 9
    distances = torch.full((10, 10), torch.nan)
    distances[0, 7], distances[2, 9], distances[0, 8] = 4.0, 12.0, 7.9
    found = contact_precision(scores, distances, shares=(0.1, 0.2, 0.3))
    assert found.num == (1, 2, 3)
    assert found.precision == pytest.approx((0.0, 0.5, 2 / 3))
    assert found.num_contacts == 2
    with pytest.raises(ValueError, match="shape"):
        contact_precision(scores, distances[:5])
    with pytest.raises(ValueError, match="is known"):
        contact_precision(scores, torch.full((10, 10), torch.nan))


def test_mean_field_of_independent_sites_couples_nothing_and_of_two_bits_is_known() -> None:
    every = all_codes(Categorical(3, 3))
    assert float(mean_field_couplings(pair_statistics(every, 3)).abs().max()) < 1e-12
    # Two bits that agree with probability 3/4: C = [[1/4, 1/8], [1/8, 1/4]], whose inverse has -8/3 off its diagonal.
    bits = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [1, 1], [0, 1], [1, 0]])
    couplings = mean_field_couplings(pair_statistics(bits, 2))
    assert couplings[0, 1, 0, 0].item() == pytest.approx(8 / 3)


def test_mean_field_of_dhfr_has_the_known_precision(shared_data: Path) -> None:
    family = np.load(shared_data / "family_DHFR.npz", allow_pickle=False)
    msa, weights = torch.from_numpy(family["msa"]), torch.from_numpy(family["weights"])
    statistics = pair_statistics(msa, 21, weights).with_pseudocount(0.5)
    scores = contact_scores(mean_field_couplings(statistics), without=0)
    found = contact_precision(scores, torch.from_numpy(family["dist_cb"]))
    assert found.num_contacts == 337
    assert found.precision == pytest.approx((0.935, 0.756, 0.667, 0.490), abs=6e-4)
