"""A file of the user's own: what kind it is, how its values are read, and what a strange one gets."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gwg_dist import fit
from gwg_dist.data import Arrays, DiscreteData, Images, Table, describe
from gwg_dist.data.paths import named_data
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError
from gwg_dist.training.settings import build_parser
from tests.support.runs import fails

RNG = np.random.default_rng(0)
BITS = RNG.integers(0, 2, (60, 6))


def saved(tmp_path: Path, array: np.ndarray) -> str:
    np.savez(tmp_path / "my.npz", x=array)
    return str(tmp_path / "my.npz")


def codes(data: DiscreteData) -> np.ndarray:
    """All points, sorted, so that the shuffle of the splits does not matter."""
    return np.sort(torch.cat(list(data.splits)).numpy().astype(np.int64), axis=0)


def blobs(num: int = 80, side: int = 24) -> np.ndarray:
    """Binary images with smooth outlines."""
    y, x = np.mgrid[:side, :side]
    centres, radii = RNG.uniform(4, side - 4, (num, 2)), RNG.uniform(3, 9, num)
    return (np.hypot(y - centres[:, :1, None], x - centres[:, 1:, None]) < radii[:, None, None]).astype(np.uint8)


@pytest.mark.parametrize(
    ("array", "note"),
    [
        (BITS.astype(np.uint8), None),
        (BITS.astype(bool), "booleans"),
        (BITS.astype(">i4"), None),
        (np.asfortranarray(BITS), None),
        (BITS.astype(np.float16), None),
        (BITS.astype(np.uint8) * 255, "0 and 255 are read as 0 and 1"),
        (BITS * 2 - 1, "-1 and 1 are read as 0 and 1"),
        (BITS * 2.0 - 1, "-1 and 1 are read as 0 and 1"),
        (BITS + 2**33, "are read as 0 and 1"),
        (np.eye(2, dtype=np.uint8)[BITS], "one-hot along the last axis: 2 categories"),
    ],
    ids=["0/1", "bool", "big-endian", "Fortran", "float16", "0/255", "±1", "±1 float", "far off", "one-hot"],
)  # fmt: skip
def test_two_values_are_binary(array: np.ndarray, note: str | None, tmp_path: Path) -> None:
    data = Arrays(saved(tmp_path, array), batch_size=4)
    assert data.space == Binary(6)
    assert np.array_equal(codes(data), np.sort(BITS, axis=0))
    assert data.notes == [] if note is None else note in data.notes[0]


@pytest.mark.parametrize(
    ("values", "settings", "categories", "note"),
    [
        ([0, 1, 2], {}, 3, None),
        ([0, 3, 7], {}, 8, "only 3 of 8 categories occur (0, 3 and 7): --data.coding=compact"),
        ([0, 3, 7], {"coding": "compact"}, 3, "0, 3 and 7 are read as 0, 1 and 2"),
        ([-1, 0, 1], {"coding": "compact"}, 3, "-1, 0 and 1 are read as"),
        ([0, 1, 3], {}, 4, "2 of 0 to 3 never occur"),
        ([0, 3, 7], {"num_categories": 21}, 21, None),
        ([0, 255], {"coding": "codes"}, 256, "only 2 of 256"),
        ([0, 1, 2, 16], {"levels": 4}, 4, "4 levels of grey out of 0 to 16"),
    ],
)  # fmt: skip
def test_gaps_are_questioned(
    values: list[int], settings: dict, categories: int, note: str | None, tmp_path: Path
) -> None:
    array = RNG.choice(values, (60, 5))
    data = Arrays(saved(tmp_path, array), batch_size=4, **settings)
    assert data.space == Categorical(5, categories)
    assert data.notes == [] if note is None else note in data.notes[0]
    if settings.get("coding") == "compact":
        assert np.array_equal(codes(data), np.sort(np.searchsorted(values, array), axis=0))


def test_one_hot_of_several_categories(tmp_path: Path) -> None:
    kinds = RNG.integers(0, 5, (60, 7))
    data = Arrays(saved(tmp_path, np.eye(5)[kinds]), batch_size=4)
    assert data.space == Categorical(7, 5)
    assert np.array_equal(codes(data), np.sort(kinds, axis=0))


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("flat", [False, True])
def test_packed_bits_are_recognised(order: str, flat: bool, tmp_path: Path) -> None:
    images = blobs()
    packed = np.packbits(images.reshape(80, -1) if flat else images, axis=-1, bitorder=order)  # pyright: ignore
    data = Arrays(saved(tmp_path, packed), batch_size=4)
    assert data.space == Binary(24 * 24 if flat else (24, 24))
    assert np.array_equal(codes(data), np.sort(images.reshape(80, -1), axis=0))
    assert "packed bits" in data.notes[0]
    assert Arrays(saved(tmp_path, packed), batch_size=4, coding="codes").space.num_categories > 2


def test_rows_that_fill_no_byte(tmp_path: Path) -> None:
    images = blobs(side=28)
    path = saved(tmp_path, np.packbits(images, axis=-1))
    assert Arrays(path, batch_size=4).space == Binary((28, 32))
    assert "--data.shape=[28,28] leaves out the last 4 of a row" in Arrays(path, batch_size=4).notes[0]
    data = Arrays(path, batch_size=4, shape=(28, 28))
    assert np.array_equal(codes(data), np.sort(images.reshape(80, -1), axis=0))


def test_real_images_packed_and_grey(shared_data: Path, tmp_path: Path) -> None:
    for name in ("omniglot_small28", "mnist", "freyfaces", "caltech101_silhouettes28"):
        with np.load(shared_data / f"{name}.npz") as file:
            grey = file["x_train" if name == "mnist" else "x"][:2000]
        if grey.max() > 1:
            assert Arrays(saved(tmp_path, grey)).space.num_categories > 200, f"{name} is grey"
        for light in (False, True):
            bits = (grey > grey.max() / 2) != light
            assert Arrays(saved(tmp_path, np.packbits(bits, axis=-1))).space.num_categories == 2, f"{name} packed"


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold"])
def test_grey_levels_become_binary(binarization: str, tmp_path: Path) -> None:
    grey = RNG.random((2000, 9))
    whole = Arrays(saved(tmp_path, (grey * 255).astype(np.uint8)), binarization=binarization)
    data = Arrays(saved(tmp_path, grey), binarization=binarization)
    assert whole.space == data.space == Binary(9)
    assert abs(float(data.batch(0).codes.double().mean()) - 0.5) < 0.1
    assert (data.splits.train - whole.splits.train.to(data.splits.train.dtype)).abs().float().mean() < 0.01


def test_a_shape_is_given_to_flat_points(tmp_path: Path) -> None:
    path = saved(tmp_path, RNG.integers(0, 2, (60, 784)))
    assert Arrays(path, shape=(28, 28), batch_size=4).space == Binary((28, 28))
    assert "--data.shape=[28,28] gives pictures" in describe(Arrays(path, batch_size=4))[0]
    with pytest.raises(InputError, match=r"a point has 784 sites, data.shape \[28, 29\] does not hold them"):
        Arrays(path, shape=(28, 29))


def test_a_description_counts(tmp_path: Path) -> None:
    array = (np.arange(100)[:, None] >> np.arange(8)) & 1
    array[90:] = array[:10]
    data = Arrays(saved(tmp_path, array), batch_size=4)
    line = describe(data)[0]
    assert line.startswith("data: 100 points of 8 binary sites (80 training, 10 validation, 10 test); duplicates: 10")
    assert line.endswith("constant sites: 1")


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "0,1,2\n2,1,0\n\n1,1,1\n0,0,2\n"),
        ("a.csv", "\ufeffone,two,three\n0,1,2\n2,1,0\n1,1,1\n0,0,2"),
        ("a.csv", "0;1;2\n2;1;0\n1;1;1\n0;0;2\n"),
        ("a.csv", '"0","1","2"\r\n"2","1","0"\r\n"1","1","1"\r\n"0","0","2"\r\n'),
        ("a.TSV", "0\t1\t2\n2\t1\t0\n1\t1\t1.0\n0\t0\t2\n"),
    ],
    ids=["plain", "header", "semicolons", "quoted", "tabs"],
)
def test_tables(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    data = Table(str(tmp_path / name), batch_size=1)
    assert data.space == Categorical(3, 3)
    assert np.array_equal(codes(data), [[0, 0, 0], [0, 1, 1], [1, 1, 2], [2, 1, 2]])


# -- folders of images -------------------------------------------------------------------------------------------------


def draw(folder: Path, num: int = 6, size: tuple[int, int] = (5, 4), suffix: str = ".png") -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (num, *size), dtype=np.uint8)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:02d}{suffix}")
    return images


def test_images(tmp_path: Path) -> None:
    grey = draw(tmp_path / "pictures").reshape(6, -1)
    path = str(tmp_path / "pictures")
    data = Images(path, batch_size=1)
    assert data.space == Binary((5, 4))
    assert np.array_equal(codes(data), np.sort(grey >= 128, axis=0))
    levels = Images(path, batch_size=1, levels=16)
    assert levels.space == Categorical((5, 4), 16)
    assert np.array_equal(codes(levels), np.sort(grey // 16, axis=0))
    draw(tmp_path / "pictures/cats")
    assert "1 folders below are read as well, as no labels" in Images(path, batch_size=1).notes[0]
    draw(tmp_path / "pictures/dogs", size=(4, 4))
    with pytest.raises(InputError, match=r"of one size: .*00.png is 4x5, .*dogs/00.png is 4x4"):
        Images(path)


# -- paths in place of names -------------------------------------------------------------------------------------------


def test_a_path_stands_for_its_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, BITS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = build_parser()
    for args in (
        ["my.npz"],
        ["--data=my.npz"],
        ["--data", "./my.npz"],
        ["--config", "mnist_cpu", "my.npz"],
        ["my.npz", "--config=mnist_cpu"],
        ["--model.num_steps", "3", "~/my.npz"],
        ["--trust", "my.npz"],
        ["--data=Arrays", "--data.path=~/my.npz"],
        ["--data=Arrays", "--data.path", "my.npz"],
    ):
        data = parser.parse_args(args).data
        assert (data.class_path, data.init_args.path) == ("gwg_dist.data.Arrays", path), args
    draw(tmp_path / "pictures")
    assert parser.parse_args(["pictures"]).data.class_path == "gwg_dist.data.Images"
    assert parser.parse_args(["--data=Digits"]).data.class_path == "gwg_dist.data.Digits"
    assert named_data(["--run_dir", "my.npz"], lambda _: True) == ["--run_dir", "my.npz"]


def test_a_class_of_ones_own_declares_what_it_reads(tmp_path: Path) -> None:
    class Spins(Arrays):
        sources = (".spins",)

    (tmp_path / "a.spins").touch()
    assert named_data([str(tmp_path / "a.spins")], bool)[0] == f"--data={Spins.__name__}"


# -- strange files -----------------------------------------------------------------------------------------------------


def array_file(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path.with_suffix(".npy"), array, allow_pickle=True)


def text_file(text: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode()) and None  # type: ignore


def torn(path: Path) -> None:
    np.savez(path, x=RNG.integers(0, 2, (500, 50)))
    path.write_bytes(path.read_bytes()[:9000])


def folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no image")


def folder_with_a_torn_image(path: Path) -> None:
    draw(path)
    (path / "03.png").write_bytes((path / "03.png").read_bytes()[:40])


STRANGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("empty.npy", array_file(np.zeros((0, 5), int)), "at least three points, got (0, 5)"),
    ("no_sites.npy", array_file(np.zeros((5, 0), int)), "got (5, 0)"),
    ("scalar.npy", array_file(np.array(3)), "must have shape (N, sites)"),
    ("flat.npy", array_file(np.zeros(30, int)), "must have shape (N, sites) with at least three points, got (30,)"),
    ("two.npy", array_file(BITS[:2]), "at least three points, got (2, 6)"),
    ("nan.npy", array_file(np.where(BITS, np.nan, 0)), "got nan at ["),
    ("inf.npy", array_file(np.where(BITS, np.inf, 0)), "got inf at ["),
    ("objects.npy", array_file(BITS.astype(object)), "holds more than plain arrays"),
    ("dates.npy", array_file(BITS.astype("M8[s]")), "got dates"),
    ("times.npy", array_file(BITS.astype("m8[s]")), "got times"),
    ("complex.npy", array_file(BITS.astype(complex)), "got complex numbers"),
    ("text.npy", array_file(BITS.astype(str)), "got text"),
    ("bytes.npy", array_file(BITS.astype("S")), "got text"),
    ("records.npy", array_file(np.zeros((9, 3), dtype=[("a", int), ("b", float)])), "got records"),
    ("huge.npy", array_file(BITS * 3 + 2**40 * RNG.integers(0, 2, (60, 6))), "must hold integers below 1048576"),
    ("unsigned.npy", array_file(RNG.integers(2**63, 2**64 - 1, (60, 6), dtype=np.uint64)), "below 1048576"),
    ("negative.npy", array_file(BITS - RNG.integers(0, 3, (60, 6))), "--data.coding=compact"),
    ("halves.npy", array_file(BITS / 2), "choose --data.binarization=dynamic"),
    ("floats.npy", array_file(BITS * 1.7), "got numbers such as 1.7"),
    ("float32 huge.npy", array_file(np.full((60, 6), 3e38, np.float32)), "got numbers such as 3e+38"),
    ("torn.npz", torn, "torn.npz is damaged"),
    ("text.npz", text_file("hello"), "text.npz is damaged"),
    ("zero.npz", text_file(b""), "zero.npz is empty"),
    ("zero.npy", text_file(b""), "zero.npy is empty"),
    ("greedy.npy", text_file(b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, "
                             b"'shape': (99999999999999, 9), }".ljust(128) + b"\n"), "greedy.npy"),
    ("torn.mat", text_file("hello"), "torn.mat is damaged or no MATLAB file"),
    ("latin.csv", text_file("a,b\nja,grün\n".encode("latin-1")), "UTF-8: invalid start byte at byte 9; save it"),
    ("numbers.txt", text_file("0 1 1\n1 0 1\n"), "few are letters a to z: --data.alphabet"),
    ("notes.md", text_file("hello"), "is of no kind that is read: .txt, .npz, .npy, .mat, .csv, .tsv, .parquet"),
    ("notes.txt", text_file("hello"), "notes.txt has 5 characters, at least three windows of 64 are needed"),
    ("empty.csv", text_file(""), "is empty"),
    ("blank.csv", text_file("\n\n"), "is empty"),
    ("header.csv", text_file("a,b\n"), "there are no rows"),
    ("words.csv", text_file("a,b\n0,1\n1,red\n"), "line 3, column b: 'red' is text"),
    ("missing.csv", text_file("a,b\n0,1\n1,\n"), "line 3, column b: the cell is empty"),
    ("ragged.csv", text_file("0,1\n1\n0,0\n"), "line 2: 1 cells, expected 2"),
    ("halves.csv", text_file("0,1\n1,0.5\n0,0\n"), "line 2, column 2: 0.5 is no integer"),
    ("nan.csv", text_file("0,1\n1,nan\n0,0\n"), "line 2, column 2: nan is no integer"),
    ("infinite.csv", text_file("0,1\n1,inf\n0,0\n"), "line 2, column 2: inf is no integer"),
    ("latin.csv", text_file("gr\xfcn,blau\n0,1\n".encode("latin-1")), "is not text in UTF-8"),
    ("short.csv", text_file("0,1\n1,0\n"), "at least three points, got (2, 2)"),
    ("no_images", folder, "holds no images, at least three are needed"),
    ("torn_image", folder_with_a_torn_image, "03.png is damaged or no image"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "expected"), STRANGE, ids=[name for name, _, _ in STRANGE])
def test_a_strange_file_is_one_line(
    name: str,
    make: Callable[[Path], None],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tmp_path / name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert expected in fails(fit.main, [f"../{name}"], capsys)
    assert list(Path().iterdir()) == [], "nothing is written for a mistake"


def test_a_matlab_file_and_arrays_named_in_capitals(tmp_path: Path) -> None:
    """X and y are what scikit-learn's users call points and labels."""
    labels = np.arange(60)[:, None] % 3
    savemat(tmp_path / "my.mat", {"X": BITS.astype(float), "y": labels})
    np.savez(tmp_path / "my.npz", X=BITS.astype(np.float32), y=labels[:, 0])
    for name in ("my.mat", "my.npz"):
        path = str(tmp_path / name)
        data = Arrays(path, batch_size=4)
        assert data.space == Binary(6)
        assert np.array_equal(codes(data), np.sort(BITS, axis=0))
        assert data.notes == ["array 'X' is trained on; not used: y"]
        assert torch.equal(data.encode_file(path)[0], torch.from_numpy(BITS))
        assert named_data([path], lambda _: False)[0] == "--data=Arrays"
    np.savez(tmp_path / "both.npz", x=BITS, X=BITS[:, :3])
    both = Arrays(str(tmp_path / "both.npz"), batch_size=4)
    assert both.space == Binary(6)
    assert both.notes == ["array 'x' is trained on; not used: X"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["../mine.npz"], "data: there is no file ../mine.npz (did you mean ../my.npz?)"),
        (["--data=../mine.npz"], "(did you mean ../my.npz?)"),
        (["../my.npz", "--data=MNIST"], "give the data once, got ../my.npz and --data=MNIST"),
        (["../my.npz", "../my.npz"], "give the data once"),
        (["digits"], "data: there is no file digits (did you mean --config digits?)"),
        (["../my.npz", "--data.coding=bits"], "coding must be one of auto, codes, compact, onehot, packed, got 'bits'"),
        (["../my.npz", "--data.levels=1"], "levels must lie in 2 to 256, got 1"),
        (["../my.npz", "--data.levels=4", "--data.binarization=static"], "exclude each other"),
        (["../my.npz", "--data.coding=onehot"], "data.coding=onehot needs 0 and 1 with a single 1"),
        (["../my.npz", "--data.coding=packed"], "data.coding=packed needs bytes (uint8), got int64"),
        (["../my.npz", "--data.shape=[2,2]"], "a point has 6 sites, data.shape [2, 2] does not hold them"),
    ],
)
def test_a_mistake_about_ones_own_data_is_one_line(
    args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, BITS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert expected in fails(fit.main, args, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, BITS)
    os.chmod(path, 0)
    assert "ermission denied" in fails(fit.main, [path], capsys)
