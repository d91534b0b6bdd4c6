"""Annealed importance sampling backwards, from points of the model to the reference (Neal, 2001, section 5).

From exact samples of the model the mean weight is 1 / Z in expectation, so log Z comes out high on average: the other
side of ``ais``. From chains that are not at equilibrium it is a diagnostic and bounds nothing: where all of them sit in
one of two modes it may come out low.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.ais import summarize
from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.error_bars import Interval, interval_of_weights, standard_error, weights_collapsed
from gwg_dist.evaluation.tuned_path import TunedPath, betas_of
from gwg_dist.samplers import Sampler, Target
from gwg_dist.tools.distributed import gather_rows, rank, share, world_size


class ReverseResult(NamedTuple):
    """An estimate of log Z from the model's side.

    Args:
        log_z: -log of the mean weight, nats; high on average where the points were exact samples.
        stderr: standard error of ``log_z`` by the delta method, nats; too small where few weights carry the estimate.
        ess: effective sample size of the weights, (sum w)^2 / sum w^2.
        log_weights: ``(N,)`` float64, of all ranks; their mean exponential is 1 / Z in expectation.
        num_temperatures: temperatures done, each a gradient evaluation a chain.
    """

    log_z: float
    stderr: float
    ess: float
    log_weights: Tensor
    num_temperatures: int

    @property
    def collapsed(self) -> bool:
        """Whether so few weights carry the estimate that it is not to be believed."""
        return weights_collapsed(self.ess, len(self.log_weights))

    @property
    def interval(self) -> Interval:
        """Between which values log Z lies with a probability of 95 %, nats, where the points were exact samples."""
        return interval_of_weights(self.log_weights).turned()

    @property
    def error(self) -> float:
        """The ± of people, nats: 1.96 of it reach the farther end of ``interval``, so infinite where collapsed."""
        return standard_error(self.log_z, self.interval)


def reverse_ais(
    target: Target,
    sampler: Sampler | TunedPath,
    codes: Tensor,
    *,
    generator: torch.Generator,
    num_temperatures: int = 1000,
    schedule: str = "linear",
    backend: str = "auto",
) -> ReverseResult:
    """Estimate log Z of ``target`` from points of the model; called on every rank.

    At temperature t the weight takes (beta_t - beta_{t-1}) f(x_{t-1}) for beta falling from 1 to 0, then one step of
    ``sampler`` at beta_t moves x. The works of a reversible kernel are those of ``ais`` turned round, so that
    ``bennett`` takes both. Progress, stopping and going on are those of ``anneal``:

        start = reverse_start(target, codes)
        for point in anneal(target, sampler, start, beta_schedule(1000).flip(0), generator=generator): ...
        estimate = reverse_result(point)

    Args:
        target: target that has a reference, with Z of the reference 1.
        sampler: leaves p_beta invariant for every beta; or one for each beta, see ``pilot_path``.
        codes: independent samples of the model ``(N, D)``, the same on all ranks, which share them.
        generator: this rank's own, on the device of the model.
        num_temperatures: T.
        schedule: see ``beta_schedule``.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer points than ranks, points of another space, a bad schedule.
    """
    path = sampler if isinstance(sampler, TunedPath) else None
    betas = betas_of(path, num_temperatures, schedule).flip(0)
    points = anneal(target, sampler, reverse_start(target, codes), betas, generator=generator, backend=backend)
    return reverse_result(deque(points, maxlen=1).pop())


def reverse_start(target: Target, codes: Tensor) -> AnnealPoint:
    """This rank's share of the points with weight one, to anneal from beta = 1 down.

    Raises:
        ValueError: a target without a reference, fewer points than ranks, points of another space.
    """
    if target.reference is None:
        raise ValueError("annealing back needs a target with a reference to end at")
    target.space.check_codes(codes)
    if len(codes) < world_size():
        raise ValueError(f"points must be at least the {world_size()} processes, got {len(codes)}")
    x = target.encode(codes[share(len(codes), rank(), world_size())].to(target.device))
    return AnnealPoint(0, x, torch.zeros(len(x), dtype=torch.float64, device=x.device))


def reverse_result(point: AnnealPoint) -> ReverseResult:
    """The estimate from the chains of all ranks at beta = 0; called on every rank."""
    log_weights = gather_rows(point.log_weights).cpu()
    log_inverse, stderr, ess = summarize(log_weights)
    return ReverseResult(-log_inverse, stderr, ess, log_weights, point.t)
