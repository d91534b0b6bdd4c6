"""Tables of words, of numbers, with holes: codes and back, the same codes for other files, mistakes named by place."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import complete, fit, sample
from gwg_dist.data import Table, describe
from gwg_dist.data.cells import read_cells
from gwg_dist.data.paths import named_data
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError
from tests.support.runs import command, fails

PETS = "colour,legs,home\nred,4,?\ngreen,2,sea\nred,10,land\nblue,4,\nred,4,sea\n"


def table(tmp_path: Path, text: str, name: str = "my.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def everything(data: Table) -> list[list[str]]:
    """All rows in words, sorted, so that the shuffle of the splits does not matter."""
    assert data.book is not None
    return sorted(data.book.decode(torch.cat(list(data.splits))))


def test_every_column_has_categories_of_its_own_in_sorted_order(tmp_path: Path) -> None:
    path = table(tmp_path, PETS)
    data = Table(path, batch_size=1)
    assert data.space == Categorical(3, 3)
    assert data.site_names() == ["colour", "legs", "home"]
    assert data.category_names() == [["blue", "green", "red"], ["2", "4", "10"], ["land", "sea", "missing"]]
    codes, names = data.encode_file(path)
    assert codes.tolist() == [[2, 1, 2], [1, 0, 1], [2, 2, 0], [0, 1, 2], [2, 1, 1]]
    assert names == ["1", "2", "3", "4", "5"]
    assert data.encode_file(path, missing_as=-1)[0][:, 2].tolist() == [-1, 1, 0, -1, 1]
    assert data.blanks().tolist() == [-1, -1, 2]
    assert everything(data) == sorted(
        [["red", "4", ""], ["green", "2", "sea"], ["red", "10", "land"], ["blue", "4", ""], ["red", "4", "sea"]]
    )
    assert "2 missing cells in 1 columns are a category of their own" in data.notes[1]


def test_codes_are_those_of_the_training_file_in_another_one(tmp_path: Path) -> None:
    """Which has fewer words, in other columns' places, and 1.0 for 1."""
    data = Table(table(tmp_path, PETS), batch_size=1)
    other = table(tmp_path, "legs\thome\tage\tcolour\n4.0\tsea\t9\tred\n10\tNA\t7\tgreen\n", "other.tsv")
    assert data.encode_file(other, missing_as=-1)[0].tolist() == [[2, 1, 1], [1, 2, -1]]
    for text, message in (
        ("colour,legs,home\nred,4,sea\npurple,4,sea\n", "line 3, column colour: 'purple' is none of the 3 values that"),
        ("color,legs,home\nred,4,sea\n", "has no column 'colour' (did you mean 'color'?)"),
    ):
        with pytest.raises(InputError) as caught:
            data.encode_file(table(tmp_path, text, "wrong.csv"))
        assert message in str(caught.value)
    less = table(tmp_path, "legs,home\n4,sea\n", "less.csv")
    assert data.encode_file(less, missing_as=-1)[0].tolist() == [[-1, 1, 1]], "a column may be what is asked for"
    with pytest.raises(InputError, match="has no column 'colour'"):
        data.encode_file(less)
    whole = Table(table(tmp_path, PETS.replace("?", "sea").replace("4,\n", "4,sea\n"), "whole.csv"), batch_size=1)
    with pytest.raises(InputError, match="line 2, column home: the cell is empty; gwg_dist complete"):
        whole.encode_file(data.splits and table(tmp_path, PETS))


def test_words_are_written_as_they_were_read(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "soybean.csv"
    data = Table(str(path))
    assert (data.space.num_sites, data.space.sizes[0], max(data.space.sizes[1:])) == (36, 19, 8)
    codes, names = data.encode_file(path)
    assert int((data.encode_file(path, missing_as=-1)[0] < 0).sum()) == 2337
    data.write_file(tmp_path / "again.csv", codes, names)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
    label = Table(str(path), label="Class")
    assert label.site_names()[-1] == "Class"
    assert label.space.sizes[-1] == 19
    label.write_file(tmp_path / "again.csv", label.encode_file(path)[0], names)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
    (tmp_path / "unlabelled.csv").write_text("\n".join(line.partition(",")[2] for line in path.read_text().split("\n")))
    found = label.encode_file(tmp_path / "unlabelled.csv", missing_as=-1)[0]
    assert (found[:, -1] == -1).all()
    assert "683 points of 36 2- to 19-category sites" in describe(data)[0]


def test_missing_cells_by_rule(tmp_path: Path) -> None:
    path = table(tmp_path, PETS)
    dropped = Table(path, batch_size=1, missing="drop")
    assert len(torch.cat(list(dropped.splits))) == 3
    assert dropped.category_names() == [["green", "red"], ["2", "4", "10"], ["land", "sea"]]
    assert "2 rows with missing cells are left out" in dropped.notes
    with pytest.raises(InputError, match=r"line 2, column home: the cell is empty; --data\.missing=category"):
        Table(path, missing="error")


def test_columns_of_one_value_are_no_sites_and_are_written_all_the_same(tmp_path: Path) -> None:
    path = table(tmp_path, "a,kind,b\nx,pet,1\ny,pet,2\nx,pet,1\nz,pet,2\n")
    data = Table(path, batch_size=1)
    assert data.site_names() == ["a", "b"]
    assert "left out, because every row has the same value: kind" in data.notes
    codes, names = data.encode_file(path)
    data.write_file(tmp_path / "again.csv", codes, names)
    assert (tmp_path / "again.csv").read_text() == Path(path).read_text()


def test_a_table_of_words_without_a_header(tmp_path: Path) -> None:
    path = table(tmp_path, "p;x\ne;x\np;s\ne;s\n")
    data = Table(path, batch_size=1)
    assert data.space == Binary(2)
    assert data.encode_file(path)[0].tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]


