"""How well chains mix: effective sample size, autocorrelation time and R-hat, from an observable along every chain.

Every function takes ``values`` ``(T, B)``: one observable at T times, equally far apart, of B chains. A chain whose
values never change says nothing of how fast it mixes, so the answer is then NaN, not measured.
Not implemented: rank normalisation, effective sizes of several observables at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST_TIMES = 4
LAGS_AROUND = 8  # lags that bootstrap draws look at, times the pairs in the sum of all chains
RELIABLE_TIMES = 20
"""An autocorrelation time is believed where every chain is at least so many of them long."""


class Estimate(NamedTuple):
    """A positive number and how uncertain its logarithm is; NaN where nothing was measured.

    Args:
        value: the estimate.
        deviation: standard deviation of its logarithm.
        freedom: degrees of freedom of ``deviation``.
    """

    value: float
    deviation: float = math.nan
    freedom: int = 1

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """The central interval: log value ± Student's quantile times the deviation."""
        factor = math.exp(student_quantile(level, self.freedom) * self.deviation)
        return self.value / factor, self.value * factor

    def over(self, other: Estimate) -> Estimate:
        """The ratio to an independent estimate."""
        deviation = math.hypot(self.deviation, other.deviation)
        return Estimate(self.value / other.value, deviation, min(self.freedom, other.freedom))

    def reciprocal(self, factor: float = 1.0) -> Estimate:
        """``factor`` / value."""
        return Estimate(factor / self.value, self.deviation, self.freedom)


def autocovariance(values: Tensor) -> Tensor:
    """gamma_t = sum_s (v_s - mean)(v_{s+t} - mean) / T of every chain about its own mean, ``(T, B)`` float64.

    Args:
        values: an observable along chains, ``(T, B)``.

    Raises:
        ValueError: fewer than 4 times, or another shape.
    """
    values = checked(values)
    times = len(values)
    centred = values - values.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * times, dim=0)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * times, dim=0)[:times] / times


def autocorrelation(values: Tensor) -> Tensor:
    """rho_t of all chains together, ``(T,)`` float64 with rho_0 = 1; NaN where a chain never moved.

    rho_t = 1 - (W - mean gamma_t T / (T - 1)) / var+, with W the mean variance within a chain and
    var+ = W (T - 1) / T + B / T the variance of all (Vehtari, Gelman, Simpson, Carpenter and Buerkner, 2021, equation
    10). Chains that stay apart thus count as correlated.

    Args:
        values: an observable along chains, ``(T, B)``.
    """
    values = checked(values)
    return _pooled(autocovariance(values), values.mean(0), moved(values))


def integrated_time(values: Tensor) -> float:
    """tau = 1 + 2 sum_t rho_t in units of the time between two values; NaN where a chain never moved.

    Summed over Geyer's initial monotone sequence (Geyer, 1992, section 3.3): pairs rho_2k + rho_2k+1 are positive and
    fall for a reversible chain, so the sum ends at the first pair that is not positive, and a pair counts no more than
    the one before it.

    Args:
        values: an observable along chains, ``(T, B)``.
    """
    return _geyer(autocorrelation(values))


def ess(values: Tensor) -> float:
    """The number of independent draws that estimate the mean as well as all T B values do, T B / tau.

    NaN where a chain never moved. It is at most T B log10(T B), as negative correlations are hard to measure.

    Args:
        values: an observable along chains, ``(T, B)``.
    """
    return _ess_of(integrated_time(values), checked(values).numel())


def batch_means_time(values: Tensor, *, batch: int | None = None) -> float:
    """tau by batch means: the variance of the means of batches, times their length, over the variance of the values.

    Both variances are about the mean of all chains. NaN where a chain never moved (Flegal and Jones, 2010).

    Args:
        values: an observable along chains, ``(T, B)``.
        batch: length of a batch; the root of T by default.

    Raises:
        ValueError: fewer than two batches a chain.
    """
    values = checked(values)
    length = math.isqrt(len(values)) if batch is None else batch
    num = len(values) // max(length, 1)
    if length < 1 or num < 2:
        raise ValueError(f"batch must leave at least two batches of {len(values)} values, got {batch}")
    if not bool(moved(values).all()):
        return math.nan
    used = values[: num * length]
    means = used.unflatten(0, (num, length)).mean(1)
    return float(length * means.var() / used.var())


def batch_means_ess(values: Tensor, *, batch: int | None = None) -> float:
    """T B over the autocorrelation time by batch means; NaN where a chain never moved.

    Args:
        values: an observable along chains, ``(T, B)``.
        batch: length of a batch; the root of T by default.
    """
    return _ess_of(batch_means_time(values, batch=batch), checked(values).numel())


def split_rhat(values: Tensor) -> float:
    """Split R-hat: sqrt(var+ / W) over the halves of all chains (Gelman et al., 2013); 1 where they agree.

    NaN where no half moved.

    Args:
        values: an observable along chains, ``(T, B)``.
    """
    values = checked(values)
    half = len(values) // 2
    halves = torch.cat([values[:half], values[len(values) - half :]], 1)
    within = float(halves.var(0).mean())
    if within == 0:
        return math.nan
    return math.sqrt((half - 1) / half + float(halves.mean(0).var()) / within)


