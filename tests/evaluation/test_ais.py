"""Annealed importance sampling against exact log Z on random small models of three kinds.

Each estimate within four standard errors (on the scale of Z, where AIS is unbiased); the pooled z-scores, of models
whose weights are well behaved, are standard normal by Kolmogorov-Smirnov.
"""

import math

import pytest
import torch
from scipy import stats

from gwg_dist.energies import Energy, IsingEnergy, MLPEnergy, RBMEnergy
from gwg_dist.evaluation import (
    ais,
    beta_schedule,
    exact_log_prob,
    exact_log_z,
    log_likelihood,
    summarize,
    unnormalised_log_prob,
)  # fmt: skip
from gwg_dist.samplers import GWG, Gibbs, Sampler, Target
from gwg_dist.spaces import Binary, Categorical
from tests.support.kernels import exact_pi, make_target

KINDS = ["rbm", "ising", "mlp"]
NUM_CHAINS = 1000


def z_score(
    target: Target, *, seed: int, sampler: Sampler | None = None, num_temperatures: int = 200
) -> tuple[float, float]:
    """(Ẑ / Z - 1) / stderr, and the fraction of effective weights."""
    generator = torch.Generator().manual_seed(1000 + seed)
    result = ais(
        target, sampler or GWG(), generator=generator, num_chains=NUM_CHAINS, num_temperatures=num_temperatures,
        schedule="sigmoid" if seed % 2 else "linear",
    )  # fmt: skip
    ratio = (result.log_weights - exact_log_z(target)).exp()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(NUM_CHAINS))), result.ess / NUM_CHAINS


def test_thirty_six_models_within_four_standard_errors_and_pooled_normal() -> None:
    scores = []
    for kind in KINDS:
        for seed in range(12):
            target = make_target(Binary(8), kind, seed=seed, strength=0.8)
            score, effective = z_score(target, seed=seed)
            assert abs(score) < 4, (kind, seed)
            if effective > 0.5:
                scores.append(score)
    assert len(scores) >= 30
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    assert 0.5 < float(torch.tensor(scores).std()) < 1.6


@pytest.mark.parametrize("sampler", [GWG(), Gibbs()], ids=str)
def test_categorical(sampler: Sampler) -> None:
    for seed in range(4):
        score, _ = z_score(make_target(Categorical(4, 4), seed=seed, strength=0.8), seed=seed, sampler=sampler)
        assert abs(score) < 4


@pytest.mark.parametrize("sampler", [GWG(), Gibbs()], ids=str)
def test_sites_of_different_sizes(sampler: Sampler) -> None:
    """And without a reference p_0 is uniform on the points of the space alone."""
    target = make_target(Categorical(4, (4, 2, 5, 3)), strength=0.8)
    assert abs(z_score(target, seed=0, sampler=sampler)[0]) < 4
    x = target.encode(target.space.all_codes())
    assert abs(float(Target(target.energy).log_prob(x, target.f(x), 0.0).logsumexp(0))) < 1e-9


def test_power_a_tenth_of_a_nat_is_seen() -> None:
    """An estimate that is off by 0.1 nats fails the test that the right one passes."""
    target = make_target(Binary(8), "rbm", seed=0, strength=0.8)
    result = ais(target, GWG(), generator=torch.Generator().manual_seed(0), num_chains=NUM_CHAINS, num_temperatures=60)
    assert result.stderr < 0.025
    assert abs(result.log_z - exact_log_z(target)) < 4 * result.stderr
    assert abs(result.log_z + 0.1 - exact_log_z(target)) > 4 * result.stderr


def test_one_temperature_is_importance_sampling_from_the_reference() -> None:
    target = make_target(Binary(6), "mlp")
    result = ais(target, GWG(), generator=torch.Generator().manual_seed(0), num_chains=50_000, num_temperatures=1)
    assert abs(result.log_z - exact_log_z(target)) < 4 * result.stderr


class CountingEnergy(MLPEnergy):
    """Counts its forward passes."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        return super().forward(x)


def test_a_temperature_is_one_gradient() -> None:
    space = Binary(6)
    target = Target(CountingEnergy(space, num_hidden=4), make_target(space).reference)
    target.reference.float()  # type: ignore[union-attr]
    ais(target, GWG(), generator=torch.Generator().manual_seed(0), num_chains=10, num_temperatures=50)
    assert CountingEnergy.calls == 51


def test_exact_is_the_sum() -> None:
    for kind in KINDS:
        target = make_target(Binary(5), kind)
        log_prob, log_z = exact_log_prob(target)
        assert abs(float(log_prob.exp().sum()) - 1) < 1e-12
        torch.testing.assert_close(log_prob.exp(), exact_pi(target, 1.0), rtol=0, atol=1e-12)
        codes = target.space.all_codes()
        by_hand = unnormalised_log_prob(target, codes[:3]) - log_z
        torch.testing.assert_close(by_hand, log_prob[:3], rtol=0, atol=1e-12)


def test_likelihood_is_the_mean_and_its_error_that_of_log_z() -> None:
    target = make_target(Binary(6), "rbm", strength=0.7)
    codes = target.space.uniform_codes(101, generator=torch.Generator().manual_seed(0))
    result = ais(target, GWG(), generator=torch.Generator().manual_seed(1), num_chains=200, num_temperatures=50)
    likelihood = log_likelihood(target, codes, result, batch_size=10)
    values = unnormalised_log_prob(target, codes) - result.log_z
    assert abs(likelihood.mean - float(values.mean())) < 1e-10
    assert abs(likelihood.data_stderr - float(values.std(correction=0)) / math.sqrt(101)) < 1e-10
    assert likelihood.stderr == result.error > result.stderr
    assert likelihood.num == 101


def test_summary_of_weights() -> None:
    log_z, stderr, ess = summarize(torch.zeros(10))
    assert (log_z, stderr, ess) == (0.0, 0.0, 10.0)
    log_z, _, ess = summarize(torch.tensor([0.0, -1000.0, -1000.0, -1000.0]))
    assert abs(log_z + math.log(4)) < 1e-12
    assert abs(ess - 1) < 1e-12
    shifted = summarize(torch.tensor([1.0, 2.0, 3.0]) + 5000)
    plain = summarize(torch.tensor([1.0, 2.0, 3.0]))
    assert abs(shifted[0] - plain[0] - 5000) < 1e-9
    assert abs(shifted[2] - plain[2]) < 1e-9


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
def test_schedules_rise_from_zero_to_one(schedule: str) -> None:
    betas = beta_schedule(37, schedule)
    assert len(betas) == 38
    assert float(betas[0]) == 0
    assert float(betas[-1]) == 1
    assert (betas.diff() > 0).all()
    torch.testing.assert_close(betas.flip(0), 1 - betas, rtol=0, atol=1e-12)
    if schedule == "sigmoid":
        assert betas.diff()[0] < 0.3 * betas.diff().max()


def test_bad_settings_name_themselves() -> None:
    with pytest.raises(ValueError, match="schedule must be one of linear, sigmoid, geometric, adaptive, got 'cubic'"):
        beta_schedule(10, "cubic")
    with pytest.raises(ValueError, match="num_temperatures must be positive, got 0"):
        beta_schedule(0)
    energy: Energy = RBMEnergy(Binary(4))
    with pytest.raises(ValueError, match="needs a target with a reference"):
        ais(Target(energy), GWG(), generator=torch.Generator())
    assert IsingEnergy(Binary(4)).space == Binary(4)
