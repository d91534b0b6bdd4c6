"""Annealed importance sampling (Neal, 2001) from the reference to the model.

Forward AIS is unbiased for Z, so by Jensen's inequality it underestimates log Z on average and OVERestimates the
likelihood; the fewer the temperatures, the more.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.error_bars import Interval, interval_of_weights, standard_error, weights_collapsed
from gwg_dist.evaluation.tuned_path import TunedPath, betas_of
from gwg_dist.samplers import Sampler, Target
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import gather_rows, rank, share, world_size

LEAST_SIZE = 4  # chains in a system; of two none is ever poor


class AISResult(NamedTuple):
    """An estimate of log Z.

    Args:
        log_z: log of the mean weight, nats; p(x) = ref(x) exp(-E(x)) / Z with a normalised reference.
        stderr: standard error of ``log_z`` by the delta method, nats; too small where few weights carry the estimate.
        ess: effective sample size of ``units``, (sum w)^2 / sum w^2.
        log_weights: ``(num_chains,)`` float64, of all ranks.
        codes: this rank's chains after the last temperature, ``(share, D)``.
        num_temperatures: temperatures done, each a gradient evaluation a chain.
        path: kernels for each beta that a pilot run found before; None where there was none.
        num_systems: of chains that were resampled among themselves, as ``smc`` does; 0 where none were.
        added: what resampling has added to ``log_weights``, ``(num_chains,)``; None where none did.
    """

    log_z: float
    stderr: float
    ess: float
    log_weights: Tensor
    codes: Tensor
    num_temperatures: int
    path: TunedPath | None = None
    num_systems: int = 0
    added: Tensor | None = None

    @property
    def name(self) -> str:
        """What the way is called in tables."""
        return f"forward {self.short_name}"

    @property
    def short_name(self) -> str:
        """The same without its direction."""
        return "SMC" if self.num_systems else "AIS"

    @property
    def note(self) -> str:
        """What to think of a likelihood by this estimate."""
        return f"{self.name}: log Z is low on average, so this likelihood is optimistic"

    @property
    def units(self) -> Tensor:
        """Log weights of all that is independent, ``(M,)`` nats: of every chain, or the mean one of every system."""
        return units_of(self.log_weights, self.num_systems)

    @property
    def works(self) -> Tensor:
        """Log weights of the chains' own paths, without what resampling has added, ``(num_chains,)`` nats."""
        return self.log_weights if self.added is None else self.log_weights - self.added

    @property
    def what(self) -> str:
        """What ``units`` are, for people."""
        return "systems" if self.num_systems else "chains"

    @property
    def collapsed(self) -> bool:
        """Whether so few weights carry the estimate that it is not to be believed."""
        return weights_collapsed(self.ess, len(self.units))

    @property
    def interval(self) -> Interval:
        """Between which values log Z lies with a probability of 95 %, nats; without an upper end where collapsed."""
        return interval_of_weights(self.units, self.log_weights)

    @property
    def error(self) -> float:
        """The ± of people, nats: 1.96 of it reach the farther end of ``interval``, so infinite where collapsed."""
        return standard_error(self.log_z, self.interval)


def summarize(log_weights: Tensor) -> tuple[float, float, float]:
    """``(log_z, stderr, ess)`` of log weights ``(N,)``, in float64.

    log_z = log mean w. stderr = std(w) / (sqrt(N) mean w), infinite for a single weight; see ``interval_of_weights``
    for one that covers.
    """
    log_weights = log_weights.double()
    num = len(log_weights)
    log_z = torch.logsumexp(log_weights, 0) - math.log(num)
    scaled = (log_weights - log_z).exp()  # mean one
    stderr = float(scaled.std()) / math.sqrt(num) if num > 1 else math.inf
    return float(log_z), stderr, float(scaled.sum() ** 2 / scaled.square().sum())


