"""Effective sizes on chains whose autocorrelation time is known, and the error bars of both."""

import math

import pytest
import torch
from torch import Tensor

from gwg_dist.evaluation import mixing
from gwg_dist.evaluation.mixing import (
    autocorrelation,
    batch_means_ess,
    batch_means_time,
    ess,
    integrated_time,
    split_rhat,
    time_estimate,
)


def ar1(phi: float, times: int, chains: int, seed: int) -> Tensor:
    """v_t = phi v_{t-1} + noise, stationary with variance 1; tau = (1 + phi) / (1 - phi)."""
    noise = torch.randn(times, chains, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = [noise[0]]
    for step in noise[1:]:
        values.append(phi * values[-1] + math.sqrt(1 - phi**2) * step)
    return torch.stack(values)


def true_time(phi: float) -> float:
    return (1 + phi) / (1 - phi)


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
def test_the_time_of_an_autoregression(phi: float) -> None:
    values = ar1(phi, 4000, 25, seed=0)
    rho = autocorrelation(values)
    torch.testing.assert_close(rho[:5], phi ** torch.arange(5, dtype=torch.float64), atol=0.03, rtol=0)
    assert integrated_time(values) == pytest.approx(true_time(phi), rel=0.08)
    assert ess(values) == pytest.approx(values.numel() / true_time(phi), rel=0.08)
    assert batch_means_time(values, batch=200) == pytest.approx(true_time(phi), rel=0.15)
    assert batch_means_ess(values, batch=200) == pytest.approx(values.numel() / true_time(phi), rel=0.15)
    assert split_rhat(values) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("mutant", [lambda rho: -rho, lambda rho: rho * 0.5, lambda rho: rho.roll(-1)])
def test_a_wrong_sign_or_scale_is_caught(mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The autocorrelation's sign turned, its normalisation halved, its lag off by one."""
    right = mixing._pooled

    def wrong(*parts: Tensor) -> Tensor:
        rho = right(*parts)
        return torch.cat([rho[:1], mutant(rho)[1:]])

    monkeypatch.setattr(mixing, "_pooled", wrong)
    with pytest.raises(AssertionError):
        test_the_time_of_an_autoregression(0.5)


def test_time_does_not_depend_on_scale_and_place() -> None:
    values = ar1(0.7, 500, 8, seed=1)
    assert integrated_time(3 - 5 * values) == pytest.approx(integrated_time(values))


def test_error_bars_cover_at_their_rate() -> None:
    """Over 200 seeds: the interval of tau, and the mean plus and minus its standard error by the effective size."""
    covered_time = covered_mean = 0
    for seed, values in enumerate(ar1(0.6, 400, 16 * 200, seed=100).split(16, 1)):
        low, high = time_estimate(values, draws=40, seed=seed).interval(0.9)
        covered_time += low <= true_time(0.6) <= high
        covered_mean += abs(float(values.mean())) < 1.645 * float(values.std()) / math.sqrt(ess(values))
    assert 0.82 < covered_time / 200 < 0.97
    assert 0.84 < covered_mean / 200 < 0.96


def test_chains_that_stay_apart_are_no_independent_draws() -> None:
    values = ar1(0.2, 1000, 8, seed=2)
    apart = values + 10 * torch.arange(8)
    assert ess(apart) < 30 < ess(values) / 100
    assert split_rhat(apart) > 5


def test_a_chain_that_never_moved_is_not_measured() -> None:
    still = torch.zeros(100, 3)
    some = ar1(0.5, 100, 3, seed=3)
    some[:, 1] = 7.0
    for values in (still, some):
        assert math.isnan(ess(values))
        assert math.isnan(batch_means_ess(values))
        assert math.isnan(integrated_time(values))
        assert math.isnan(time_estimate(values).value)
    assert math.isnan(split_rhat(still))
    assert mixing.moved(some).tolist() == [True, False, True]


@pytest.mark.parametrize("values", [torch.zeros(3, 2), torch.zeros(10), torch.full((10, 2), math.inf)])
def test_what_is_no_observable_is_refused(values: Tensor) -> None:
    with pytest.raises(ValueError, match="values must"):
        ess(values)


def test_runs_together_are_more_certain_and_ratios_less() -> None:
    runs = [ar1(0.6, 400, 16, seed=seed) for seed in range(4)]
    alone = [time_estimate(values) for values in runs]
    redrawn = [mixing.redrawn_times(values) for values in runs]
    together = mixing.combined_time([estimate.value for estimate in alone], redrawn, num_chains=64)
    assert together.value == pytest.approx(true_time(0.6), rel=0.1)
    assert 0.25 < together.deviation / alone[0].deviation < 0.9
    ratio = alone[0].over(alone[1])
    low, high = ratio.interval(0.99)
    assert low < 1 < high
    assert ratio.deviation > max(alone[0].deviation, alone[1].deviation)


def test_students_quantile() -> None:
    for freedom, expected in ((5, 2.015), (15, 1.753), (1000, 1.646)):
        assert mixing.student_quantile(0.9, freedom) == pytest.approx(expected, rel=6e-3)


def test_batches_must_be_two() -> None:
    with pytest.raises(ValueError, match="batch must leave at least two batches of 100 values, got 51"):
        batch_means_time(torch.randn(100, 2), batch=51)
