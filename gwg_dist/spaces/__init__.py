"""Discrete spaces: the only place that knows how x looks.

The same point has three forms. Models see floats: ``(B, D)`` in {0, 1}, or one-hot ``(B, D, K)``. Data sets
hold *codes*: the smallest integer type that fits, ``(B, D)`` in 0..K-1. Buffers and checkpoints hold *packed*
codes: eight binary sites a byte, one integer a site otherwise.

A *move* changes one site. Moves are numbered: i for flipping site i of a binary point, i * K + k for setting site i
of a categorical point to category k. Sites may have different numbers of categories K_i. Then K is the largest, x is
padded with zeros, and the moves to the padding have the log weight -inf.
"""

from __future__ import annotations

import re

from gwg_dist.spaces.base import MAX_ENUMERABLE_STATES, Change, Space
from gwg_dist.spaces.binary import Binary
from gwg_dist.spaces.categorical import Categorical

__all__ = ["MAX_ENUMERABLE_STATES", "Binary", "Categorical", "Change", "Space", "read_space"]

NUMBERS = r"\((?:\d+, ?)+(?:\d+)?\)"


def read_space(text: str) -> Space:
    """The space whose ``repr`` is ``text``. Raises ValueError where there is none."""
    found = re.fullmatch(rf"(Binary|Categorical)\(({NUMBERS})(?:, num_categories=(\d+|{NUMBERS}))?\)", text)
    if found is None or (found[1] == "Categorical") != (found[3] is not None):
        raise ValueError(f"{text!r} is no space")
    shape = _numbers(found[2])
    if found[3] is None:
        return Binary(shape)
    return Categorical(shape, _numbers(found[3]) if found[3].startswith("(") else int(found[3]))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
