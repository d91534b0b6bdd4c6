"""Any numpy or MATLAB file of small integers, bits or grey levels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits, check_weights
from gwg_dist.data.coding import Coding, code
from gwg_dist.data.files import ARRAYS, MATLAB, check_held_out, read_arrays
from gwg_dist.tools.errors import InputError


class Arrays(DiscreteData):
    """An array (N, ...) of a .npy, .npz or .mat; the trailing axes are the shape of the space.

    Its values are categories 0..K-1. Booleans, two values such as 0 and 255 or -1 and 1, one-hot axes and packed bits
    are recognised, and it is said.

    Args:
        path: the file.
        batch_size: points in an iteration, on all ranks together.
        train: name of the training array; None takes the only array, or else x_train, train or x, in capitals or not,
            or the only one that holds integers and has two axes or more.
        validation: name of the validation array; None cuts ``held_out`` of the training points.
        test: name of the test array; None cuts as many again.
        weights: name of an array (N,) of the file, one non-negative number for each point of the training array;
            points that are cut from it take theirs along. None counts every point once.
        num_categories: K; None takes the largest value found plus one, at least 2. K = 2 is a Binary space.
        held_out: fraction for each split that is cut.
        coding: what the values are: "auto"; "codes" 0..K-1 as they stand; "compact", whose distinct values are numbered
            0..K-1; "onehot" along the last axis; "packed", eight bits a byte.
        binarization: "none", or how grey levels (integers from 0, or numbers in [0, 1]) become binary: "dynamic" (drawn
            anew in every batch), "static" (drawn once), "threshold" (1 from half of the range on).
        levels: divide the range of grey levels into so many categories; None leaves it.
        shape: shape of a point, such as [28,28] where the file holds 784 numbers; None takes the array's.

    Raises:
        InputError: a file or field that cannot be used.
    """

    sources: ClassVar[tuple[str, ...]] = (*ARRAYS, MATLAB)
    paths: ClassVar[tuple[str, ...]] = ("path",)

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
        coding: str = "auto",
        binarization: str = "none",
        levels: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        how = Coding(coding, binarization, levels, num_categories, shape)
        self.path = path
        self.held_out = check_held_out(held_out)
        self.binarization = binarization
        arrays = read_arrays(path, "data.path")
        names = {"train": train or self._main_array(arrays)}
        names |= {part: name for part, name in (("validation", validation), ("test", test)) if name is not None}
        for name in names.values():
            if name not in arrays:
                there = ", ".join(sorted(arrays))
                raise InputError(f"data.path: array {name!r} of {path} does not exist; there are {there}")
        found = {part: arrays[name] for part, name in names.items()}
        self._coded = code(found, how, path=path, names=names)
        self._weights = None if weights is None else self._numbers(arrays, weights, len(found["train"]))
        super().__init__(self._coded.space, batch_size=batch_size)
        self.notes, self.values = list(self._coded.notes), self._coded.values
        self.order, self.grey = self._coded.order, self._coded.grey
        unused = sorted(arrays.keys() - {*names.values(), weights})
        if unused:
            self.notes.append(f"array {names['train']!r} is trained on; not used: {', '.join(unused)}")

    def load(self) -> Splits:
        return self._coded.cut(held_out=self.held_out, binarization=self.binarization, weights=self._weights)

    def _main_array(self, arrays: dict[str, np.ndarray]) -> str:
        if len(arrays) == 1:
            return next(iter(arrays))
        small = {name.lower(): name for name in sorted(arrays)}  # of x and X it is x
        for name in ("x_train", "train", "x"):
            if name in small:
                return small[name]
        likely = [name for name, array in arrays.items() if array.ndim >= 2 and array.dtype.kind in "iub"]
        if len(likely) == 1:
            return likely[0]
        raise InputError(
            f"data.train: name the training array of {self.path}; it has {', '.join(sorted(arrays)) or 'none'}"
        )

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
