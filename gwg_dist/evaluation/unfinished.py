"""An estimate that was stopped, as a file holds it, and how to go on with it.

The same number of ranks, on the same kind of device, goes on bit for bit; any other begins again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.ais import own_chains
from gwg_dist.evaluation.annealing import AnnealPoint
from gwg_dist.evaluation.assess import AIS, AISSettings
from gwg_dist.evaluation.tuned_path import TunedPath, path_of
from gwg_dist.samplers import Sampler
from gwg_dist.samplers.tuners import origin
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import gather_rows, rank, world_size


class Unfinished(NamedTuple):
    """The chains of all ranks at the end of a segment of annealing; tensors on the CPU, safe to load from a file.

    Args:
        num_temperatures: T of the estimate.
        schedule: schedule of beta.
        t: number of temperatures done.
        packed: packed codes of all chains, ``(N, ...)`` in the form of ``Space.pack``.
        log_weights: ``(N,)`` float64 nats.
        generators: state of every rank's generator, ``(ranks, bytes)`` uint8.
        pilot: gradient evaluations a chain of the pilot run that came before; 0 for none.
        values: what it found, see ``TunedPath``; empty where there was none.
        knots: its schedule, see ``TunedPath``; empty where it is a fixed one.
        origin: of the kernel, see ``origin``; None where it is not known.
        estimator: see ``AISSettings``.
        added: see ``AnnealPoint``, of all ranks; None where nothing resamples.
    """

    num_temperatures: int
    schedule: str
    t: int
    packed: Tensor
    log_weights: Tensor
    generators: Tensor
    pilot: int = 0
    values: tuple[float, ...] = ()
    knots: tuple[float, ...] = ()
    origin: dict[str, Any] | None = None
    estimator: str = AIS
    added: Tensor | None = None


def set_aside(
    point: AnnealPoint, space: Space, settings: AISSettings, sampler: Sampler | TunedPath | None = None
) -> Unfinished:
    """What all ranks need to go on from ``point``; called on every rank at the same t.

    Args:
        point: the end of a segment.
        space: space of the chains.
        settings: settings of the estimate.
        sampler: that moves the chains; without it, whoever goes on answers for the same one.

    Raises:
        ValueError: a point inside a segment, which holds no generator's state.
    """
    if point.generator_state is None:
        raise ValueError(f"only the end of a segment can be set aside, got a point inside one, t = {point.t}")
    packed = space.pack(space.decode(point.x))
    state = point.generator_state[None].to(point.x.device)
    packed, log_weights, generators = (gather_rows(part).cpu() for part in (packed, point.log_weights, state))
    added = None if point.added is None else gather_rows(point.added).cpu()
    path = None if sampler is None else path_of(sampler)
    values, knots, found = ((), (), None) if path is None else (path.values, path.knots, origin(path.sampler))
    return Unfinished(
        settings.num_temperatures, settings.schedule, point.t, packed, log_weights, generators, settings.pilot,
        values, knots, found, settings.estimator, added,
    )  # fmt: skip


def take_up(
    unfinished: Unfinished,
    space: Space,
    settings: AISSettings,
    *,
    dtype: torch.dtype,
    generator: torch.Generator,
    kernel: Sampler | None = None,
) -> AnnealPoint | None:
    """This rank's point to go on from; None where the estimate is another or was made on other ranks or devices.

    Args:
        unfinished: what ``set_aside`` returned.
        space: space of the chains.
        settings: settings of the estimate that is wanted now.
        dtype: floating type of x.
        generator: this rank's, on the device of the chains; it is not changed.
        kernel: that the estimate is to go on with, or its pilot run began with; None for the one that it has.
    """
    made_with = (unfinished.num_temperatures, unfinished.schedule, len(unfinished.packed), unfinished.pilot)
    if made_with != (settings.num_temperatures, settings.schedule, settings.num_chains, settings.pilot):
        return None
    if unfinished.estimator != settings.estimator:
        return None
    if kernel is not None and unfinished.origin not in (None, origin(kernel)):
        return None
    if unfinished.generators.shape != (world_size(), len(generator.get_state())):
        return None
    mine = own_chains(settings.num_chains, settings.num_systems)
    codes = space.unpack(unfinished.packed[mine].to(generator.device))
    log_weights = unfinished.log_weights[mine].to(generator.device)
    state = unfinished.generators[rank()].clone()  # set_state reads from the start of the storage
    added = None if unfinished.added is None else unfinished.added[mine].to(generator.device)
    return AnnealPoint(unfinished.t, space.encode(codes, dtype), log_weights, state, added)
