"""Any numpy file of integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits, check_weights, split_rows
from gwg_dist.data.files import read_arrays
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.errors import InputError

MAX_CATEGORIES = 2**20


class Arrays(DiscreteData):
    """Integers 0..K-1 of shape (N, ...) from a .npy or .npz; the trailing axes are the shape of the space.

    Args:
        path: the file.
        batch_size: points in an iteration, on all ranks together.
        train: name of the training array; None takes the only array, or else x_train, train or x.
        validation: name of the validation array; None cuts ``held_out`` of the training points.
        test: name of the test array; None cuts as many again.
        weights: name of an array (N,) of the file, one non-negative number for each point of the training array;
            points that are cut from it take theirs along. None counts every point once.
        num_categories: K; None takes the largest value found plus one, at least 2. K = 2 is a Binary space.
        held_out: fraction for each split that is cut.

    Raises:
        InputError: a file or field that cannot be used.
    """

    def __init__(
        self,
        path: str,
        *,
        batch_size: int = 100,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        weights: str | None = None,
        num_categories: int | None = None,
        held_out: float = 0.1,
    ) -> None:
        if not 0 < held_out < 0.5:
            raise ValueError(f"held_out must lie in (0, 0.5), got {held_out}")
        self.path = path
        arrays = read_arrays(path, "data.path")
        names = (train or self._main_array(arrays), validation, test)
        parts = [None if name is None else self._integers(arrays, name) for name in names]
        found = [part for part in parts if part is not None]
        shape = found[0].shape[1:] or (1,)
        if any(part.shape[1:] != found[0].shape[1:] for part in found):
            shapes = ", ".join(str(part.shape) for part in found)
            raise InputError(f"data.path: the arrays of {path} must agree in all axes but the first, got {shapes}")
        self._weights = None if weights is None else self._numbers(arrays, weights, len(found[0]))
        largest = max(int(part.max()) for part in found)
        space = self._space(shape, largest, num_categories)
        super().__init__(space, batch_size=batch_size)
        self.held_out = held_out
        codes = [
            None if part is None else torch.from_numpy(np.ascontiguousarray(part)).flatten(1).to(space.code_dtype)
            for part in (p if p is None else p.reshape(len(p), -1) for p in parts)
        ]
        self._parts: tuple[Tensor | None, ...] = tuple(codes)

    def load(self) -> Splits:
        train, validation, test = self._parts
        assert train is not None
        num = max(round(self.held_out * len(train)), 1)
        cut = split_rows(train, num if validation is None else 0, num if test is None else 0, weights=self._weights)
        if validation is not None:
            cut = replace(cut, validation=validation, validation_weights=None)
        return cut if test is None else replace(cut, test=test, test_weights=None)

    def _main_array(self, arrays: dict[str, np.ndarray]) -> str:
        if len(arrays) == 1:
            return next(iter(arrays))
        for name in ("x_train", "train", "x"):
            if name in arrays:
                return name
        raise InputError(
            f"data.train: name the training array of {self.path}; it has {', '.join(sorted(arrays)) or 'none'}"
        )

    def _integers(self, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
        where = f"data.path: array {name!r} of {self.path}"
        if name not in arrays:
            raise InputError(f"{where} does not exist; there are {', '.join(sorted(arrays))}")
        array = arrays[name]
        if array.ndim < 2 or len(array) < 3 or not array.size:
            raise InputError(f"{where} must have shape (N, sites) with at least three points, got {array.shape}")
        if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.round(array)).all():
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise InputError(f"{where} must hold integers 0..K-1, got {array.dtype} with other values")
        if array.min() < 0:
            raise InputError(f"{where} must hold integers 0..K-1, got a smallest value of {array.min()}")
        if array.max() >= MAX_CATEGORIES:
            raise InputError(f"{where} must hold integers below {MAX_CATEGORIES}, got a largest value of {array.max()}")
        return array.astype(np.int64)

    def _numbers(self, arrays: dict[str, np.ndarray], name: str, num: int) -> Tensor:
        if name not in arrays:
            raise InputError(
                f"data.weights: {self.path} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}"
            )
        if arrays[name].dtype.kind not in "iufb":
            raise InputError(f"data.weights: array {name!r} of {self.path} must hold numbers, got {arrays[name].dtype}")
        weights = torch.from_numpy(arrays[name].astype(np.float64))
        try:
            check_weights(weights, num, f"array {name!r} of {self.path}")
        except ValueError as error:
            raise InputError(f"data.weights: {error}") from error
        return weights

    def _space(self, shape: tuple[int, ...], largest: int, num_categories: int | None) -> Space:
        categories = max(largest + 1, 2) if num_categories is None else num_categories
        if largest >= categories:
            raise InputError(f"data.num_categories is {categories}, but {self.path} holds a value of {largest}")
        return Binary(shape) if categories == 2 else Categorical(shape, categories)