def units_of(log_weights: Tensor, num_systems: int = 0) -> Tensor:
    """The log of the mean weight of each system of equally many chains in turn, ``(num_systems,)`` nats.

    Where there are no systems every chain is by itself.
    """
    if not num_systems:
        return log_weights
    each = log_weights.view(num_systems, -1)
    return each.logsumexp(1) - math.log(each.shape[1])


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
        schedule: see ``beta_schedule``; or "adaptive" for the one that a path's pilot run found.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer chains than ranks, a bad schedule.
    """
    path = sampler if isinstance(sampler, TunedPath) else None
    betas = betas_of(path, num_temperatures, schedule)
    start = ais_start(target, generator=generator, num_chains=num_chains)
    points = anneal(target, sampler, start, betas, generator=generator, backend=backend)
    return ais_result(target.space, deque(points, maxlen=1).pop(), path)


def own_chains(num_chains: int, num_systems: int = 0) -> slice:
    """The chains of this rank, whole systems where there are any."""
    size = num_chains // num_systems if num_systems else 1
    mine = share(num_systems or num_chains, rank(), world_size())
    return slice(mine.start * size, mine.stop * size)


def check_num_chains(num_chains: int, num_ranks: int) -> None:
    """Raise ValueError where there are fewer chains than ranks."""
    if num_chains < num_ranks:
        raise ValueError(f"num_chains must be at least the {num_ranks} processes, got {num_chains}")


def ais_start(target: Target, *, generator: torch.Generator, num_chains: int, num_systems: int = 0) -> AnnealPoint:
    """This rank's share of chains, drawn from the reference exactly, with weight one; a point to anneal from.

    Args:
        target: target that has a reference.
        generator: this rank's own, on the device of the model.
        num_chains: AIS chains on all ranks together.
        num_systems: of chains that resample among themselves, see ``smc``; 0 for none.

    Raises:
        ValueError: a target without a reference, fewer chains or systems than ranks.
    """
    if target.reference is None:
        raise ValueError("annealed importance sampling needs a target with a reference to start from")
    check_num_chains(num_chains, world_size())
    if num_systems:
        check_systems(num_chains, num_systems)
    mine = own_chains(num_chains, num_systems)
    num = mine.stop - mine.start
    x = target.space.encode(target.reference.sample(num, generator=generator), target.reference.weights.dtype)
    nothing = torch.zeros(num, dtype=torch.float64, device=x.device)
    return AnnealPoint(0, x, nothing, generator.get_state(), nothing.clone() if num_systems else None)


def check_systems(num_chains: int, num_systems: int) -> None:
    """Raise ValueError where chains are not whole systems, or there are fewer systems than ranks."""
    if num_chains % num_systems or num_chains < LEAST_SIZE * num_systems:
        raise ValueError(
            f"num_chains must be a multiple of the {num_systems} systems, at least {LEAST_SIZE} in each, "
            f"got {num_chains}"
        )
    if num_systems < world_size():
        raise ValueError(f"num_systems must be at least the {world_size()} processes, got {num_systems}")


def ais_result(space: Space, point: AnnealPoint, path: TunedPath | None = None, *, num_systems: int = 0) -> AISResult:
    """The estimate of log Z at the beta of ``point``, from the chains of all ranks; called on every rank."""
    added = None if point.added is None else gather_rows(point.added).cpu()
    found = estimate_of(gather_rows(point.log_weights).cpu(), space.decode(point.x), point.t, num_systems=num_systems)
    return found._replace(path=path, added=added)


def estimate_of(log_weights: Tensor, codes: Tensor, num_temperatures: int, *, num_systems: int = 0) -> AISResult:
    """What the log weights of all chains ``(N,)`` say; see ``AISResult``."""
    log_z, stderr, ess = summarize(units_of(log_weights, num_systems))
    return AISResult(log_z, stderr, ess, log_weights, codes, num_temperatures, num_systems=num_systems)
