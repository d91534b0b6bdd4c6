"""Points in a file of their own: arrays and tables of codes come back as they were written, holes and all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gwg_dist.data import Arrays, Digits, Images, Table
from gwg_dist.data.digits import read_digits
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError

SPACE = Categorical((2, 3), 4)
CODES = torch.randint(4, (7, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def data(tmp_path: Path) -> Arrays:
    path = tmp_path / "train.npz"
    np.savez(path, x=np.arange(24).reshape(4, 2, 3) % 4)
    return Arrays(str(path), num_categories=4)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".tsv"])
def test_what_is_written_is_read(suffix: str, data: Arrays, tmp_path: Path) -> None:
    path, names = tmp_path / f"points{suffix}", [str(n + 1) for n in range(7)]
    data.write_file(path, CODES, names)
    found, found_names = data.encode_file(path)
    assert torch.equal(found, CODES)
    assert found_names == names
    assert found.dtype == torch.int64


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".tsv"])
def test_holes_are_told_from_codes(suffix: str, data: Arrays, tmp_path: Path) -> None:
    holes = CODES.clone()
    holes[2, 3] = holes[6, 0] = -1
    path = tmp_path / f"points{suffix}"
    data.write_file(path, holes, [""] * 7)
    assert torch.equal(data.encode_file(path, missing_as=-1)[0], holes)
    assert torch.equal(data.encode_file(path, missing_as=9)[0], holes.masked_fill(holes < 0, 9))
    with pytest.raises(InputError, match=r"point 3, site 4 is missing"):
        data.encode_file(path)


def read(data: Arrays, path: Path, text: str, missing_as: int | None = -1) -> Tensor:
    path.write_text(text)
    return data.encode_file(path, missing_as=missing_as)[0]


def test_a_table_has_a_header_or_none_and_several_signs_for_a_hole(data: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert read(data, path, "a,b,c,d,e,f\n0,1,2,3,,?\n.,NA,-1,nan,0,1\n").tolist() == [
        [0, 1, 2, 3, -1, -1],
        [-1] * 4 + [0, 1],
    ]
    assert read(data, path, ",a,b,c,d,e\n0,1,2,3,0,1\n").tolist() == [[0, 1, 2, 3, 0, 1]], "an index has no name"
    assert read(data, path, ",NA,?,.,,\n0,1,2,3,0,1\n").tolist() == [[-1] * 6, [0, 1, 2, 3, 0, 1]]
    assert read(data, path, "0;1;2;3;0;1\n").tolist() == [[0, 1, 2, 3, 0, 1]]


def test_levels_of_black_and_white_are_bits(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.eye(6, dtype=int))
    np.save(tmp_path / "x.npy", (np.eye(6) * 255).astype(np.uint8))
    data = Arrays(str(tmp_path / "train.npz"))
    assert data.space == Binary(6)
    assert torch.equal(data.encode_file(tmp_path / "x.npy")[0], torch.eye(6, dtype=torch.int64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,c,d,e,f\n", "holds no points"),
        ("0,1,2\n", "line 1: 3 cells, expected 6"),
        ("0,1,2,3,0,1\n\n0,1\n", "line 3: 2 cells, expected 6"),
        ("0,1,2,3,0,4\n", "point 1, site 6 is 4, expected an integer from 0 to 3"),
        ("0,1,2,3,0,0.5\n", "point 1, site 6 is 0.5"),
        ("0,1,2,3,0,x\n", "line 1, column 6: 'x' is no number"),
    ],
)
def test_a_strange_table_is_named(text: str, message: str, data: Arrays, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(data, tmp_path / "t.csv", text)


def test_a_strange_file_is_named(data: Arrays, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        data.encode_file(tmp_path / "nothing.npz")
    np.savez(tmp_path / "two.npz", a=CODES.numpy(), b=CODES.numpy())
    with pytest.raises(InputError, match=r"needs one array \(N, ...\) with 6 numbers a point"):
        data.encode_file(tmp_path / "two.npz")
    (tmp_path / "a.txt").write_text("0 1")
    with pytest.raises(InputError, match="is of no kind that the data of this run are read from"):
        data.encode_file(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"out must end in \.npz"):
        data.write_file(tmp_path / "a.txt", CODES, [""] * 7)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".tsv"])
@pytest.mark.parametrize(("levels", "coding"), [((-1, 1), "auto"), ((1, 2, 3, 4), "compact"), ((-1, 3, 7), "compact")])
def test_files_are_read_with_the_coding_of_the_data(
    levels: tuple[int, ...], coding: str, suffix: str, tmp_path: Path
) -> None:
    """A spin of -1 is a value and no hole, and a file without the smallest value is not shifted."""
    values = np.array(levels)[np.random.default_rng(0).integers(0, len(levels), (20, 6))]
    values[0, : len(levels)] = levels
    np.savez(tmp_path / "train.npz", x=values)
    np.savetxt(tmp_path / "train.csv", values, fmt="%d", delimiter=",")
    expected = torch.from_numpy(np.searchsorted(levels, values))
    some = expected.clamp(min=1)
    holes = some.clone()
    holes[1, 2] = -1
    for data in (Arrays(str(tmp_path / "train.npz"), coding=coding), Table(str(tmp_path / "train.csv"), coding=coding)):
        for name in ("train.npz", "train.csv"):
            for missing_as in (None, -1):
                assert torch.equal(data.encode_file(tmp_path / name, missing_as=missing_as)[0], expected)
        for codes in (expected, some, holes):
            path = tmp_path / f"again{suffix}"
            data.write_file(path, codes, [""] * 20)
            assert torch.equal(data.encode_file(path, missing_as=-1)[0], codes)
        assert data.category_names()[0] == [str(level) for level in levels]
        np.save(tmp_path / "strange.npy", np.full((3, 6), 9))
        with pytest.raises(
            InputError, match=r"point 1, site 1 is 9, expected one of the values .*have: " + str(levels[0])
        ):
            data.encode_file(tmp_path / "strange.npy")
        np.savez(tmp_path / "samples.npz", x=expected, f=np.zeros(20))  # as sample writes them
        assert torch.equal(data.encode_file(tmp_path / "samples.npz")[0], expected)


def test_values_that_do_not_occur_have_codes_behind(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.array([[5, 7]] * 3))
    data = Arrays(str(tmp_path / "train.npz"), coding="compact", num_categories=4)
    assert data.category_names() == [["5", "7", "8", "9"]] * 2
    data.write_file(tmp_path / "a.csv", torch.tensor([[3, 0]]), ["1"])
    assert (tmp_path / "a.csv").read_text() == "9,5\n"


def test_one_hot_is_told_by_its_shape(data: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A site without a one is missing."""
    sites = np.eye(4, dtype=np.int64)[CODES.numpy().reshape(7, 2, 3)]
    np.save(tmp_path / "x.npy", sites)
    assert torch.equal(data.encode_file(tmp_path / "x.npy")[0], CODES)
    assert "one-hot along the last axis: 4 categories" in capsys.readouterr().err
    holes = CODES.clone()
    holes[1, 2] = holes[5, 0] = holes[6, 5] = -1
    sites[1, 0, 2], sites[5, 0, 0] = 0, -1
    with_nan = np.where(np.arange(7)[:, None, None, None] == 6, sites.astype(float), sites)
    with_nan[6, 1, 2] = np.nan
    np.save(tmp_path / "holes.npy", with_nan)
    assert torch.equal(data.encode_file(tmp_path / "holes.npy", missing_as=-1)[0], holes)
    sites[3, 1, 1] = 1
    np.save(tmp_path / "wrong.npy", sites)
    with pytest.raises(InputError, match="point 4, site 5 is not one-hot"):
        data.encode_file(tmp_path / "wrong.npy")


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("flat", [False, True])
def test_packed_bits_are_told_by_their_shape(order: str, flat: bool, tmp_path: Path) -> None:
    """In the order of the run's own file, and without the bits that fill a byte; also where they are few points."""
    rows = np.random.default_rng(0).integers(0, 2, (40, 6, 1)).repeat(13, 2)
    bits = rows ^ (np.arange(13) > np.random.default_rng(1).integers(3, 10, (40, 6, 1)))
    np.save(tmp_path / "train.npy", np.packbits(bits, axis=-1, bitorder=order))  # pyright: ignore[reportCallIssue, reportArgumentType]
    data = Arrays(str(tmp_path / "train.npy"), coding="packed", shape=(6, 13))
    assert data.space == Binary((6, 13))
    asked = bits[:2].reshape(2, -1) if flat else bits[:2]
    np.save(tmp_path / "x.npy", np.packbits(asked, axis=-1, bitorder=order))  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert torch.equal(data.encode_file(tmp_path / "x.npy")[0], torch.from_numpy(bits[:2].reshape(2, -1)).long())


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("how", [{"binarization": "threshold"}, {"levels": 4}, {"levels": 16}])
def test_grey_levels_become_what_they_became_in_training(how: dict, kind: type, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 9)).astype(np.uint8)
    grey[0, :2] = 0, 255
    array = grey if kind is np.uint8 else grey / 255
    np.save(tmp_path / "train.npy", array)
    data = Arrays(str(tmp_path / "train.npy"), **how)
    points = {row.tobytes() for part in data.splits for row in part.numpy()}
    codes = data.encode_file(tmp_path / "train.npy")[0]
    assert {row.tobytes() for row in codes.numpy().astype(np.uint8)} == points
    data.write_file(tmp_path / "again.npz", codes, [""] * 30)
    assert torch.equal(data.encode_file(tmp_path / "again.npz")[0], codes), "codes are no grey levels"
    holes = array.astype(np.float64)
    holes[3, 4] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    found = data.encode_file(tmp_path / "holes.npy", missing_as=-1)[0]
    assert found[3, 4] == -1
    assert int((found != codes).sum()) == 1
    np.save(tmp_path / "wide.npy", grey.astype(np.int64) * 3)
    with pytest.raises(InputError, match=r"grey levels go from 0 to 255, as those of the run, got 0 to 765"):
        data.encode_file(tmp_path / "wide.npy")


