"""A folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from gwg_dist.data.base import FOLDER, DiscreteData, Splits
from gwg_dist.data.coding import Coding, code
from gwg_dist.data.files import check_held_out, existing
from gwg_dist.tools.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".pbm", ".ppm")


class Images(DiscreteData):
    """A folder of images of one size, read as grey, in the order of their names; black is 0 and white is 1.

    Images in folders below are taken along; what those are called is no label of anything.

    Args:
        path: the folder.
        batch_size: points in an iteration, on all ranks together.
        binarization: "threshold" (1 where a pixel is at least half bright), "static" (1 with the probability of its
            brightness, drawn once), "dynamic" (drawn anew in every batch).
        levels: divide the brightness into so many categories in place of binary pixels.
        held_out: fraction for each of the two splits that are cut.

    Raises:
        InputError: a folder without images, or an image that cannot be used, which is named.
    """

    sources: ClassVar[tuple[str, ...]] = (FOLDER,)
    paths: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(
        self,
        path: str,
        *,
        batch_size: int = 100,
        binarization: str = "threshold",
        levels: int | None = None,
        held_out: float = 0.1,
    ) -> None:
        how = Coding(binarization="none" if levels else binarization, levels=levels)
        self.held_out = check_held_out(held_out)
        self.binarization = how.binarization
        images, notes = read_images(path, "data.path")
        self._coded = code({"train": images}, how, path=path)
        super().__init__(self._coded.space, batch_size=batch_size)
        self.notes, self.grey = [*notes, *self._coded.notes], self._coded.grey

    def load(self) -> Splits:
        return self._coded.cut(held_out=self.held_out, binarization=self.binarization)


def read_images(path: str | Path, name: str) -> tuple[np.ndarray, list[str]]:
    """The images of a folder ``(N, H, W)``, 0 to 255, and what was found out about them.

    Args:
        path: the folder.
        name: the setting it came from, for messages.

    Raises:
        InputError: no such folder, no images, one that is damaged or of another size.
    """
    folder = existing(path, name, folder=True)
    try:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError as error:
        raise InputError(f"{name}: {folder} cannot be read: {error.strerror}") from error
    if len(files) < 3:
        found = "no images" if not files else f"{len(files)} images"
        raise InputError(f"{name}: {folder} holds {found}, at least three are needed: {', '.join(SUFFIXES[:4])}, ...")
    images = [_read(file, name) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            sizes = [f"{width}x{height}" for height, width in (images[0].shape, image.shape)]
            raise InputError(f"{name}: images must be of one size: {files[0]} is {sizes[0]}, {file} is {sizes[1]}")
    below = {file.parent for file in files} - {folder}
    return np.stack(images), [f"{len(below)} folders below are read as well, as no labels"] if below else []


def _read(file: Path, name: str) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I"):  # 16 bits; a conversion would cut the range off
                return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: {file} is damaged or no image: {error}") from error
