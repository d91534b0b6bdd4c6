"""Image sets that papers measure on, from the files that they were published in; and from arrays of the same images.

They are not downloaded, because nobody has published digests of these files: put one into ``root``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits, binarize, check_binarization, split_rows
from gwg_dist.data.files import read_arrays
from gwg_dist.data.forms import WHITE, Grey
from gwg_dist.data.image_files import read_images
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.errors import InputError

SIDE = 28
OMNIGLOT_VALIDATION = 1345
CALTECH_SIZES = 4100, 2264, 2307  # training, validation, test of the published split
FREY_HELD_OUT = 200
HELD_OUT = 0.1


class ImageSet(DiscreteData, ABC):
    """Images of a set with a name.

    Args:
        space: where they live.
        batch_size: images in an iteration, on all ranks together.
        root: a folder that has one of ``files``, or such a file.
    """

    paths: ClassVar[tuple[str, ...]] = ("root",)
    files: ClassVar[tuple[str, ...]] = ()
    """Names under which the set is looked for, the first that is there is read."""

    def __init__(self, space: Space, *, batch_size: int, root: str) -> None:
        super().__init__(space, batch_size=batch_size)
        self.root = Path(root).expanduser()

    def load(self) -> Splits:
        path = self._found()
        return self.read(path)

    @abstractmethod
    def read(self, path: Path) -> Splits:
        """The splits from one of the files. Raises InputError, naming the file and the field."""

    def _found(self) -> Path:
        there = [self.root] if self.root.is_file() else [self.root / name for name in self.files]
        path = next((path for path in there if path.is_file()), None)
        if path is None:
            names = " and no ".join(self.files)
            raise InputError(f"data.root: {self.root} has no {names}; it is not downloaded: put one there")
        return path

    def _images(self, arrays: dict[str, np.ndarray], field: str, path: Path, *, sideways: bool = False) -> np.ndarray:
        """Images ``(N, H, W)`` of an array ``(N, H, W)`` or ``(N, H W)``, whose pixels may go down the columns."""
        if field not in arrays:
            raise InputError(f"data.root: {path} has no array {field!r}; it has {', '.join(sorted(arrays))}")
        array = arrays[field]
        height, width = (*self.space.shape, 1)[:2]
        if array.dtype.kind not in "uifb" or array.size != len(array) * height * width or not array.size:
            expected = f"numbers of shape (N, {height}, {width})"
            raise InputError(f"data.root: {field} of {path} must be {expected}, got {array.dtype} {array.shape}")
        if not sideways:
            return array.reshape(len(array), height, width)
        return array.reshape(len(array), width, height).transpose(0, 2, 1)


class Omniglot(ImageSet):
    """Omniglot as binary images of 28x28 (Lake, Salakhutdinov and Tenenbaum, 2015).

    chardata.mat is the set of the papers: 23,000 training, 1,345 validation and 8,070 test images. The validation
    images are drawn from the published training images by a fixed seed.

    Args:
        batch_size: images in an iteration, on all ranks together.
        binarization: "dynamic", "static" or "threshold".
        root: a folder with chardata.mat or omniglot_small28.npz (x), such a file, or a folder of drawings, dark on
            light, which are made smaller. Of the last two a tenth each is for validation and test.
    """

    files: ClassVar[tuple[str, ...]] = ("chardata.mat", "omniglot_small28.npz")

    def __init__(self, *, batch_size: int = 100, binarization: str = "dynamic", root: str = "data") -> None:
        check_binarization(binarization)
        super().__init__(Binary((SIDE, SIDE)), batch_size=batch_size, root=root)
        self.binarization = binarization
        self.grey = Grey(WHITE, 2, binarization)

    def load(self) -> Splits:
        drawn = self.root.is_dir() and not any((self.root / name).is_file() for name in self.files)
        if drawn and next(self.root.rglob("*.png"), None) is not None:
            drawings, _ = read_images(self.root, "data.root")
            return self._cut(np.stack([_smaller(255 - drawing) for drawing in drawings]))
        return super().load()

    def read(self, path: Path) -> Splits:
        if path.suffix != ".mat":
            return self._cut(self._images(read_arrays(path, "data.root"), "x", path))
        arrays = {name: array.T for name, array in read_arrays(path, "data.root").items()}
        train, test = (_intensities(self._images(arrays, name, path, sideways=True)) for name in ("data", "testdata"))
        if len(train) <= OMNIGLOT_VALIDATION:
            raise InputError(f"data.root: {path} has {len(train)} training images, more than 1345 are expected")
        cut = split_rows(train, OMNIGLOT_VALIDATION, 0)
        return binarize(Splits(cut.train, cut.validation, test), self.binarization)

    def _cut(self, images: np.ndarray) -> Splits:
        self.notes.append(f"{len(images):,} drawings, a split of ours: not the chardata.mat of the papers")
        held = max(round(HELD_OUT * len(images)), 1)
        return binarize(split_rows(_intensities(images), held, held), self.binarization)


class CaltechSilhouettes(ImageSet):
    """Caltech-101 Silhouettes as binary images of 28x28, 1 inside (Marlin, Swersky, Chen and de Freitas, 2010).

    The published split has 4,100 training, 2,264 validation and 2,307 test images.

    Args:
        batch_size: images in an iteration, on all ranks together.
        root: a folder with caltech101_silhouettes_28_split1.mat or caltech101_silhouettes28.npz (x, 1 inside), or such
            a file. The second is not split: it gets a split of ours of the same sizes, which is another one.
    """

    files: ClassVar[tuple[str, ...]] = ("caltech101_silhouettes_28_split1.mat", "caltech101_silhouettes28.npz")

    def __init__(self, *, batch_size: int = 100, root: str = "data") -> None:
        super().__init__(Binary((SIDE, SIDE)), batch_size=batch_size, root=root)

    def read(self, path: Path) -> Splits:
        if path.suffix == ".mat":  # whose silhouettes are 0 on 1
            arrays, fields = read_arrays(path, "data.root"), ("train_data", "val_data", "test_data")
            return Splits(*(1 - _bits(self._images(arrays, name, path, sideways=True), path) for name in fields))
        images = _bits(self._images(read_arrays(path, "data.root"), "x", path), path)
        if len(images) != sum(CALTECH_SIZES):
            raise InputError(f"data.root: {path} has {len(images)} silhouettes, {sum(CALTECH_SIZES)} are expected")
        self.notes.append("a split of ours with the sizes of the published split1, which is another one")
        return split_rows(images, *CALTECH_SIZES[1:])


class GreyImages(ImageSet, ABC):
    """Images whose grey levels are categories.

    Args:
        shape: (H, W).
        batch_size: images in an iteration, on all ranks together.
        levels: number of categories that the range of grey is divided into.
        root: a folder that has one of ``files``, or such a file.

    Raises:
        ValueError: levels outside 2 to 256.
    """

    def __init__(self, shape: tuple[int, int], *, batch_size: int, levels: int, root: str) -> None:
        if not 2 <= levels <= 256:
            raise ValueError(f"levels must lie in 2 to 256, got {levels}")
        super().__init__(Binary(shape) if levels == 2 else Categorical(shape, levels), batch_size=batch_size, root=root)
        self.grey = Grey(WHITE, levels)

    def _codes(self, images: np.ndarray) -> Tensor:
        """Codes ``(N, D)`` of integers from 0 to 255 or numbers in [0, 1]."""
        levels = self.space.num_categories
        scaled = images.astype(np.float64) * levels / (256 if images.dtype.kind in "ui" else 1)
        return torch.from_numpy(scaled.clip(0, levels - 1).astype(np.uint8)).flatten(1)


class FreyFaces(GreyImages):
    """Frey Faces: 1,965 frames of one face, 28x20 pixels of 256 grey levels; 1,565 training, 200, and 200 test images.

    The split is drawn by a fixed seed, as papers draw theirs: neighbouring frames are alike, and are in all three.

    Args:
        batch_size: images in an iteration, on all ranks together.
        levels: number of categories that the 256 levels are divided into.
        root: a folder with frey_rawface.mat (ff) or freyfaces.npz (x), or such a file.
    """

    files: ClassVar[tuple[str, ...]] = ("frey_rawface.mat", "freyfaces.npz")

    def __init__(self, *, batch_size: int = 100, levels: int = 256, root: str = "data") -> None:
        super().__init__((SIDE, 20), batch_size=batch_size, levels=levels, root=root)

    def read(self, path: Path) -> Splits:
        arrays = read_arrays(path, "data.root")
        if path.suffix == ".mat":
            arrays = {"x": arrays.get("ff", np.empty(0)).T}
        images = self._images(arrays, "x", path)
        if len(images) <= 2 * FREY_HELD_OUT:
            raise InputError(f"data.root: {path} has {len(images)} images, more than 400 are expected")
        return split_rows(self._codes(images), FREY_HELD_OUT, FREY_HELD_OUT)


class Histopathology(GreyImages):
    """Grey patches of lymph node tissue, 28x28 pixels of 256 levels, in the published three parts (Tomczak, 2016).

    The published file is pickled, and nothing pickled is loaded here: write its three arrays with numpy.savez.

    Args:
        batch_size: images in an iteration, on all ranks together.
        levels: number of categories that the 256 levels are divided into.
        root: a folder with histopathology.npz (training, validation, test; from 0 to 255 or in [0, 1]), or such a file.
    """

    files: ClassVar[tuple[str, ...]] = ("histopathology.npz",)

    def __init__(self, *, batch_size: int = 100, levels: int = 256, root: str = "data") -> None:
        super().__init__((SIDE, SIDE), batch_size=batch_size, levels=levels, root=root)

    def read(self, path: Path) -> Splits:
        arrays = read_arrays(path, "data.root")
        parts = (self._images(arrays, name, path) for name in ("training", "validation", "test"))
        return Splits(*(self._codes(part) for part in parts))


def _intensities(images: np.ndarray) -> Tensor:
    """``(N, D)`` in [0, 1] from integers up to 255 or numbers in [0, 1]."""
    scaled = images / 255 if images.dtype.kind in "ui" else images
    return torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32)).clamp(0, 1).flatten(1)


def _bits(images: np.ndarray, path: Path) -> Tensor:
    if not np.isin(images, (0, 1)).all():
        raise InputError(f"data.root: the silhouettes of {path} must be 0 and 1, got values up to {images.max()}")
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.uint8)).flatten(1)


def _smaller(drawing: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(drawing).resize((SIDE, SIDE), Image.Resampling.BOX))
