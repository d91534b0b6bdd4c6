"""Image files: a folder of them, or one, as grey levels; and the same as points of a run."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from gwg_dist.data.files import existing
from gwg_dist.data.forms import WHITE, Grey
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".pbm", ".ppm")
FEW = 3  # images that are trained on at least


def are_images(path: Path) -> bool:
    """Whether a question's points are images: a folder, or a file of one."""
    return path.is_dir() or path.suffix.lower() in SUFFIXES


def read_images(path: str | Path, name: str) -> tuple[np.ndarray, list[str]]:
    """The images of a folder ``(N, H, W)``, 0 to 255, and what was found out about them.

    Args:
        path: the folder.
        name: the setting it came from, for messages.

    Raises:
        InputError: no such folder, fewer than three images, one that is damaged or of another size.
    """
    folder = existing(path, name, folder=True)
    files = _found(folder, name, at_least=FEW)
    images = [_read(file, name) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{name}: images must be of one size: {files[0]} is {_size(images[0].shape)}, {file} is "
                             f"{_size(image.shape)}")  # fmt: skip
    below = {file.parent for file in files} - {folder}
    return np.stack(images), [f"{len(below)} folders below are read as well, as no labels"] if below else []


def image_points(
    path: Path, space: Space, *, grey: Grey | None = None, name: str = "file"
) -> tuple[np.ndarray, list[str], bool]:
    """The images of a folder, or one image, as numbers ``(N, D)``, their names in it, and whether they are codes.

    Grey levels become what those of the run's own file became. Of a binary run that had none, a pixel is 1 from half
    of the range on. Of any other run they stay grey levels.

    Args:
        path: a folder or a file.
        space: where the points live.
        grey: how grey levels of the run's own file became categories; None where it had none.
        name: the setting it came from, for messages.

    Raises:
        InputError: no images, one that is damaged, or of another size than the run's.
    """
    files = _found(path, name, at_least=1) if path.is_dir() else [existing(path, name)]
    images = [_read(file, name) for file in files]
    shape = space.shape if len(space.shape) == 2 else None
    for file, image in zip(files, images, strict=True):
        if image.shape != (shape or image.shape) or image.size != space.num_sites:
            expected = f"images of {_size(shape)} pixels" if shape else f"points of {space.num_sites} sites"
            raise InputError(f"{name}: {file} is an image of {_size(image.shape)} pixels, the run has {expected}")
    levels = np.stack(images).reshape(len(images), prod(images[0].shape)).astype(np.int64)
    names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in files]
    found = (
        f"{path}: {len(files)} image{'s' if len(files) > 1 else ''} of {_size(images[0].shape)} pixels, read as grey"
    )
    if grey is None and space.num_categories == 2:
        grey = Grey(WHITE, 2)
    if grey is None:
        say(found)
        return levels, names, False
    grey = grey._replace(top=WHITE)
    say(f"{found}; {grey.told(levels)}")
    return grey.codes(levels).astype(np.int64), names, True


def _found(folder: Path, name: str, *, at_least: int) -> list[Path]:
    """The image files of a folder and of those below, by their names. Raises InputError where they are too few."""
    try:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError as error:
        raise InputError(f"{name}: {folder} cannot be read: {error.strerror}") from error
    if len(files) < at_least:
        found = "no images" if not files else f"{len(files)} images"
        needed = "three are" if at_least == FEW else "one is"
        raise InputError(f"{name}: {folder} holds {found}, at least {needed} needed: {', '.join(SUFFIXES[:4])}, ...")
    return files


def _size(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width}x{height}"


def _read(file: Path, name: str) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I"):  # 16 bits; a conversion would cut the range off
                return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: {file} is damaged or no image: {error}") from error
