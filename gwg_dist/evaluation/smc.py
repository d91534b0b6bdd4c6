"""Sequential Monte Carlo along the annealing path: chains of small weight are replaced by copies of the others.

Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers", Journal of the Royal Statistical Society B 68, 2006.
Like annealed importance sampling it is unbiased for Z, whatever the kernel. Its error is smaller where weights would
collapse although chains mix at every temperature. Not implemented: resampling across ranks, whose chains are
populations of their own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.ais import ais_start
from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.tuned_path import TunedPath, betas_of
from gwg_dist.samplers import Sampler, Target
from gwg_dist.tools.distributed import gather_rows


class SMCResult(NamedTuple):
    """An estimate of log Z.

    Args:
        log_z: log of the mean weight, nats.
        stderr: its standard error, nats, from the genealogy of the chains; infinite where all of a rank descend
            from one.
        num_ancestors: chains of the start that some chain at the end descends from.
        num_resampled: how often the chains of a rank were resampled, at the most.
        log_weights: ``(num_chains,)`` float64, of all ranks.
        codes: this rank's chains after the last temperature, ``(share, D)``; weigh them by ``log_weights``.
        num_temperatures: temperatures done, each a gradient evaluation a chain.
    """

    log_z: float
    stderr: float
    num_ancestors: int
    num_resampled: int
    log_weights: Tensor
    codes: Tensor
    num_temperatures: int


class Population(NamedTuple):
    """Chains, and where they come from.

    Args:
        point: chains and weights.
        ancestor: the chain of the start that each descends from, ``(B,)`` int64.
        num_resampled: how often they were resampled.
    """

    point: AnnealPoint
    ancestor: Tensor
    num_resampled: int


def smc(
    target: Target,
    sampler: Sampler | TunedPath,
    *,
    generator: torch.Generator,
    num_chains: int = 500,
    num_temperatures: int = 1000,
    schedule: str = "linear",
    every: int = 20,
    threshold: float = 0.5,
    backend: str = "auto",
) -> SMCResult:
    """Estimate log Z of ``target`` with one gradient a temperature; called on every rank.

    After every ``every`` temperatures the chains of a rank are resampled where their effective sample size is below
    ``threshold`` of them; each then has the mean weight.

    Args:
        target: target that has a reference.
        sampler: leaves p_beta invariant for every beta; or one for each beta, see ``pilot_path``.
        generator: this rank's own, on the device of the model.
        num_chains: chains on all ranks together.
        num_temperatures: T.
        schedule: see ``beta_schedule``.
        every: temperatures between two looks at the weights.
        threshold: in [0, 1]; 0 never resamples, which is ``ais``.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer chains than ranks, a bad schedule, a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
    betas = betas_of(sampler if isinstance(sampler, TunedPath) else None, num_temperatures, schedule)
    start = ais_start(target, generator=generator, num_chains=num_chains)
    population = Population(start, torch.arange(len(start.x), device=start.x.device), 0)
    while population.point.t < num_temperatures:
        point = next(
            anneal(target, sampler, population.point, betas, generator=generator, every=every, backend=backend)
        )
        population = population._replace(point=point)
        if point.t < num_temperatures and effective_size(point.log_weights) < threshold * len(point.x):
            population = resampled(population, generator)
    return smc_result(target, population)


def effective_size(log_weights: Tensor) -> float:
    """(sum w)^2 / sum w^2 of log weights ``(N,)``."""
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


def resampled(population: Population, generator: torch.Generator) -> Population:
    """Chains drawn in proportion to their weights by systematic resampling, each with the mean weight.

    One uniform number u: chain i is taken as often as (u + k) / N, k = 0, ..., N - 1, falls into its stretch of the
    cumulative weights, so N w_i times in expectation (Kitagawa, 1996).
    """
    point = population.point
    num = len(point.x)
    cumulative = torch.softmax(point.log_weights, 0).cumsum(0)
    u = torch.rand(1, generator=generator, dtype=torch.float64, device=cumulative.device)
    places = (u + torch.arange(num, device=u.device)) / num
    index = torch.searchsorted(cumulative / cumulative[-1], places, right=True).clamp_(max=num - 1)
    mean = point.log_weights.logsumexp(0) - math.log(num)
    moved = AnnealPoint(point.t, point.x[index], mean.expand(num).clone(), generator.get_state())
    return Population(moved, population.ancestor[index], population.num_resampled + 1)


def smc_result(target: Target, population: Population) -> SMCResult:
    """The estimate from the populations of all ranks, which are independent; called on every rank."""
    point = population.point
    log_weights = gather_rows(point.log_weights).cpu()
    weights = torch.softmax(point.log_weights, 0)
    shares = torch.zeros_like(weights).index_add_(0, population.ancestor, weights)
    mine = torch.stack([
        point.log_weights.logsumexp(0), weights.new_tensor(genealogical_error(shares, population.num_resampled)),
        (shares > 0).sum().double(), weights.new_tensor(population.num_resampled),
    ])  # fmt: skip
    log_sums, errors, ancestors, times = gather_rows(mine[None]).cpu().T
    stderr = float((torch.softmax(log_sums, 0) * errors).square().sum().sqrt())
    log_z = float(log_weights.logsumexp(0)) - math.log(len(log_weights))
    codes = target.space.decode(point.x)
    return SMCResult(log_z, stderr, int(ancestors.sum()), int(times.max()), log_weights, codes, point.t)


def genealogical_error(shares: Tensor, num_resampled: int) -> float:
    """Relative standard error of the mean weight of one population (Lee and Whiteley, Biometrika 105, 2018).

    V = 1 - (N / (N - 1))^(n + 1) (1 - sum_e W_e^2), where W_e is the share of the weights that the descendants of the
    start's chain e have, and n counts resamplings. Without one it is the error of a mean.

    Args:
        shares: W, ``(N,)`` with sum one, 0 for chains without descendants.
        num_resampled: n.
    """
    num = len(shares)
    if int((shares > 0).sum()) < 2:
        return math.inf
    growth = (num / (num - 1)) ** (num_resampled + 1)
    return math.sqrt(max(1 - growth * (1 - float(shares.square().sum())), 0.0))
