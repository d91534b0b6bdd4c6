"""Image sets with names: published files and arrays give the same upright images; bad files get one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gwg_dist.data import (
    MNIST,
    CaltechSilhouettes,
    DiscreteData,
    FashionMNIST,
    FreyFaces,
    Histopathology,
    Omniglot,
)
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError

UPRIGHT = np.zeros((28, 28), np.uint8)
UPRIGHT[3:20, 5] = UPRIGHT[19, 5:12] = 1  # an L: its mirror images and turned ones are others


def downwards(images: np.ndarray) -> np.ndarray:
    """``(N, 28, 28)`` as the MATLAB files have them, ``(N, 784)`` by columns."""
    return images.transpose(0, 2, 1).reshape(len(images), -1)


def test_published_silhouettes_are_upright_and_one_inside(tmp_path: Path) -> None:
    fields = {"train_data": 5, "val_data": 3, "test_data": 4}
    parts = {name: downwards(1 - np.stack([UPRIGHT] * num)) for name, num in fields.items()}
    savemat(tmp_path / "caltech101_silhouettes_28_split1.mat", parts)
    train, validation, test = CaltechSilhouettes(root=str(tmp_path), batch_size=2).splits
    assert (len(train), len(validation), len(test)) == (5, 3, 4)
    assert torch.equal(train[0].view(28, 28), torch.from_numpy(UPRIGHT))


def test_published_drawings_are_upright(tmp_path: Path) -> None:
    drawings = np.stack([UPRIGHT.astype(np.float64)] * 1400)
    savemat(tmp_path / "chardata.mat", {"data": downwards(drawings).T, "testdata": downwards(drawings[:7]).T})
    data = Omniglot(root=str(tmp_path), batch_size=10)
    train, validation, test = data.splits
    assert (len(train), len(validation), len(test)) == (55, 1345, 7)
    assert train.is_floating_point()
    assert torch.equal(test[3].view(28, 28), torch.from_numpy(UPRIGHT))
    assert torch.equal(data.batch(0).codes[0].view(28, 28), torch.from_numpy(UPRIGHT))
    assert data.notes == []


def test_drawings_in_a_folder_are_made_smaller_and_light_on_dark(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"letter{n}").mkdir()
        Image.fromarray(255 - 255 * UPRIGHT.repeat(4, 0).repeat(4, 1)).save(tmp_path / f"letter{n}/0.png")
    data = Omniglot(root=str(tmp_path), binarization="threshold", batch_size=4)
    assert torch.equal(data.splits.train[0].view(28, 28), torch.from_numpy(UPRIGHT))
    assert [len(part) for part in data.splits] == [16, 2, 2]
    assert any("not the chardata.mat of the papers" in note for note in data.notes)


def test_frey_faces_of_the_published_file_and_of_an_array_are_the_same(tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (430, 28, 20), dtype=np.uint8)
    savemat(tmp_path / "frey_rawface.mat", {"ff": faces.reshape(430, -1).T})
    np.savez(tmp_path / "faces.npz", x=faces)
    one, other = (
        FreyFaces(root=str(tmp_path), batch_size=10),
        FreyFaces(root=str(tmp_path / "faces.npz"), batch_size=10),
    )
    assert one.space == Categorical((28, 20), 256)
    assert [len(part) for part in one.splits] == [30, 200, 200]
    for a, b in zip(one.splits, other.splits, strict=True):
        assert torch.equal(a, b)
    assert sorted(map(tuple, torch.cat(list(one.splits)).tolist())) == sorted(
        map(tuple, faces.reshape(430, -1).tolist())
    )
    coarse = FreyFaces(root=str(tmp_path), levels=16, batch_size=10)
    assert torch.equal(coarse.splits.test, one.splits.test // 16)


def test_tissue_of_integers_and_of_fractions_is_the_same(tmp_path: Path) -> None:
    levels = np.arange(3 * 784, dtype=np.int64).reshape(3, 784) % 256
    names = ("training", "validation", "test")
    np.savez(tmp_path / "histopathology.npz", **dict.fromkeys(names, levels.astype(np.uint8)))  # pyright: ignore
    np.savez(tmp_path / "fractions.npz", **dict.fromkeys(names, (levels / 255).astype(np.float32)))  # pyright: ignore
    for root in (tmp_path, tmp_path / "fractions.npz"):
        assert torch.equal(Histopathology(root=str(root)).splits.test, torch.from_numpy(levels.astype(np.uint8)))


def write_idx(path: Path, images: np.ndarray) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(np.array([2051, len(images), 28, 28], ">i4").tobytes() + images.tobytes())


def test_fashion_is_read_like_mnist(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10_020, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images[:9])
    levels = FashionMNIST(root=str(tmp_path), binarization="none")
    levels.prepare_data()
    assert levels.space == Categorical((28, 28), 256)
    assert [len(part) for part in levels.splits] == [20, 10_000, 9]
    assert np.array_equal(levels.splits.test.numpy().reshape(9, 28, 28), images[:9])
    for cls in (MNIST, FashionMNIST):
        data = cls(root=str(tmp_path), binarization="threshold")
        assert data.space == Binary((28, 28))
        assert torch.equal(data.splits.test, (torch.from_numpy(images[:9]).flatten(1) >= 128).to(torch.uint8))


def test_real_files(shared_data: Path) -> None:
    silhouettes = CaltechSilhouettes(root=str(shared_data))
    assert [len(part) for part in silhouettes.splits] == [4100, 2264, 2307]
    assert 0.4 < float(silhouettes.splits.test.double().mean()) < 0.5
    assert any("a split of ours" in note for note in silhouettes.notes)
    drawings = Omniglot(root=str(shared_data))
    assert [len(part) for part in drawings.splits] == [3872, 484, 484]
    faces = FreyFaces(root=str(shared_data))
    assert [len(part) for part in faces.splits] == [1565, 200, 200]


@pytest.mark.parametrize(
    ("cls", "name", "arrays", "message"),
    [
        (CaltechSilhouettes, "", {}, "has no caltech101_silhouettes_28_split1.mat and no caltech101_silhouettes28.npz"),
        (FreyFaces, "freyfaces.npz", {"y": np.zeros(3)}, "freyfaces.npz has no array 'x'; it has y"),
        (
            FreyFaces,
            "freyfaces.npz",
            {"x": np.zeros((3, 20, 20))},
            r"must be numbers of shape \(N, 28, 20\), got float64",
        ),
        (FreyFaces, "frey_rawface.mat", {"gg": np.zeros((3, 3))}, "must be numbers of shape"),
        (FreyFaces, "freyfaces.npz", {"x": np.zeros((30, 28, 20), np.uint8)}, "has 30 images, more than 400"),
        (
            CaltechSilhouettes,
            "caltech101_silhouettes28.npz",
            {"x": np.full((9, 28, 28), 7)},
            "must be 0 and 1, got values",
        ),
        (CaltechSilhouettes, "caltech101_silhouettes28.npz", {"x": np.zeros((9, 784))}, "has 9 silhouettes, 8671 are"),
        (Omniglot, "chardata.mat", {"data": np.zeros((784, 9)), "testdata": np.zeros((784, 9))}, "more than 1345"),
        (Histopathology, "histopathology.npz", {"training": np.zeros((9, 784))}, "has no array 'validation'"),
    ],
)
def test_bad_files_get_one_line(
    cls: type[DiscreteData], name: str, arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    if name.endswith(".mat"):
        savemat(tmp_path / name, arrays)
    elif name:
        np.savez(tmp_path / name, **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=message):
        _ = cls(root=str(tmp_path)).splits  # pyright: ignore[reportCallIssue]


def test_a_torn_file_and_levels_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "frey_rawface.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(InputError, match=r"frey_rawface\.mat is damaged or no MATLAB file"):
        _ = FreyFaces(root=str(tmp_path)).splits
    with pytest.raises(ValueError, match="levels must lie in 2 to 256, got 257"):
        FreyFaces(levels=257)
