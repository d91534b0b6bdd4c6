"""The 1,797 handwritten digits of 8x8 pixels and 17 grey levels in scikit-learn (Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits, binarize, check_binarization, split_rows
from gwg_dist.data.forms import Grey
from gwg_dist.data.image_files import are_images
from gwg_dist.data.points import read_points
from gwg_dist.spaces import Binary, Categorical

NUM_LEVELS, NUM_PIXELS, NUM_LABELS = 17, 64, 10
NUM_VALIDATION, NUM_TEST = 180, 360


class Digits(DiscreteData):
    """Handwritten digits, no download: 1,257 training, 180 validation and 360 test images of 8x8.

    Args:
        batch_size: images in an iteration, on all ranks together.
        binarization: "dynamic", "static", "threshold" (1 where the level is 8 or more), or "none" for the 17 levels as
            categories.
        labels: whether the digit that an image shows is one more site, the last one, of 10 categories.

    Raises:
        ValueError: another binarization; labels with a dynamic one.
    """

    def __init__(self, *, batch_size: int = 100, binarization: str = "threshold", labels: bool = False) -> None:
        check_binarization(binarization, "none")
        if labels and binarization == "dynamic":
            raise ValueError("labels need images that are drawn once: binarization must not be dynamic")
        levels = NUM_LEVELS if binarization == "none" else 2
        space = Binary((8, 8)) if levels == 2 else Categorical((8, 8), levels)
        if labels:
            space = Categorical(NUM_PIXELS + 1, (levels,) * NUM_PIXELS + (NUM_LABELS,))
        super().__init__(space, batch_size=batch_size)
        self.binarization = binarization
        self.labels = labels
        self.label_site = space.num_sites - 1 if labels else None
        self.grey = None if labels or levels > 2 else Grey(NUM_LEVELS - 1, 2, binarization)

    def load(self) -> Splits:
        images, digits = read_digits()
        levels = split_rows(torch.from_numpy(images), NUM_VALIDATION, NUM_TEST)
        if self.binarization == "none":
            splits = Splits(*(part.to(torch.uint8) for part in levels))
        else:
            splits = binarize(Splits(*(part / (NUM_LEVELS - 1) for part in levels)), self.binarization)
        if not self.labels:
            return splits
        shown = split_rows(torch.from_numpy(digits).to(torch.uint8)[:, None], NUM_VALIDATION, NUM_TEST)
        return Splits(*(torch.cat(both, 1) for both in zip(splits, shown, strict=True)))

    def encode_file(self, path: str | Path, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
        """Images without a label, where labels are sites, have the label missing."""
        if not self.labels or missing_as is None or not are_images(Path(path).expanduser()):
            return super().encode_file(path, missing_as=missing_as)
        grey = Grey(NUM_LEVELS - 1, self.space.sizes[0], self.binarization)
        pixels, names = read_points(path, Categorical((8, 8), self.space.sizes[0]), grey=grey)
        return torch.cat([pixels, torch.full((len(pixels), 1), missing_as)], 1), names

    def site_names(self) -> list[str]:
        """Numbers of the pixels from 1; "label" for the digit."""
        names = super().site_names()
        return [*names[:-1], "label"] if self.labels else names


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Levels 0 to 16, ``(1797, 64)`` float64, and the digits that the images show, ``(1797,)`` int64.

    From scikit-learn's file, where it lies: importing scikit-learn takes a fifth of a verb's time to begin.
    """
    found = find_spec("sklearn")
    path = Path(found.origin).parent / "datasets/data/digits.csv.gz" if found and found.origin else Path()
    if not path.is_file():
        from sklearn.datasets import load_digits

        loaded: Any = load_digits(return_X_y=True)
        return loaded
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.int64)
