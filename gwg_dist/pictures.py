"""Samples as one grey picture; images with holes, filled in; a matrix of sites and categories in colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
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
    num, height, width = _images(codes, space).shape
    write_grid(_grey(_images(codes, space), space), path, columns=math.ceil(math.sqrt(num * height / width)))
    return True


def save_filled(given: Tensor, filled: Tensor, original: Tensor, space: Space, path: str | Path) -> None:
    """Write triples of images: what was given, with holes in the middle grey of ``GAP``, completed, and the original.

    Args:
        given: ``(N, D)`` codes, -1 where a site is missing.
        filled: ``(N, D)`` codes.
        original: ``(N, D)`` codes; -1 where nobody knows.
        space: of images, (H, W) or (channels, H, W), of which the first channel is shown.
        path: the .png.
    """
    triples = torch.stack([given, filled, original], 1).flatten(0, 1)
    images = _images(triples, space)
    grey = np.where(images < 0, GAP, _grey(images, space)).astype(np.uint8)
    write_grid(grey, path, columns=3 * math.ceil(math.sqrt(len(given) / 3)))


def _images(codes: Tensor, space: Space) -> np.ndarray:
    """The first channel of each point, ``(N, H, W)``; points on a line as the rows of one image."""
    images = codes.cpu().reshape(len(codes), *space.shape).numpy()
    if images.ndim == 2:
        return images.reshape(1, *images.shape)
    return images[:, 0] if images.ndim == 4 else images


def _grey(images: np.ndarray, space: Space) -> np.ndarray:
    """Category 0 white and K - 1 black."""
    return (PAPER - images.astype(np.int64) * PAPER // (space.num_categories - 1)).astype(np.uint8)


def write_grid(images: np.ndarray, path: str | Path, *, columns: int) -> None:
    """Write grey images ``(N, H, W)`` uint8 in rows of ``columns``, enlarged to a few hundred pixels."""
    num, height, width = images.shape
    columns = columns if num > 1 else 1
    rows = math.ceil(num / columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), GAP, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    scale = max(1, math.ceil(MIN_PICTURE_SIZE / max(grid.shape)))
    with replacing(path) as beside:
        Image.fromarray(grid.repeat(scale, 0).repeat(scale, 1)).save(beside, format="PNG")


def save_matrix(
    values: Tensor,
    path: str | Path,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    marked: Tensor | None = None,
) -> bool:
    """Write ``(D, K)`` numbers as a heat map, sites from left to right; whether matplotlib is there to draw it.

    Colours are red below 0 and blue above, up to the largest magnitude but for one number in fifty.

    Args:
        values: ``(D, K)``; -inf stays white.
        path: the .png.
        rows: names of the D sites.
        columns: names of the K categories.
        title: a line above.
        marked: a category of each site to mark by a dot, ``(D,)``.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    num, size = values.shape
    shown = values.cpu().double().T.numpy()
    magnitude = np.abs(shown[np.isfinite(shown)])
    limit = float(np.quantile(magnitude, 0.98)) if magnitude.size else 1.0
    figure = Figure(figsize=(min(max(num * 0.12, 4), 60), min(max(size * 0.16, 1.5), 20) + 1), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(
        shown, aspect="auto", cmap="RdBu", vmin=-(limit or 1), vmax=limit or 1, interpolation="nearest"
    )
    if marked is not None:
        panel.plot(range(num), marked.cpu().tolist(), ".", color="black", markersize=3)
    every = max(num // 40, 1)
    panel.set_xticks(range(0, num, every), list(rows)[::every], fontsize=6, rotation=90)
    if size <= 64:
        panel.set_yticks(range(size), list(columns), fontsize=6)
    panel.set_title(title, fontsize=8)
    figure.colorbar(image, ax=panel, label="nats", pad=0.01)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=130, format="png")
    return True
