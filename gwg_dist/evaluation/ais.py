"""Annealed importance sampling (Neal, 2001) from the reference to the model.

Forward AIS is unbiased for Z, so by Jensen's inequality it underestimates log Z on average and OVERestimates the
likelihood; the fewer the temperatures, the more. Not implemented: reverse AIS, adaptive schedules.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.tuned_path import TunedPath
from gwg_dist.samplers import Sampler, Target
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import gather_rows, rank, share, world_size

SCHEDULES = ("linear", "sigmoid")
LOW_ESS_FRACTION, LOW_ESS = 0.05, 5.0
OPTIMISTIC = "forward AIS: log Z is low on average, so this likelihood is optimistic"


class AISResult(NamedTuple):
    """An estimate of log Z.

    Args:
        log_z: log of the mean weight, nats; p(x) = ref(x) exp(-E(x)) / Z with a normalised reference.
        stderr: standard error of ``log_z`` by the delta method, nats.
        ess: effective sample size of the weights, (sum w)^2 / sum w^2.
        log_weights: ``(num_chains,)`` float64, of all ranks.
        codes: this rank's chains after the last temperature, ``(share, D)``.
        num_temperatures: temperatures done, each a gradient evaluation a chain.
        path: kernels for each beta that a pilot run found before; None where there was none.
    """

    log_z: float
    stderr: float
    ess: float
    log_weights: Tensor
    codes: Tensor
    num_temperatures: int
    path: TunedPath | None = None

    @property
    def collapsed(self) -> bool:
        """Whether so few weights carry the estimate that it is not to be believed."""
        return not self.ess >= max(LOW_ESS_FRACTION * len(self.log_weights), LOW_ESS)


def beta_schedule(num_temperatures: int, schedule: str = "linear") -> Tensor:
    """beta_0 = 0 < ... < beta_T = 1, ``(T + 1,)`` float64.

    "linear", or "sigmoid": a logistic curve over [-4, 4] scaled to [0, 1], denser at both ends.

    Raises:
        ValueError: an unknown schedule, fewer than one temperature.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be positive, got {num_temperatures}")
    betas = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)
    if schedule == "linear":
        return betas
    if schedule != "sigmoid":
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    curve = torch.sigmoid(8 * betas - 4)
    return (curve - curve[0]) / (curve[-1] - curve[0])


def summarize(log_weights: Tensor) -> tuple[float, float, float]:
    """``(log_z, stderr, ess)`` of log weights ``(N,)``, in float64.

    log_z = log mean w. stderr = std(w) / (sqrt(N) mean w), infinite for a single weight.
    """
    log_weights = log_weights.double()
    num = len(log_weights)
    log_z = torch.logsumexp(log_weights, 0) - math.log(num)
    scaled = (log_weights - log_z).exp()  # mean one
    stderr = float(scaled.std()) / math.sqrt(num) if num > 1 else math.inf
    return float(log_z), stderr, float(scaled.sum() ** 2 / scaled.square().sum())


def ais(
    target: Target,
    sampler: Sampler | TunedPath,
    *,
    generator: torch.Generator,
    num_chains: int = 500,
    num_temperatures: int = 1000,
    schedule: str = "linear",
    backend: str = "auto",
) -> AISResult:
    """Estimate log Z of ``target`` with one gradient a temperature.

    x_0 is drawn from the reference exactly. At temperature t the weight takes (beta_t - beta_{t-1}) f(x_{t-1}), then
    one step of ``sampler`` at beta_t moves x; f and ∇f are cached untempered, so nothing is evaluated twice.

    Whoever wants to show progress, to stop, or to go on later, writes the same in three steps:

        start = ais_start(target, generator=generator, num_chains=500)
        for point in anneal(target, sampler, start, beta_schedule(1000), generator=generator, look=10): ...
        estimate = ais_result(target.space, point)

    Args:
        target: target that has a reference.
        sampler: leaves p_beta invariant for every beta; or one for each beta, see ``pilot_path``.
        generator: this rank's own, on the device of the model.
        num_chains: AIS chains on all ranks together.
        num_temperatures: T.
        schedule: see ``beta_schedule``.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer chains than ranks, a bad schedule.
    """
    betas = beta_schedule(num_temperatures, schedule)
    start = ais_start(target, generator=generator, num_chains=num_chains)
    points = anneal(target, sampler, start, betas, generator=generator, backend=backend)
    path = sampler if isinstance(sampler, TunedPath) else None
    return ais_result(target.space, deque(points, maxlen=1).pop(), path)


def check_num_chains(num_chains: int, num_ranks: int) -> None:
    """Raise ValueError where there are fewer chains than ranks."""
    if num_chains < num_ranks:
        raise ValueError(f"num_chains must be at least the {num_ranks} processes, got {num_chains}")


def ais_start(target: Target, *, generator: torch.Generator, num_chains: int) -> AnnealPoint:
    """This rank's share of chains, drawn from the reference exactly, with weight one; a point to anneal from.

    Args:
        target: target that has a reference.
        generator: this rank's own, on the device of the model.
        num_chains: AIS chains on all ranks together.

    Raises:
        ValueError: a target without a reference, fewer chains than ranks.
    """
    if target.reference is None:
        raise ValueError("annealed importance sampling needs a target with a reference to start from")
    check_num_chains(num_chains, world_size())
    mine = share(num_chains, rank(), world_size())
    num = mine.stop - mine.start
    x = target.space.encode(target.reference.sample(num, generator=generator), target.reference.weights.dtype)
    return AnnealPoint(0, x, torch.zeros(num, dtype=torch.float64, device=x.device), generator.get_state())


def ais_result(space: Space, point: AnnealPoint, path: TunedPath | None = None) -> AISResult:
    """The estimate of log Z at the beta of ``point``, from the chains of all ranks; called on every rank."""
    log_weights = gather_rows(point.log_weights).cpu()
    log_z, stderr, ess = summarize(log_weights)
    return AISResult(log_z, stderr, ess, log_weights, space.decode(point.x), point.t, path)
