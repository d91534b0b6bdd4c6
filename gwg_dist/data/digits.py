"""The 1,797 handwritten digits of 8x8 pixels and 17 grey levels in scikit-learn (Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from gwg_dist.data.base import DiscreteData, Splits, binarize, check_binarization, split_rows
from gwg_dist.spaces import Binary, Categorical

NUM_LEVELS = 17
NUM_VALIDATION, NUM_TEST = 180, 360


class Digits(DiscreteData):
    """Handwritten digits, no download: 1,257 training, 180 validation and 360 test images of 8x8.

    Args:
        batch_size: images in an iteration, on all ranks together.
        binarization: "dynamic", "static", "threshold" (1 where the level is 8 or more), or "none" for the 17 levels as
            categories.
    """

    def __init__(self, *, batch_size: int = 100, binarization: str = "threshold") -> None:
        check_binarization(binarization, "none")
        space = Categorical((8, 8), NUM_LEVELS) if binarization == "none" else Binary((8, 8))
        super().__init__(space, batch_size=batch_size)
        self.binarization = binarization

    def load(self) -> Splits:
        images, _ = load_digits(return_X_y=True)
        levels = split_rows(torch.from_numpy(images), NUM_VALIDATION, NUM_TEST)
        if self.binarization == "none":
            return Splits(*(part.to(torch.uint8) for part in levels))
        return binarize(Splits(*(part / (NUM_LEVELS - 1) for part in levels)), self.binarization)
