"""Forms in which a file of questions may hold points beside codes: one-hot, packed bits, grey levels.

They are told by the shape of the array, and by what the run's own file was. What was recognised is said.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
import torch

from gwg_dist.data.packed import bit_order, unpacked
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import fixed_generator
from gwg_dist.tools.terminal import say

WHITE = 255
SITES, ONE_HOT, PACKED = "sites", "onehot", "packed"


class Grey(NamedTuple):
    """How grey levels become categories.

    Args:
        top: the level of white; 1 where the run's file has numbers in [0, 1].
        levels: number of categories, K.
        binarization: of K = 2: "threshold" is 1 from half of the range on; "static" and "dynamic" draw a pixel by its
            brightness, here once.
    """

    top: int
    levels: int
    binarization: str = "threshold"

    def codes(self, numbers: np.ndarray) -> np.ndarray:
        """Codes of grey levels ``(N, D)``, integers from 0 to ``top`` or numbers in [0, 1]. NaN stays."""
        white = self.white(numbers)
        if self.levels > 2:
            steps = white + 1 if _are_whole(numbers) else white
            return np.minimum(np.floor(numbers * (self.levels / steps)), self.levels - 1)
        edges = np.full(numbers.shape, 0.5)
        if self.binarization != "threshold":
            edges = torch.rand(numbers.shape, generator=fixed_generator("binarize question")).numpy()
            edges = np.maximum(edges, np.finfo(np.float32).tiny)  # black is never 1
        return np.where(np.isnan(numbers), np.nan, numbers / white >= edges)

    def white(self, numbers: np.ndarray) -> int:
        """The number that is white."""
        if not _are_whole(numbers):
            return 1
        return self.top if self.top > 1 else WHITE

    def told(self, numbers: np.ndarray) -> str:
        """What is said about a file."""
        white = self.white(numbers)
        if self.levels > 2:
            return f"{self.levels} levels of grey out of 0 to {white}"
        return f"grey levels 0 to {white} are made binary: {self.binarization}"


def kind_of(array: np.ndarray, space: Space) -> str | None:
    """What an array ``(N, ...)`` may hold by its shape: "sites", "onehot" or "packed"; None for no points."""
    if array.ndim < 2 or not len(array):
        return SITES if array.ndim > 1 and prod(array.shape[1:]) == space.num_sites else None
    numbers = prod(array.shape[1:])
    if numbers == space.num_sites:
        return SITES
    if array.ndim > 2 and array.shape[-1] == space.num_categories and numbers == space.num_sites * array.shape[-1]:
        return ONE_HOT
    *outer, width = space.shape
    bytes_of = {prod(outer) * -(-width // 8), -(-space.num_sites // 8)}
    return PACKED if space.num_categories == 2 and array.dtype == np.uint8 and numbers in bytes_of else None


def numbers_of(array: np.ndarray, space: Space, where: str, *, order: str | None = None) -> np.ndarray:
    """The numbers ``(N, D)`` of an array of one of the three kinds; NaN for a site that is missing in a one-hot one.

    Args:
        array: ``(N, ...)``; ``kind_of`` says that it holds points.
        space: where they live.
        where: what they came from, for messages.
        order: of packed bits, "big" or "little"; None looks at the bytes.

    Raises:
        InputError: a site with several ones, or with numbers other than 0 and 1.
    """
    kind = kind_of(array, space)
    if kind == SITES:
        return array.reshape(len(array), space.num_sites)
    shape = "x".join(map(str, array.shape[1:]))
    if kind == PACKED:
        found = _bits(array, space, order or bit_order([array], asked=True) or "big")
        say(f"{where}: bytes of packed bits: {shape} bytes are {'x'.join(map(str, space.shape))} bits")
        return found
    found = _categories(array.reshape(len(array), space.num_sites, array.shape[-1]), where)
    say(f"{where}: one-hot along the last axis: {array.shape[-1]} categories")
    return found


def of_grey(numbers: np.ndarray, grey: Grey | None, where: str) -> np.ndarray:
    """Codes of grey levels; the numbers themselves where a run knows no grey, or where all of them are codes."""
    there = numbers[~np.isnan(numbers)] if numbers.dtype.kind == "f" else numbers
    if grey is None or not there.size or (_are_whole(there) and there.max() < grey.levels):
        return numbers
    numbers = np.where(numbers == -1, np.nan, numbers)
    there = numbers[~np.isnan(numbers)]
    low, high, white = there.min(), there.max(), grey.white(there)
    if low < 0 or high > white:
        raise InputError(f"{where}: grey levels go from 0 to {white}, as those of the run, got {low:g} to {high:g}")
    say(f"{where}: {grey.told(there)}")
    return grey.codes(numbers)


def _are_whole(numbers: np.ndarray) -> bool:
    there = numbers[~np.isnan(numbers)] if numbers.dtype.kind == "f" else numbers
    return bool((there == np.round(there)).all())


def _bits(array: np.ndarray, space: Space, order: str) -> np.ndarray:
    """Bits ``(N, D)`` of bytes, packed in rows of the last axis, or all sites of a point in a row."""
    *outer, width = space.shape
    rows, width = (prod(outer), width) if array[0].size != -(-space.num_sites // 8) else (1, space.num_sites)
    bits = unpacked(array.reshape(len(array), rows, -1), order)
    return np.ascontiguousarray(bits[..., :width]).reshape(len(array), space.num_sites)


def _categories(array: np.ndarray, where: str) -> np.ndarray:
    """Categories ``(N, D)`` of one-hot sites ``(N, D, K)``; NaN where a site has no one, or nothing but -1 or NaN."""
    missing = ((array == -1) | (array != array) | (array == 0)).all(-1)
    good = missing | (((array == 0) | (array == 1)).all(-1) & ((array == 1).sum(-1) == 1))
    if not good.all():
        n, site = (int(i) for i in np.argwhere(~good)[0])
        raise InputError(f"{where}: point {n + 1}, site {site + 1} is not one-hot: expected one 1 and zeros")
    return np.where(missing, np.nan, array.argmax(-1))
