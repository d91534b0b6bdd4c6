"""A data set in a line or two."""

from __future__ import annotations

import math

from torch import Tensor

from gwg_dist.data.base import DiscreteData
from gwg_dist.tools.commands import settings_of

MAX_SITES = 2**29  # of all points, that are looked through


def describe(data: DiscreteData) -> list[str]:
    """Lines for people: points, shape, categories, duplicates, constant sites, and how the values were read."""
    points = [part for part in data.splits if len(part)]
    space = data.space
    shape = "x".join(map(str, space.shape))
    kind = "binary" if space.num_categories == 2 else f"{space.num_categories}-category"
    kind = f"{min(space.sizes)}- to {kind}" if space.is_ragged else kind
    sizes = zip((len(part) for part in data.splits), ("training", "validation", "test"), strict=True)
    line = f"data: {sum(map(len, points)):,} points of {shape} {kind} sites ("
    line += ", ".join(f"{size:,} {name}" for size, name in sizes) + ")"
    if sum(part.numel() for part in points) <= MAX_SITES:
        line += "".join(f"; {text}" for text in (_duplicates(data), _constant(data)) if text)
    if data.batch_size == len(data.splits.train):
        line += "; all training points are in every batch"
    side = math.isqrt(space.num_sites)
    if len(space.shape) == 1 and side >= 8 and side**2 == space.num_sites and "shape" in settings_of(type(data)):
        line += f"; --data.shape=[{side},{side}] gives pictures"
    return [line, *(f"data: {note}" for note in data.notes)]


def _duplicates(data: DiscreteData) -> str:
    """How many points occur before, and how many test points are training points as well."""
    train, validation, test = (_rows(part) for part in data.splits)
    everything = [*train, *validation, *test]
    again = len(everything) - len(set(everything))
    if not again or data.splits.train.is_floating_point():
        return ""
    known = set(train)
    leaked = sum(row in known for row in test)
    return f"duplicates: {again:,}" + (f", {leaked:,} test points are in the training set" if leaked else "")


def _constant(data: DiscreteData) -> str:
    train = data.splits.train
    num = int((train == train[:1]).all(0).sum())
    return f"constant sites: {num:,}" if num else ""


def _rows(points: Tensor) -> list[bytes]:
    return [row.tobytes() for row in points.numpy()]