def test_pixels_that_training_draws_are_drawn_once(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 400)).astype(np.uint8)
    np.save(tmp_path / "train.npy", grey)
    data = Arrays(str(tmp_path / "train.npy"), binarization="dynamic")
    codes = data.encode_file(tmp_path / "train.npy")[0].numpy()
    assert (codes[grey == 0] == 0).all()
    assert (codes[grey == 255] == 1).all()
    assert abs(codes.mean() - grey.mean() / 255) < 0.01
    assert np.array_equal(codes, data.encode_file(tmp_path / "train.npy")[0].numpy())


def drawn(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


def test_a_folder_of_images_asks_as_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grey levels become what those of the run's own file became, whether that was a folder or an array."""
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 5))
    folder = drawn(tmp_path / "grey", grey)
    np.savez(tmp_path / "bits.npz", x=grey > 127)
    np.savez(tmp_path / "spins.npz", x=np.where(grey > 127, 1, -1))
    np.savez(tmp_path / "grey.npz", x=grey)
    bits, sixteen = torch.from_numpy(grey > 127).long().flatten(1), torch.from_numpy(grey // 16).flatten(1)
    levels = torch.from_numpy(grey).flatten(1)
    for data, expected in (
        (Images(str(folder)), bits),
        (Arrays(str(tmp_path / "bits.npz")), bits),
        (Arrays(str(tmp_path / "spins.npz")), bits),
        (Arrays(str(tmp_path / "grey.npz"), levels=16), sixteen),
        (Arrays(str(tmp_path / "grey.npz"), num_categories=256), levels),
    ):
        capsys.readouterr()
        found, names = data.encode_file(folder)
        assert torch.equal(found, expected)
        assert names == [f"{n:02}.png" for n in range(6)]
        assert "6 images of 5x8 pixels, read as grey" in capsys.readouterr().err
        assert torch.equal(data.encode_file(folder / "02.png")[0], expected[2:3]), "one image is a point"
    assert torch.equal(torch.cat(list(Images(str(folder), batch_size=1).splits)).sum(0).long(), bits.sum(0))


def test_images_of_labelled_digits_have_a_label_to_find(tmp_path: Path) -> None:
    levels, _ = read_digits()
    folder = drawn(tmp_path / "digits", np.round(levels[:9].reshape(9, 8, 8) * 255 / 16))
    for binarization, expected in (("threshold", levels[:9] >= 8), ("none", levels[:9])):
        found, _ = Digits(labels=True, binarization=binarization).encode_file(folder, missing_as=-1)
        assert torch.equal(found[:, :64], torch.from_numpy(expected).long())
        assert (found[:, 64] == -1).all()


def test_strange_images_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(24).reshape(4, 2, 3) % 4)
    data = Arrays(str(tmp_path / "x.npz"))
    folder = drawn(tmp_path / "images", np.full((2, 3, 2), 2))
    with pytest.raises(InputError, match=r"00\.png is an image of 2x3 pixels, the run has images of 3x2 pixels"):
        data.encode_file(folder)
    (folder / "00.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"00\.png is damaged or no image"):
        data.encode_file(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images, at least one is needed"):
        data.encode_file(tmp_path / "empty")
    with pytest.raises(InputError, match="point 1, site 1 is 9, expected an integer from 0 to 3"):
        data.encode_file(drawn(tmp_path / "light", np.full((1, 2, 3), 9)))
