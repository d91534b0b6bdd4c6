"""Sequential Monte Carlo against exact log Z: unbiased, with an error that covers, and its resampling by itself."""

import math
from typing import Any

import pytest
import torch
from scipy import stats

from gwg_dist.energies import IsingGraphEnergy
from gwg_dist.evaluation import ais, exact_log_z, smc
from gwg_dist.evaluation.annealing import AnnealPoint
from gwg_dist.evaluation.smc import Population, genealogical_error, resampled
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, BlockGibbs, Target
from gwg_dist.spaces import Binary, Categorical
from tests.support.kernels import make_target

KINDS = ["rbm", "ising", "mlp"]


def population(log_weights: torch.Tensor) -> Population:
    num = len(log_weights)
    point = AnnealPoint(5, torch.arange(num, dtype=torch.float64)[:, None], log_weights)
    return Population(point, torch.arange(num), 0)


def test_thirty_models_within_their_errors() -> None:
    """Models strong enough that most resample several times."""
    scores, times = [], 0
    for kind in KINDS:
        for seed in range(10):
            target = make_target(Binary(8), kind, seed=seed, strength=1.5)
            found = smc(
                target,
                GWG(),
                generator=torch.Generator().manual_seed(seed),
                num_chains=400,
                num_temperatures=40,
                every=4,
            )
            scores.append((math.exp(found.log_z - exact_log_z(target)) - 1) / found.stderr)
            times += found.num_resampled
    assert times > 30
    assert max(map(abs, scores)) < 4
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    assert 0.6 < float(torch.tensor(scores).std()) < 1.5


def test_a_sum_over_categories() -> None:
    target = make_target(Categorical(4, (3, 2, 4, 3)), seed=1, strength=1.5)
    found = smc(
        target, GWG(), generator=torch.Generator().manual_seed(0), num_chains=1000, num_temperatures=60, every=5
    )
    assert abs(found.log_z - exact_log_z(target)) < 4 * found.stderr


def test_where_weights_collapse_and_chains_mix_the_error_is_smaller_than_that_of_annealing() -> None:
    """400 independent sites, all drawn anew at each of 20 temperatures: Z = prod cosh(b_i) with a uniform reference."""
    space = Binary(400)
    energy = IsingGraphEnergy(space, edges=()).double()
    with torch.no_grad():
        energy.bias.copy_(torch.linspace(-3, 3, 400))
    target, exact = Target(energy, Reference(space).double()), float(energy.bias.detach().cosh().log().sum())
    errors: dict[str, list[float]] = {"smc": [], "ais": []}
    settings: dict[str, Any] = {"num_chains": 200, "num_temperatures": 20}
    for seed in range(6):
        here, there = (torch.Generator().manual_seed(seed) for _ in range(2))
        errors["smc"].append(smc(target, BlockGibbs(), generator=here, every=1, **settings).log_z - exact)
        errors["ais"].append(ais(target, BlockGibbs(), generator=there, **settings).log_z - exact)
    rms = {name: math.sqrt(sum(value**2 for value in values) / 6) for name, values in errors.items()}
    assert rms["smc"] < 0.5 * rms["ais"], rms


def test_without_resampling_it_is_annealed_importance_sampling() -> None:
    target = make_target(Binary(8), "mlp", seed=1)
    settings: dict[str, Any] = {"num_chains": 50, "num_temperatures": 40}
    never = smc(target, GWG(), generator=torch.Generator().manual_seed(3), threshold=0, every=100, **settings)
    same = ais(target, GWG(), generator=torch.Generator().manual_seed(3), **settings)
    assert torch.equal(never.log_weights, same.log_weights)
    assert never.stderr == pytest.approx(same.stderr)
    assert (never.num_resampled, never.num_ancestors) == (0, 50)


def test_a_chain_is_taken_as_often_as_its_weight_says() -> None:
    """N w_i times in expectation, and never off by one or more; weights turned upside down fail both."""
    log_weights = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    expected = 5 * torch.softmax(log_weights, 0)
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(5, dtype=torch.float64)
    for _ in range(4000):
        taken = resampled(population(log_weights), generator).point.x[:, 0].long().bincount(minlength=5)
        assert float((taken - expected).abs().max()) < 1
        counts += taken
    error = 0.5 / math.sqrt(4000)
    assert float((counts / 4000 - expected).abs().max()) < 4 * error
    assert float((counts / 4000 - 5 * torch.softmax(-log_weights, 0)).abs().max()) > 100 * error


def test_resampling_keeps_the_mean_weight_and_the_ancestors() -> None:
    log_weights = torch.tensor([0.0, 8.0, 2.0, -1.0], dtype=torch.float64)
    after = resampled(population(log_weights), torch.Generator().manual_seed(0))
    assert torch.allclose(after.point.log_weights.exp().mean(), log_weights.exp().mean())
    assert torch.equal(after.point.x[:, 0].long(), after.ancestor)
    assert (after.num_resampled, after.point.t) == (1, 5)


def test_the_error_of_one_family_is_not_known() -> None:
    assert genealogical_error(torch.tensor([0.0, 1.0, 0.0]), 2) == math.inf
    few = genealogical_error(torch.tensor([0.5, 0.5, 0.0, 0.0]), 1)
    assert few == pytest.approx(math.sqrt(1 - (4 / 3) ** 2 * 0.5))


def test_bad_settings_name_themselves() -> None:
    target = make_target(Binary(4), "rbm")
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\], got 2"):
        smc(target, GWG(), generator=torch.Generator(), threshold=2)
    with pytest.raises(ValueError, match="needs a target with a reference"):
        smc(Target(target.energy), GWG(), generator=torch.Generator())