def redrawn_times(values: Tensor, *, draws: int = 100, seed: int = 0) -> list[float]:
    """``integrated_time`` of as many chains, drawn with replacement, again and again (bootstrap; Efron, 1979).

    Args:
        values: an observable along chains, ``(T, B)``.
        draws: number of times.
        seed: seed of the draws.
    """
    values = checked(values)
    gamma, mean, has_moved = autocovariance(values), values.mean(0), moved(values)
    times = len(gamma)
    gamma = gamma[: LAGS_AROUND * (_num_pairs(_pooled(gamma, mean, has_moved)) + 8)]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        chains = torch.randint(values.shape[1], (values.shape[1],), generator=generator)
        found.append(_geyer(_pooled(gamma[:, chains], mean[chains], has_moved[chains], times=times)))
    return found


def combined_time(times: list[float], redrawn: list[list[float]], *, num_chains: int, seed: int = 0) -> Estimate:
    """The geometric mean of the autocorrelation times of independent runs, with its bootstrap deviation.

    A draw takes as many runs as there are, with replacement, and of each one of its ``redrawn_times``. The deviation is
    corrected for the n chains of all runs by sqrt(n / (n - 1)).

    Args:
        times: the runs' ``integrated_time``.
        redrawn: the runs' ``redrawn_times``.
        num_chains: n.
        seed: seed of the draws.
    """
    value = _log_mean(times)
    if math.isnan(value) or num_chains < 2:
        return Estimate(value)
    generator = torch.Generator().manual_seed(seed)
    logs = torch.tensor(redrawn, dtype=torch.float64).log()
    num, draws = logs.shape
    run = torch.randint(num, (draws, num), generator=generator)
    draw = torch.randint(draws, (draws, num), generator=generator)
    deviation = float(logs[run, draw].mean(1).std()) * math.sqrt(num_chains / (num_chains - 1))
    return Estimate(value, deviation, num_chains - 1)


def time_estimate(values: Tensor, *, draws: int = 100, seed: int = 0) -> Estimate:
    """``integrated_time`` with its bootstrap deviation over chains; NaN where a chain never moved.

    Args:
        values: an observable along chains, ``(T, B)``.
        draws: number of bootstrap draws.
        seed: seed of the draws.
    """
    redrawn = redrawn_times(values, draws=draws, seed=seed)
    return combined_time([integrated_time(values)], [redrawn], num_chains=values.shape[1], seed=seed)


def student_quantile(level: float, freedom: int) -> float:
    """t with P(-t < T < t) = ``level`` for Student's T, to order 1/freedom^2 (Abramowitz and Stegun, 1964, 26.7.5)."""
    z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + (z**3 + z) / (4 * freedom) + second / freedom**2


def moved(values: Tensor) -> Tensor:
    """Whether the observable of each chain ever changed, ``(B,)`` bool."""
    return (values != values[:1]).any(0)


def checked(values: Tensor) -> Tensor:
    """``values`` on the CPU in float64. Raises ValueError unless they are ``(T, B)`` with T at least 4, and finite."""
    if values.ndim != 2 or len(values) < FEWEST_TIMES or not values.shape[1]:
        raise ValueError(f"values must have shape (T, B) with T at least {FEWEST_TIMES}, got {tuple(values.shape)}")
    values = values.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise ValueError("values must be finite")
    return values


def _pooled(gamma: Tensor, mean: Tensor, has_moved: Tensor, *, times: int | None = None) -> Tensor:
    """rho_t from the autocovariances ``(L, B)`` and the means ``(B,)`` of chains of T times; L is T by default."""
    lags, num = gamma.shape
    times = lags if times is None else times
    if not bool(has_moved.all()):
        return gamma.new_full((lags,), math.nan)
    unbiased = gamma.mean(1) * (times / (times - 1))
    within = unbiased[0]
    between = mean.var() if num > 1 else gamma.new_zeros(())
    total = within * (times - 1) / times + between
    rho = 1 - (within - unbiased) / total
    rho[0] = 1
    return rho


def _geyer(rho: Tensor) -> float:
    """1 + 2 sum rho_t over the initial monotone sequence of ``rho`` ``(T,)``."""
    if bool(rho.isnan().any()):
        return math.nan
    falling = _pairs(rho)[: _num_pairs(rho)].cummin(0).values
    return max(float(2 * falling.sum() - 1), 1 / math.log10(max(len(rho), 10)))


def _pairs(rho: Tensor) -> Tensor:
    return rho[: len(rho) // 2 * 2].unflatten(0, (-1, 2)).sum(1)


def _num_pairs(rho: Tensor) -> int:
    """How many sums rho_2k + rho_2k+1 there are before the first that is not positive."""
    ends = (_pairs(rho) <= 0).nonzero()
    return int(ends[0]) if len(ends) else len(rho) // 2


def _ess_of(time: float, count: int) -> float:
    return min(count / time, count * math.log10(max(count, 10))) if time > 0 else math.nan


def _log_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else math.nan
