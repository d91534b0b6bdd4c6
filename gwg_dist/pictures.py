"""Samples as one grey picture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from gwg_dist.spaces import Space
from gwg_dist.tools.files import replacing

MIN_PICTURE_SIZE = 480
PAPER, GAP = 255, 170


def save_grid(codes: Tensor, space: Space, path: str | Path) -> bool:
    """Write the points ``(N, D)`` as a grid, category 0 white and K - 1 black; whether the space is an image at all.

    Images are (H, W); the first of several channels is shown. Points on a line are drawn one row each. The file appears
    whole or not at all.
    """
    if len(space.shape) > 3 or not len(codes):
        return False
    images = codes.cpu().reshape(len(codes), *space.shape).numpy()
    if images.ndim == 2:
        images = images.reshape(1, *images.shape)
    elif images.ndim == 4:
        images = images[:, 0]
    num, height, width = images.shape
    columns = math.ceil(math.sqrt(num * height / width)) if num > 1 else 1
    rows = math.ceil(num / columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), GAP, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = PAPER - image.astype(np.int64) * PAPER // (
            space.num_categories - 1
        )
    scale = max(1, math.ceil(MIN_PICTURE_SIZE / max(grid.shape)))
    with replacing(path) as beside:
        Image.fromarray(grid.repeat(scale, 0).repeat(scale, 1)).save(beside, format="PNG")
    return True