def test_integers_alone_have_one_size_unless_asked(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b\n0,5\n1,7\n0,5\n1,9\n")
    assert Table(path, batch_size=1).space == Categorical(2, 10)
    own = Table(path, batch_size=1, sizes="own")
    assert own.space == Categorical(2, (2, 3))
    assert own.category_names() == [["0", "1"], ["5", "7", "9"]]
    assert Table(path, batch_size=1, leave_out=("a",)).site_names() == ["b"]


def test_parquet_and_npz_are_the_same_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra gwg_dist[parquet] is not installed")
    from pyarrow import parquet

    columns = {"colour": ["red", "green", "red", "blue"], "legs": [4, 2, 10, 4], "tame": [True, None, False, True]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "my.parquet")
    texts = {name: np.array(["" if cell is None else str(cell) for cell in cells]) for name, cells in columns.items()}
    np.savez(tmp_path / "my.npz", **texts)  # pyright: ignore[reportArgumentType]
    for name in ("my.parquet", "my.npz"):
        assert named_data([str(tmp_path / name)], bool)[0] == "--data=Table"
        data = Table(str(tmp_path / name), batch_size=1)
        assert data.category_names() == [["blue", "green", "red"], ["2", "4", "10"], ["False", "True", "missing"]]
        assert data.encode_file(tmp_path / name)[0].tolist() == [[2, 1, 1], [1, 0, 2], [2, 2, 0], [0, 1, 1]]
    np.savez(tmp_path / "points.npz", x=np.zeros((5, 3), int), y=np.zeros(5))
    assert named_data([str(tmp_path / "points.npz")], bool)[0] == "--data=Arrays"


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("first name,age\na b,1\nc d,2\n", ","), ("a;b\nx,1;2\ny,2;3\n", ";"), ("a b\nx 1\ny 2\n", " ")],
)
def test_the_delimiter_is_found(text: str, delimiter: str, tmp_path: Path) -> None:
    cells = read_cells(table(tmp_path, text), "path")
    assert [column.name for column in cells.columns] == text.split("\n")[0].split(delimiter)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,a\nx,1,y\ny,2,x\nx,1,x\n", "columns 1 and 3 have the same name 'a'"),
        ("a,b\n" + "x,1\ny,2\n" * 9 + "x,red\n", "line 20, column b: 'red' is text among numbers"),
        ("a,b\nx,1\ny,2.5\nx,1\n", "line 3, column b: 2.5 is no integer"),
        ("a;b\nx;1\ny;2,5\nx;?\n", "line 3, column b: 2,5, with a decimal comma, is no integer; cut a measurement"),
        ("id,b\n" + "".join(f"n{i},x\n" for i in range(150)), "column id has 150 different values in 150 rows"),
        ("a,b\nx,1\ny\nx,2\n", "line 3: 1 cells, expected 2"),
        ("a,b\nx,1\nx,1\nx,1\n", "has no column of two or more different values"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_place(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(fit.main, [table(tmp_path, text)], capsys)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"missing": "guess"}, ValueError, "missing must be one of category, drop, error, got 'guess'"),
        ({"sizes": "mine"}, ValueError, "sizes must be one of auto, same, own, got 'mine'"),
        ({"sizes": "own", "levels": 4}, ValueError, "sizes=own takes columns as they are"),
        ({"label": "colr"}, InputError, "data.label: .* has no column 'colr'; it has colour, legs, home"),
        ({"leave_out": ("age",)}, InputError, "data.leave_out: .* has no column 'age'"),
        ({"label": "legs", "leave_out": ("legs",)}, ValueError, "label 'legs' is among the columns of leave_out"),
        ({"max_categories": 2}, InputError, "column colour has 3 different values in 5 rows"),
        ({"sizes": "same"}, InputError, "line 2, column colour: 'red' is text"),
    ],
)
def test_settings(settings: dict, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        Table(table(tmp_path, PETS), **settings)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "my.parquet").touch()
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'gwg_dist\[parquet\]'"):
        Table(str(tmp_path / "my.parquet"))


def test_a_run_writes_samples_in_the_words_of_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = table(tmp_path, PETS.rstrip() + "\n" + "green,10,land\npink,10,land\n" * 20), tmp_path / "run"
    settings = ("--trainer.max_steps=2", "--pictures_every=0", "--model.energy=PottsEnergy")
    fit.main([*command(run, *settings), path])
    sample.main([str(run), "--num=4", "--num_steps=2", "--checkpoint=last", "--device=cpu"])
    lines = (run / "samples-4.csv").read_text().splitlines()
    assert lines[0] == "colour,legs,home"
    data = Table(path, batch_size=1)
    with np.load(run / "samples-4.npz") as file:
        assert np.array_equal(data.encode_file(run / "samples-4.csv")[0], file["x"])
    (tmp_path / "holes.csv").write_text("home,colour,legs\n?,red,4\nsea,,\n")
    complete.main([str(run), str(tmp_path / "holes.csv"), "--checkpoint=last", f"--out={tmp_path / 'full.csv'}"])
    header, *rows = (tmp_path / "full.csv").read_text().splitlines()
    assert header == "colour,legs,home"
    assert all(cell for row in rows for cell in row.split(",")), "an empty cell is no answer"
    assert rows[0].startswith("red,4,")
    assert rows[1].endswith(",sea")
