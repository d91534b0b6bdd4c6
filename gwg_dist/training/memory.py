"""What a run will take of the memory, before it is taken."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace

from gwg_dist.energies import Energy
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.memory import free_memory, in_words, is_out_of_memory

WEIGHT_COPIES = 5  # the weights, their gradient, two moments of Adam, their average
POINT_COPIES = 8  # points as floats, gradients, proposals and what chains keep of them, and the energy's first layer
FLOAT = 4


class Need(NamedTuple):
    """A part of what a run takes.

    Args:
        what: what takes it.
        num_bytes: how much.
        setting: what would make it smaller.
    """

    what: str
    num_bytes: int
    setting: str

    def __str__(self) -> str:
        return f"{self.what} {in_words(self.num_bytes)}"


def needs(objects: Namespace) -> list[Need]:
    """What the objects of a run will take beside the data, the largest first; an estimate from below."""
    space, chains = objects.model.space, objects.model.chains
    point = space.num_sites * space.width * FLOAT
    num = objects.evaluation.settings.num_chains
    held_out = max(len(objects.data.splits.validation), len(objects.data.splits.test))
    found = [
        weights_of(objects.model.energy),
        Need("chains", 2 * chains.num_bytes(space), "model.chains.size"),
        Need("an iteration", POINT_COPIES * objects.data.batch_size * point, "data.batch_size"),
        Need("an evaluation", POINT_COPIES * num * point, "evaluation.num_chains"),
        Need("points held out", 2 * held_out * point, "data.held_out"),
    ]
    return sorted((need for need in found if need.num_bytes), key=lambda need: -need.num_bytes)


def weights_of(energy: Energy) -> Need:
    """What the weights of an energy take, with their gradient, the optimizer's state and their average."""
    num = sum(parameter.numel() * parameter.element_size() for parameter in energy.parameters())
    kept = sum(buffer.numel() * buffer.element_size() for buffer in energy.buffers())
    return Need("weights", WEIGHT_COPIES * num + kept, "model.energy, a smaller one")


def check_fits(found: list[Need]) -> None:
    """Raise InputError, naming the largest part and its setting, where there is not that much memory."""
    free = free_memory()
    total = sum(need.num_bytes for need in found)
    if free is None or total <= free:
        return
    largest = max(found, key=lambda need: need.num_bytes)
    parts = ", ".join(map(str, found))
    raise InputError(
        f"{largest.setting}: the run needs about {in_words(total)} of memory ({parts}) and {in_words(free)} are free"
    )


def summary(found: list[Need]) -> str:
    """A line for people."""
    total = in_words(sum(need.num_bytes for need in found))
    return f"memory: about {total} beside the data ({', '.join(map(str, found))})"


def build_energy(cls: type[Energy], *args: Any, **kwargs: Any) -> Energy:
    """An energy whose weights fit into memory: its size is known before it is made.

    Raises:
        InputError: they do not fit.
    """
    weights = _planned(cls, *args, **kwargs)
    if weights is not None:
        check_fits([weights])
    try:
        return cls(*args, **kwargs)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"model.energy: {cls.__name__} does not fit into memory: make it smaller") from error


def _planned(cls: type[Energy], *args: Any, **kwargs: Any) -> Need | None:
    """What an energy's weights would take; None where that cannot be told without making it."""
    logger = logging.getLogger("gwg_dist")
    silent, logger.disabled = logger.disabled, True  # it says what it has to say when it is made
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return weights_of(cls(*args, **kwargs))
    except (RuntimeError, TypeError, ValueError):  # what is wrong with it is told when it is made
        return None
    finally:
        logger.disabled = silent
