"""Sequential Monte Carlo along the annealing path: chains of small weight are replaced by copies of the others.

Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers", Journal of the Royal Statistical Society B 68, 2006.
Like annealed importance sampling it is unbiased for Z, whatever the kernel. Its error is smaller where weights would
collapse although chains mix at every temperature. Chains resample within systems that know nothing of each other, so
that the mean weights of the systems are independent and unbiased for Z, and their spread is the error.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial

import torch

from gwg_dist.evaluation.ais import AISResult, ais_result, ais_start
from gwg_dist.evaluation.annealing import AnnealPoint, Between, anneal
from gwg_dist.evaluation.tuned_path import TunedPath, betas_of
from gwg_dist.samplers import Sampler, Target

NUM_SYSTEMS, EVERY, THRESHOLD = 20, 20, 0.5


def smc(
    target: Target,
    sampler: Sampler | TunedPath,
    *,
    generator: torch.Generator,
    num_chains: int = 500,
    num_temperatures: int = 1000,
    schedule: str = "linear",
    num_systems: int = NUM_SYSTEMS,
    every: int = EVERY,
    threshold: float = THRESHOLD,
    backend: str = "auto",
) -> AISResult:
    """Estimate log Z of ``target`` with one gradient a temperature; called on every rank, which share the systems.

    After every ``every`` temperatures a system resamples its chains where their effective sample size is below
    ``threshold`` of them. Progress, stopping and going on are those of ``anneal``, with ``between=resampler()``.

    Args:
        target: target that has a reference.
        sampler: leaves p_beta invariant for every beta; or one for each beta, see ``pilot_path``.
        generator: this rank's own, on the device of the model.
        num_chains: chains on all ranks together, as many in every system.
        num_temperatures: T.
        schedule: see ``beta_schedule``.
        num_systems: of chains that resample among themselves, on all ranks together.
        every: temperatures between two looks at the weights.
        threshold: in [0, 1]; 0 never resamples.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer systems than ranks, chains that are not whole systems of at
            least four, a bad schedule, a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
    path = sampler if isinstance(sampler, TunedPath) else None
    start = ais_start(target, generator=generator, num_chains=num_chains, num_systems=num_systems)
    between = resampler(num_chains // num_systems, threshold)
    points = anneal(
        target, sampler, start, betas_of(path, num_temperatures, schedule), generator=generator, every=every,
        between=between, backend=backend,
    )  # fmt: skip
    return ais_result(target.space, deque(points, maxlen=1).pop(), path, num_systems=num_systems)


def resampler(size: int, threshold: float = THRESHOLD) -> Between:
    """``resampled`` for systems of ``size`` chains, as ``anneal`` takes it."""
    return partial(resampled, size=size, threshold=threshold)


def resampled(
    point: AnnealPoint, generator: torch.Generator, *, size: int, threshold: float = THRESHOLD
) -> AnnealPoint:
    """Systems with few effective chains draw them in proportion to their weights; each then has the mean weight.

    By systematic resampling, with one uniform number u a system: chain i is taken as often as (u + k) / n,
    k = 0, ..., n - 1, falls into its stretch of the cumulative weights, so n w_i times in expectation (Kitagawa, 1996).

    Args:
        point: systems of chains one after the other, with what resampling has ``added``.
        generator: draws u.
        size: n, chains in a system.
        threshold: share of n that the effective sample size (sum w)^2 / sum w^2 of a system is below to be resampled.
    """
    log_weights = point.log_weights.view(-1, size)
    assert point.added is not None
    weights = torch.softmax(log_weights, 1)
    cumulative = weights.cumsum(1)
    u = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64, device=weights.device)
    own = torch.arange(size, device=weights.device)
    chosen = torch.searchsorted(cumulative / cumulative[:, -1:], (u + own) / size, right=True).clamp_(max=size - 1)
    is_poor = (1 / weights.square().sum(1, keepdim=True) < threshold * size).expand(-1, size)
    first = size * torch.arange(len(weights), device=weights.device)[:, None]
    index = (first + torch.where(is_poor, chosen, own)).flatten()
    mean = (log_weights.logsumexp(1, keepdim=True) - math.log(size)).expand(-1, size).flatten()
    is_poor, own_work = is_poor.flatten(), (point.log_weights - point.added)[index]
    return AnnealPoint(
        point.t,
        point.x[index],
        torch.where(is_poor, mean, point.log_weights),
        added=torch.where(is_poor, mean - own_work, point.added),
    )
