"""MNIST and Fashion-MNIST, images of 28x28: 50,000 training, 10,000 validation, 10,000 test.

The last 10,000 of the published training images are the validation set. Files are taken from ``root`` where they are,
and downloaded into it where they are not.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits, binarize, check_binarization
from gwg_dist.data.files import read_arrays
from gwg_dist.data.forms import WHITE, Grey
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError

NUM_VALIDATION = 10_000
MAX_IMAGES = 1_000_000
IDX_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
IDX_FILES: dict[str, str | None] = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
}
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_FILES: dict[str, str | None] = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
}
PUBLISHED_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
PUBLISHED_FILES = {
    "binarized_mnist_train.amat": 50_000,
    "binarized_mnist_valid.amat": 10_000,
    "binarized_mnist_test.amat": 10_000,
}


class MNIST(DiscreteData):
    """Binary MNIST.

    Args:
        batch_size: images in an iteration, on all ranks together.
        binarization: "dynamic", "static" (drawn once here), "threshold", or "published" for the fixed draw of
            Salakhutdinov and Murray (2008) that papers call static MNIST.
        root: a folder with mnist.npz (x_train, x_test), the idx files or the published .amat files, or a .npz itself;
            what it lacks is downloaded into it.
    """

    paths: ClassVar[tuple[str, ...]] = ("root",)

    def __init__(self, *, batch_size: int = 100, binarization: str = "dynamic", root: str = "data") -> None:
        check_binarization(binarization, "published")
        super().__init__(Binary((28, 28)), batch_size=batch_size)
        self.binarization = binarization
        self.grey = Grey(WHITE, 2, "static" if binarization == "published" else binarization)
        self.root = Path(root)

    def prepare_data(self) -> None:
        if self.binarization == "published":
            _download(self.root, PUBLISHED_URL, dict.fromkeys(PUBLISHED_FILES))
        elif self._archive() is None:
            _download(self.root, IDX_URL, IDX_FILES)

    def load(self) -> Splits:
        if self.binarization == "published":
            return Splits(*(_read_amat(self.root / name, rows) for name, rows in PUBLISHED_FILES.items()))
        parts = _levels(self.root, self._archive())
        return binarize(Splits(*(part.float() / 255 for part in parts)), self.binarization)

    def _archive(self) -> Path | None:
        return _archive(self.root, "mnist.npz")


class FashionMNIST(DiscreteData):
    """Articles of clothing as images of 28x28 (Xiao, Rasul and Vollgraf, 2017): 50,000, 10,000 and 10,000 images.

    Args:
        batch_size: images in an iteration, on all ranks together.
        binarization: "dynamic", "static", "threshold", or "none" for the 256 grey levels as categories.
        root: a folder with fashion_mnist.npz (x_train, x_test) or the gzipped idx files, or a .npz itself; what it
            lacks is downloaded into it. The files have the names of those of MNIST: give each set its own folder.
    """

    paths: ClassVar[tuple[str, ...]] = ("root",)

    def __init__(
        self, *, batch_size: int = 100, binarization: str = "dynamic", root: str = "data/fashion_mnist"
    ) -> None:
        check_binarization(binarization, "none")
        space = Categorical((28, 28), 256) if binarization == "none" else Binary((28, 28))
        super().__init__(space, batch_size=batch_size)
        self.binarization = binarization
        self.grey = None if binarization == "none" else Grey(WHITE, 2, binarization)
        self.root = Path(root)

    def prepare_data(self) -> None:
        if self._archive() is None:
            _download(self.root, FASHION_URL, FASHION_FILES)

    def load(self) -> Splits:
        parts = _levels(self.root, self._archive())
        if self.binarization == "none":
            return Splits(*parts)
        return binarize(Splits(*(part.float() / 255 for part in parts)), self.binarization)

    def _archive(self) -> Path | None:
        return _archive(self.root, "fashion_mnist.npz")


def _levels(root: Path, archive: Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """Grey levels ``(N, 784)`` uint8 of the three splits: the last 10,000 training images are for validation."""
    if archive is not None:
        arrays = read_arrays(archive, "data.root")
        train, test = (_images(arrays, field, archive) for field in ("x_train", "x_test"))
    else:
        train, test = (_read_idx(root / name) for name in IDX_FILES)
    if len(train) <= NUM_VALIDATION:
        raise InputError(f"data.root: {root} has {len(train)} training images, more than 10000 are expected")
    return train[:-NUM_VALIDATION], train[-NUM_VALIDATION:], test


def _archive(root: Path, name: str) -> Path | None:
    if root.suffix == ".npz":
        return root
    archive = root / name
    return archive if archive.is_file() else None


def _images(arrays: dict[str, np.ndarray], field: str, path: Path) -> Tensor:
    if field not in arrays:
        raise InputError(f"data.root: {path} has no array {field!r}; it has {', '.join(sorted(arrays))}")
    array = arrays[field]
    if array.dtype != np.uint8 or array.shape[1:] != (28, 28):
        raise InputError(
            f"data.root: {field} of {path} must be uint8 of shape (N, 28, 28), got {array.dtype} {array.shape}"
        )
    return torch.from_numpy(array).flatten(1)


def _read_idx(path: Path) -> Tensor:
    try:
        with gzip.open(path) as file:
            _, num, height, width = np.frombuffer(file.read(16), ">i4", count=4).tolist()
            if not 0 < num <= MAX_IMAGES or (height, width) != (28, 28):
                raise ValueError(f"its header states {num} images of {height}x{width}")
            raw = file.read(num * height * width + 1)  # no more than that, whatever the rest inflates to
        array = np.frombuffer(raw, np.uint8).reshape(num, height * width)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"data.root: {path} is not a gzipped idx file of images: {error}") from error
    return torch.from_numpy(array.copy())


def _read_amat(path: Path, rows: int) -> Tensor:
    try:
        array = np.loadtxt(path, dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise InputError(f"data.root: {path} is not a table of 0 and 1: {error}") from error
    if array.shape != (rows, 784):
        raise InputError(f"data.root: {path} must have shape ({rows}, 784), got {array.shape}")
    return torch.from_numpy(array)


def _download(root: Path, url: str, files: dict[str, str | None]) -> None:
    missing = {name: known for name, known in files.items() if not (root / name).is_file()}
    if not missing:
        return
    import pooch  # imported where it is needed: most runs have their files

    for name, known_hash in missing.items():
        try:
            pooch.retrieve(url + name, known_hash=known_hash, fname=name, path=root, progressbar=False)
        except Exception as error:
            raise InputError(
                f"data.root: {root} lacks {name} and it could not be downloaded ({error}); put it there, or point "
                "data.root at an .npz with x_train and x_test"
            ) from error
