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
RELIABLE_TIMES = 20
"""An autocorrelation time is believed where every chain is at least so many of them long."""


class Interval(NamedTuple):
    """An estimate and a central interval around it; NaN where nothing was measured."""

    value: float
    low: float = math.nan
    high: float = math.nan


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


def time_interval(runs: list[Tensor], *, level: float = 0.9, draws: int = 100, seed: int = 0) -> Interval:
    """The geometric mean of the runs' autocorrelation times, and a bootstrap interval over runs and their chains.

    Each draw takes as many runs as there are, with replacement, and of each as many chains (Efron, 1979). The interval
    is log tau ± t s with s the deviation over draws, corrected for n chains by sqrt(n / (n - 1)), and t Student's
    quantile with n - 1 degrees of freedom. NaN where a chain never moved. With one chain there is no interval.

    Args:
        runs: observables ``(T, B)`` of independent runs.
        level: probability of the central interval.
        draws: number of bootstrap draws.
        seed: seed of the draws.
    """
    runs = [checked(values) for values in runs]
    kept = [(autocovariance(values), values.mean(0), moved(values)) for values in runs]
    value = _log_mean([_geyer(_pooled(*parts)) for parts in kept])
    fewest, num = min(values.shape[1] for values in runs), sum(values.shape[1] for values in runs)
    if math.isnan(value) or fewest < 2:
        return Interval(value)
    generator = torch.Generator().manual_seed(seed)
    found = [_log_mean([_redrawn(kept[run], generator) for run in _with_replacement(len(kept), generator).tolist()])
             for _ in range(draws)]  # fmt: skip
    deviation = float(torch.tensor(found, dtype=torch.float64).log().std()) * math.sqrt(num / (num - 1))
    factor = math.exp(student_quantile(level, num - 1) * deviation)
    return Interval(value, value / factor, value * factor)


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


def _pooled(gamma: Tensor, mean: Tensor, has_moved: Tensor) -> Tensor:
    """rho_t from the autocovariances ``(T, B)`` and the means ``(B,)`` of chains."""
    times, num = gamma.shape
    if not bool(has_moved.all()):
        return gamma.new_full((times,), math.nan)
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
    pairs = rho[: len(rho) // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    ends = (pairs <= 0).nonzero()
    first = int(ends[0]) if len(ends) else len(pairs)
    falling = pairs[:first].cummin(0).values
    return max(float(2 * falling.sum() - 1), 1 / math.log10(max(len(rho), 10)))


def _with_replacement(num: int, generator: torch.Generator) -> Tensor:
    return torch.randint(num, (num,), generator=generator)


def _redrawn(kept: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> float:
    """The autocorrelation time of chains drawn with replacement."""
    chains = _with_replacement(len(kept[1]), generator)
    return _geyer(_pooled(*(part[..., chains] for part in kept)))


def _ess_of(time: float, count: int) -> float:
    return min(count / time, count * math.log10(max(count, 10))) if time > 0 else math.nan


def _log_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))
