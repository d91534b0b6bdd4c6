"""Samples of models with known parameters: their statistics are the model's, and what is true of it is known."""

from pathlib import Path

import pytest
import torch

from gwg_dist.bench.inference import learn
from gwg_dist.data import IsingSamples, ModelSamples
from gwg_dist.energies import (
    EdgeFile,
    Energy,
    ErdosRenyi,
    FHMMEnergy,
    IsingEnergy,
    IsingGraphEnergy,
    MLPEnergy,
    PottsGraphEnergy,
    RBMEnergy,
)
from gwg_dist.evaluation import coupling_bound, exact_log_prob
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary, Categorical, Space
from tests.objectives.test_learning import cramer_rao_rmse

MODELS = {
    "Ising on a random graph": (lambda s: IsingGraphEnergy(s, edges=ErdosRenyi(degree=2), scale=0.3), Binary(6)),
    "Potts": (lambda s: PottsGraphEnergy(s, coupling=0.7), Categorical((2, 3), 3)),
    "FHMM": (FHMMEnergy, Binary((3, 2))),
    "RBM": (lambda s: RBMEnergy(s, num_hidden=3, scale=0.8), Binary(6)),
    "a network": (lambda s: MLPEnergy(s, num_hidden=4), Binary(4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_samples_have_the_moments_of_the_model(name: str) -> None:
    make, space = MODELS[name]
    data = ModelSamples(energy=make, space=space, num_train=2000, num_steps=40)
    with torch.no_grad():
        pi = exact_log_prob(Target(data.energy))[0].exp()
    points, found = (space.encode(codes, torch.float64).flatten(1) for codes in (space.all_codes(), data.splits.train))
    exact = torch.einsum("s,si,sj->ij", pi, points, points)
    assert ((found.T @ found / len(found)) - exact).abs().max() < 5 * 0.5 / 2000**0.5
    assert len(data.splits.validation) == len(data.splits.test) == 500
    again = ModelSamples(energy=make, space=space, num_train=2000, num_steps=40)
    assert torch.equal(data.splits.train, again.splits.train)


def test_couplings_of_spins_are_those_of_the_dense_model() -> None:
    space = Binary((3, 3))
    torus = ModelSamples(energy=lambda s: IsingGraphEnergy(s, coupling=0.2), space=space)
    true = torus.coupling
    assert true is not None
    energy = IsingEnergy(space)
    with torch.no_grad():
        energy.pairs.copy_(true.triu(1))
    x = space.all_codes().float()
    gap = (energy(x) - torus.energy(x)).detach()
    assert float((gap - gap[0]).abs().max()) < 1e-5
    assert ModelSamples(energy=MLPEnergy, space=space).coupling is None
    assert ModelSamples(energy=PottsGraphEnergy, space=Categorical((3, 3), 3)).coupling is None


def test_bound_is_the_one_by_enumeration() -> None:
    """From 200,000 exact samples, within one part in a hundred; of fewer, the correction for them keeps it there."""
    space = Binary((3, 3))
    energy = IsingGraphEnergy(space, edges=ErdosRenyi(degree=3), coupling=0.3)
    with torch.no_grad():
        pi = exact_log_prob(Target(energy))[0].exp()
    codes = space.all_codes()
    exact = cramer_rao_rmse(codes, pi, 2000)
    generator = torch.Generator().manual_seed(0)
    many = codes[torch.multinomial(pi, 200_000, replacement=True, generator=generator)]
    assert coupling_bound(many, 2000) == pytest.approx(exact, rel=0.01)
    few = [coupling_bound(part, 2000) for part in many.split(400)[:200]]
    assert sum(few) / len(few) == pytest.approx(exact, rel=0.04)  # 0.1 without it
    known = coupling_bound(many, 2000, known=ModelSamples(energy=lambda _: energy, space=space).coupling)
    assert known < exact / 1.3
    with pytest.raises(ValueError, match="covariance of 36 pairs needs more than 38 samples, got 38"):
        coupling_bound(many[:38], 2000)


@pytest.mark.slow
def test_couplings_of_a_ring_are_found() -> None:
    """With the penalty, beyond what unbiased estimates of a dense J reach, log(2 sqrt(2000)) = 4.49 or less."""
    data = ModelSamples(energy=lambda s: IsingGraphEnergy(s, edges=None, coupling=0.2), space=Binary(40))
    *_, (score, _, _) = learn(data, GWG(), 20, iterations=250)
    *_, (without, _, _) = learn(data, GWG(), 20, iterations=250, weight_l1=0.0)
    assert score > 4.8
    assert without < 4.5


def spaces_of(energy: type[Energy], space: Space) -> ModelSamples:
    return ModelSamples(energy=energy, space=space, num_steps=0)


def test_bad_settings_name_themselves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_steps must be positive, got 0"):
        spaces_of(IsingEnergy, Binary(4))
    path = tmp_path / "edges.txt"
    path.write_text("0 0\n")
    with pytest.raises(ValueError, match="line 1: no site sees itself"):
        ModelSamples(energy=lambda s: IsingGraphEnergy(s, edges=EdgeFile(str(path))), space=Binary(4))
    assert IsingSamples(shape=(3, 3)).coupling.shape == (9, 9)
