"""Points in a file of their own: arrays and tables of codes come back as they were written, holes and all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gwg_dist.data import Arrays, Table
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
