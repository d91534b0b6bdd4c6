"""What the numbers of a file mean: how arrays become points of a space.

What is found out about them is said, one note each. Columns with categories of their own: see categories.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import BINARIZATIONS, Splits, binarize, split_rows
from gwg_dist.data.forms import Grey
from gwg_dist.data.packed import bit_order, unpacked
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.errors import InputError

CODINGS = ("auto", "codes", "compact", "onehot", "packed")
MAX_CATEGORIES = 2**20
MANY = 64  # categories that are more likely grey levels than kinds
KINDS = {"c": "complex numbers", "M": "dates", "m": "times", "S": "text", "U": "text", "O": "objects", "V": "records"}


@dataclass(frozen=True)
class Coding:
    """How values are read.

    Args:
        coding: "auto", or what the values are: "codes" 0..K-1, "compact" any integers whose distinct values become
            0..K-1 in order, "onehot" along the last axis, "packed" bits eight a byte.
        binarization: "none", or how grey levels become binary: "dynamic", "static" or "threshold".
        levels: number of grey levels to divide the range of the values into; None leaves the values.
        num_categories: K; None takes the largest value found plus one.
        shape: shape of a point; None takes the array's.

    Raises:
        ValueError: a setting outside its range, or two that exclude each other.
    """

    coding: str = "auto"
    binarization: str = "none"
    levels: int | None = None
    num_categories: int | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("coding", self.coding, CODINGS),
            ("binarization", self.binarization, ("none", *BINARIZATIONS)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.levels is not None and not 2 <= self.levels <= 256:
            raise ValueError(f"levels must lie in 2 to 256, got {self.levels}")
        if self.is_grey and self.num_categories is not None:
            raise ValueError("num_categories is given by binarization or levels: leave it out")
        if self.levels is not None and self.binarization != "none":
            raise ValueError("levels and binarization exclude each other: give one")
        if self.num_categories is not None and not 2 <= self.num_categories <= MAX_CATEGORIES:
            raise ValueError(f"num_categories must lie in 2 to {MAX_CATEGORIES}, got {self.num_categories}")

    @property
    def is_grey(self) -> bool:
        """Whether values are grey levels rather than names of categories."""
        return self.binarization != "none" or self.levels is not None


class Coded(NamedTuple):
    """Points of a file.

    Args:
        space: where they live.
        parts: codes ``(N, D)`` by the name of the split, or intensities in [0, 1] that are to be binarised.
        notes: what was found out on the way.
        values: what the file holds for the codes 0, 1, ..., in order; None where it holds the codes themselves.
        order: of packed bits, "big" or "little"; None where there are none.
        grey: how grey levels became categories; None where there are none.
    """

    space: Space
    parts: dict[str, Tensor]
    notes: list[str]
    values: list[int] | None = None
    order: str | None = None
    grey: Grey | None = None

    def cut(self, *, held_out: float, binarization: str = "none", weights: Tensor | None = None) -> Splits:
        """Three splits; ``held_out`` of the training points, and as many again, where one is missing."""
        train = self.parts["train"]
        num = max(round(held_out * len(train)), 1)
        sizes = [0 if name in self.parts else num for name in ("validation", "test")]
        cut = split_rows(train, *sizes, weights=weights)
        given = {name: part for name, part in self.parts.items() if name != "train"}
        splits = Splits(
            cut.train,
            given.get("validation", cut.validation),
            given.get("test", cut.test),
            cut.train_weights,
            None if "validation" in given else cut.validation_weights,
            None if "test" in given else cut.test_weights,
        )
        return splits if binarization == "none" else binarize(splits, binarization)


def code(arrays: dict[str, np.ndarray], how: Coding, *, path: str, names: dict[str, str] | None = None) -> Coded:
    """Points out of arrays ``(N, ...)``.

    Args:
        arrays: by the name of the split; "train" is among them.
        how: how values are read.
        path: the file, for messages.
        names: the arrays' own names, for messages.

    Raises:
        InputError: values, or a shape, that cannot be points.
    """
    where = f"data.path: {path}"
    label = {part: f"data.path: array {names[part]!r} of {path}" if names else where for part in arrays}
    notes: list[str] = []
    if all(array.dtype.kind == "b" for array in arrays.values()):
        notes.append("booleans: false is 0, true is 1")
    found = {part: _numbers(array, label[part]) for part, array in arrays.items()}
    if len({array.shape[1:] for array in found.values()}) > 1:
        shapes = ", ".join(str(array.shape) for array in found.values())
        raise InputError(f"{where}: the arrays must agree in all axes but the first, got {shapes}")
    found, categories, order = _decoded(found, how, where, notes)
    found = {part: _shaped(array, how.shape, label[part]) for part, array in found.items()}
    shape = found["train"].shape[1:]
    if how.is_grey:
        return _grey(found, how, shape, label, notes)
    for part, array in found.items():
        if array.dtype.kind == "f":
            raise InputError(f"{label[part]}: {_not_integers(array)}")
    values = np.unique(np.concatenate([_distinct(array) for array in found.values()]))
    original: list[int] | None = None
    if how.coding == "compact" or _are_two_levels(values, how, categories):
        notes.append(f"{_listed(values)} are read as {_listed(range(len(values)))}")
        found = {part: np.searchsorted(values, array) for part, array in found.items()}
        original, values = values.tolist(), np.arange(len(values))
    categories = how.num_categories or categories
    _check_range(values, categories, found, label, path)
    if categories is None:
        categories = max(int(values[-1]) + 1, 2)
        notes += _questions(values, categories, next(iter(arrays.values())).dtype)
    space = Binary(shape) if categories == 2 else Categorical(shape, categories)
    parts = {
        part: torch.from_numpy(np.ascontiguousarray(array.astype(_numpy_dtype(space)))).flatten(1)
        for part, array in found.items()
    }
    if original is not None:  # categories that do not occur go on behind
        original += range(original[-1] + 1, original[-1] + 1 + categories - len(original))
    return Coded(space, parts, notes, None if original == list(range(categories)) else original, order)


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    """An array of whole numbers as integers, one of other numbers as floats. Raises InputError for anything else."""
    if array.dtype.kind in KINDS:
        raise InputError(f"{where} must hold integers 0..K-1, got {KINDS[array.dtype.kind]} ({array.dtype})")
    if array.ndim < 2 or len(array) < 3 or not array.size:
        raise InputError(f"{where} must have shape (N, sites) with at least three points, got {array.shape}")
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            point = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise InputError(f"{where} must hold integers 0..K-1, got {array[point]} at {list(point)}")
        if (array == np.round(array)).all() and float(np.abs(array).max()) < 2**53:
            return array.astype(np.int64)
        return array.astype(np.float64)
    return array


def _decoded(
    found: dict[str, np.ndarray], how: Coding, where: str, notes: list[str]
) -> tuple[dict[str, np.ndarray], int | None, str | None]:
    """One-hot axes and packed bits undone; K where the file tells it, and the order of packed bits."""
    guess = how.coding == "auto" and how.num_categories is None and not how.is_grey
    if how.coding == "onehot" or guess:
        if all(_is_one_hot(array) for array in found.values()):
            categories = found["train"].shape[-1]
            notes.append(f"one-hot along the last axis: {categories} categories (--data.coding=codes leaves them bits)")
            return {part: array.argmax(-1) for part, array in found.items()}, categories, None
        if how.coding == "onehot":
            raise InputError(f"{where}: data.coding=onehot needs 0 and 1 with a single 1 along the last axis")
    if how.coding == "packed" or guess:
        order = bit_order(list(found.values()), asked=how.coding == "packed")
        if order is not None:
            bits = {part: unpacked(array, order, how.shape) for part, array in found.items()}
            before, after = (_times(arrays["train"].shape[1:]) for arrays in (found, bits))
            off = "" if how.coding == "packed" else " (--data.coding=codes leaves them bytes)"
            notes.append(f"bytes of packed bits: {before} bytes are {after} bits{off}{_fill(bits['train'])}")
            return bits, 2, order
        if how.coding == "packed":
            raise InputError(f"{where}: data.coding=packed needs bytes (uint8), got {found['train'].dtype}")
    return found, None, None


def _fill(bits: np.ndarray) -> str:
    """What to type where rows seem to end with bits that only fill a byte."""
    blank = next((n for n in range(7, 0, -1) if bits.ndim > 2 and not bits[..., -n:].any()), 0)
    if not blank:
        return ""
    *outer, width = bits.shape[1:]
    shape = ",".join(map(str, (*outer, width - blank)))
    return f"; --data.shape=[{shape}] leaves out the last {blank} of a row, which are always 0"


def _is_one_hot(array: np.ndarray) -> bool:
    """Whether a last axis holds 0 and a single 1. Images of which each row has one pixel set would pass as well."""
    if array.ndim < 3 or array.shape[-1] < 2 or array.dtype.kind == "f":
        return False
    if array.min() != 0 or array.max() != 1:
        return False
    return bool((array.sum(-1, dtype=np.int64) == 1).all())


def _shaped(array: np.ndarray, shape: tuple[int, ...] | None, where: str) -> np.ndarray:
    if shape is None:
        return array
    if any(size < 1 for size in shape) or int(np.prod(shape)) != array[0].size:
        raise InputError(f"{where}: a point has {array[0].size} sites, data.shape {list(shape)} does not hold them")
    return array.reshape(len(array), *shape)


def _grey(
    found: dict[str, np.ndarray], how: Coding, shape: tuple[int, ...], label: dict[str, str], notes: list[str]
) -> Coded:
    """Grey levels from 0 (black) to the top of their range, binarised or in fewer levels."""
    for part, array in found.items():
        if array.min() < 0 or (array.dtype.kind == "f" and array.max() > 1):
            ends = f"{array.min():g} to {array.max():g}"
            raise InputError(f"{label[part]}: grey levels are integers from 0 or numbers in [0, 1], got {ends}")
    whole = all(array.dtype.kind != "f" for array in found.values())
    top = max(int(array.max()) for array in found.values()) if whole else 1
    top = 255 if 128 <= top <= 255 else max(top, 1)
    if how.levels is not None:
        notes.append(f"{how.levels} levels of grey out of 0 to {top}")
        scale = how.levels / (top + 1 if whole else top)
        levels = {part: np.minimum(array * scale, how.levels - 1).astype(np.uint8) for part, array in found.items()}
        space = Binary(shape) if how.levels == 2 else Categorical(shape, how.levels)
        parts = {part: torch.from_numpy(array).flatten(1) for part, array in levels.items()}
        return Coded(space, parts, notes, grey=Grey(top, how.levels))
    notes.append(f"grey levels 0 to {top} are made binary: {how.binarization}")
    grey = {part: torch.from_numpy((array / top).astype(np.float32)).flatten(1) for part, array in found.items()}
    return Coded(Binary(shape), grey, notes, grey=Grey(top, 2, how.binarization))


def _not_integers(array: np.ndarray) -> str:
    example = array[array != np.round(array)].flat[0] if (array != np.round(array)).any() else array.max()
    if array.min() >= 0 and array.max() <= 1:
        return (
            f"numbers in [0, 1] such as {example:.3g} are grey levels: choose --data.binarization=dynamic (drawn anew "
            "in every batch), static, threshold, or --data.levels=16"
        )
    return f"must hold integers 0..K-1, got numbers such as {example:.3g}: divide their range into categories first"


def _distinct(array: np.ndarray) -> np.ndarray:
    """The values that occur, in order."""
    low, high = int(array.min()), int(array.max())
    if high - low < MAX_CATEGORIES and array.size > high - low:
        shifted = array.ravel() if low == 0 else array.ravel().astype(np.int64) - low
        return np.flatnonzero(np.bincount(shifted)) + low
    return np.unique(array)


def _are_two_levels(values: np.ndarray, how: Coding, categories: int | None) -> bool:
    """Whether two values such as 0 and 255, or -1 and 1, stand for 0 and 1."""
    if how.coding != "auto" or how.num_categories is not None or categories is not None:
        return False
    return len(values) == 2 and values.tolist() != [0, 1]


def _check_range(
    values: np.ndarray, categories: int | None, found: dict[str, np.ndarray], label: dict[str, str], path: str
) -> None:
    smallest, largest = int(values[0]), int(values[-1])
    compact = "; --data.coding=compact numbers the values that occur 0, 1, 2, ..."
    if len(values) > MAX_CATEGORIES or largest >= MAX_CATEGORIES:
        part = next(part for part, array in found.items() if int(array.max()) == largest)
        hint = compact if len(values) <= 2**8 else ""
        raise InputError(
            f"{label[part]} must hold integers below {MAX_CATEGORIES}, got a largest value of {largest}{hint}"
        )
    if smallest < 0:
        part = next(part for part, array in found.items() if int(array.min()) == smallest)
        raise InputError(f"{label[part]} must hold integers 0..K-1, got a smallest value of {smallest}{compact}")
    if categories is not None and largest >= categories:
        raise InputError(f"data.num_categories is {categories}, but {path} holds a value of {largest}")


def _questions(values: np.ndarray, categories: int, dtype: np.dtype) -> list[str]:
    """What is odd about the values that occur, and the setting that would change it."""
    used, unused = len(values), categories - len(values)
    if used == 1:
        return [f"every value is {values[0]}: there is nothing to learn"]
    if unused > categories / 2:
        packed = ", --data.coding=packed takes bytes for eight bits each" if dtype == np.uint8 and used >= MANY else ""
        return [
            f"only {used} of {categories} categories occur ({_listed(values)}): --data.coding=compact numbers them "
            f"0 to {used - 1}{packed}"
        ]
    if categories >= MANY:
        return [
            f"{categories} categories: for grey levels, --data.binarization=dynamic makes them binary and "
            "--data.levels=16 fewer"
        ]
    if unused and categories > 2:
        missing = np.setdiff1d(np.arange(categories), values)
        return [f"{_listed(missing)} of 0 to {categories - 1} never occur; --data.coding=compact leaves gaps out"]
    return []


def _listed(values: Sequence[int] | np.ndarray) -> str:
    if len(values) > 6:
        return f"{values[0]}, {values[1]}, ... {values[-1]}"
    *first, last = (str(value) for value in values)
    return f"{', '.join(first)} and {last}" if first else last


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numpy_dtype(space: Space) -> np.dtype:
    return torch.empty(0, dtype=space.code_dtype).numpy().dtype
