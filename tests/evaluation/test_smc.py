"""Sequential Monte Carlo against exact log Z: unbiased, with an interval that covers, and its resampling by itself."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from scipy import stats

from gwg_dist.energies import IsingGraphEnergy
from gwg_dist.evaluation import (
    AISSettings,
    ais,
    ais_result,
    ais_start,
    anneal,
    beta_schedule,
    exact_log_z,
    resampler,
    set_aside,
    smc,
    take_up,
)
from gwg_dist.evaluation.annealing import AnnealPoint
from gwg_dist.evaluation.smc import resampled
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, BlockGibbs, Target
from gwg_dist.spaces import Binary, Categorical
from tests.support.kernels import make_target

KINDS = ["rbm", "ising", "mlp"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def system(log_weights: torch.Tensor) -> AnnealPoint:
    num = len(log_weights)
    return AnnealPoint(5, torch.arange(num, dtype=torch.float64)[:, None], log_weights, added=torch.zeros(num).double())


def test_thirty_models_within_their_errors() -> None:
    """Models strong enough that most resample several times."""
    scores, times, covered = [], 0, 0
    for kind in KINDS:
        for seed in range(10):
            target = make_target(Binary(8), kind, seed=seed, strength=1.5)
            found = smc(target, GWG(), generator=seeded(seed), num_chains=400, num_temperatures=40, every=4)
            exact = exact_log_z(target)
            ratio = (found.units - exact).exp()
            scores.append(float((ratio.mean() - 1) / (ratio.std() / math.sqrt(20))))
            covered += found.interval.low < exact < found.interval.high
            assert found.added is not None
            times += bool(found.added.any())
    assert times > 20
    assert covered >= 27
    assert max(map(abs, scores)) < 4
    assert stats.kstest(scores, stats.t(19).cdf).pvalue > 1e-3
    assert 0.6 < float(torch.tensor(scores).std()) < 1.5


def test_a_sum_over_categories() -> None:
    target = make_target(Categorical(4, (3, 2, 4, 3)), seed=1, strength=1.5)
    found = smc(target, GWG(), generator=seeded(0), num_chains=1000, num_temperatures=60, every=5)
    assert abs(found.log_z - exact_log_z(target)) < 4 * found.stderr
    assert (found.name, len(found.units), found.ess) == ("forward SMC", 20, pytest.approx(20, rel=0.2))
    assert float(found.log_weights.logsumexp(0)) - math.log(1000) == pytest.approx(found.log_z)


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
        systems = smc(target, BlockGibbs(), generator=seeded(seed), every=1, num_systems=10, **settings)
        errors["smc"].append(systems.log_z - exact)
        errors["ais"].append(ais(target, BlockGibbs(), generator=seeded(seed), **settings).log_z - exact)
    rms = {name: math.sqrt(sum(value**2 for value in values) / 6) for name, values in errors.items()}
    assert rms["smc"] < 0.5 * rms["ais"], rms


def test_without_resampling_it_is_annealed_importance_sampling() -> None:
    target = make_target(Binary(8), "mlp", seed=1)
    settings: dict[str, Any] = {"num_chains": 50, "num_temperatures": 40}
    never = smc(target, GWG(), generator=seeded(3), threshold=0, every=100, num_systems=10, **settings)
    same = ais(target, GWG(), generator=seeded(3), **settings)
    assert torch.equal(never.log_weights, same.log_weights)
    assert torch.equal(never.works, same.works)
    assert never.log_z == pytest.approx(same.log_z, abs=1e-12)


def test_a_chain_is_taken_as_often_as_its_weight_says() -> None:
    """N w_i times in expectation, and never off by one or more; weights turned upside down fail both."""
    log_weights = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    expected = 5 * torch.softmax(log_weights, 0)
    generator, counts = seeded(0), torch.zeros(5, dtype=torch.float64)
    for _ in range(4000):
        after = resampled(system(log_weights), generator, size=5, threshold=1.0)
        taken = after.x[:, 0].long().bincount(minlength=5)
        assert float((taken - expected).abs().max()) < 1
        counts += taken
    error = 0.5 / math.sqrt(4000)
    assert float((counts / 4000 - expected).abs().max()) < 4 * error
    assert float((counts / 4000 - 5 * torch.softmax(-log_weights, 0)).abs().max()) > 100 * error


def test_only_poor_systems_are_resampled_each_by_itself_and_own_works_go_with_their_chains() -> None:
    poor, rich = [0.0, 8.0, 2.0, -1.0], [0.1, 0.0, 0.2, 0.1]
    log_weights = torch.tensor(poor + rich, dtype=torch.float64)
    after = resampled(system(log_weights), seeded(0), size=4)
    assert torch.equal(after.log_weights[4:], log_weights[4:])
    assert after.x[:, 0].tolist() == [1, 1, 1, 1, 4, 5, 6, 7]
    assert torch.allclose(after.log_weights[:4].exp().mean(), log_weights[:4].exp().mean())
    assert after.added is not None
    torch.testing.assert_close(after.log_weights - after.added, log_weights[after.x[:, 0].long()])
    assert (after.added[4:] == 0).all()


def test_stopped_and_taken_up_it_is_the_undisturbed_one() -> None:
    """Through the tensors that a file holds; a mutant that forgets the systems, or what was added, is another one."""
    target, settings = make_target(Binary(8), "rbm", seed=2, strength=5.0), AISSettings(100, 60, estimator="smc")

    def points(start: AnnealPoint, generator: torch.Generator):
        return anneal(
            target, GWG(), start, beta_schedule(60), generator=generator, every=20, between=resampler(5), look=7
        )

    generator = seeded(1)
    calm = list(points(ais_start(target, generator=generator, num_chains=100, num_systems=20), generator))
    (held,) = [point for point in calm if point.t == 40]
    fresh, kept = seeded(9), set_aside(held, target.space, settings, GWG())
    take = partial(take_up, kept, target.space, dtype=torch.float64, generator=fresh)
    assert take(AISSettings(100, 60)) is None, "an estimate by single chains is another one"
    begun = take(settings)
    assert begun is not None
    *_, last = points(begun, fresh)
    ours, theirs = (ais_result(target.space, point, num_systems=20) for point in (last, calm[-1]))
    assert ours.added is not None
    assert theirs.added is not None
    assert bool(theirs.added.any())
    assert torch.equal(ours.log_weights, theirs.log_weights)
    assert torch.equal(ours.added, theirs.added)
    assert (ours.log_z, ours.interval) == (theirs.log_z, theirs.interval)


def test_bad_settings_name_themselves() -> None:
    target = make_target(Binary(4), "rbm")
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\], got 2"):
        smc(target, GWG(), generator=torch.Generator(), threshold=2)
    with pytest.raises(ValueError, match="needs a target with a reference"):
        smc(Target(target.energy), GWG(), generator=torch.Generator())
    for num in (90, 60, 1):
        with pytest.raises(ValueError, match=f"a multiple of the 20 systems, at least 4 in each, got {num}"):
            smc(target, GWG(), generator=torch.Generator(), num_chains=num)
    with pytest.raises(ValueError, match="num_chains must be a multiple of 20, at least 80, for smc, got 50"):
        AISSettings(50, estimator="smc")
    with pytest.raises(ValueError, match="estimator must be one of ais, smc, got 'mcmc'"):
        AISSettings(50, estimator="mcmc")
