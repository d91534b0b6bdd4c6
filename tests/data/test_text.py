"""Text in windows: what becomes of characters, splits that share none, round trips, and what bad files get."""

import gzip
from pathlib import Path

import pytest
import torch

from gwg_dist import sample
from gwg_dist.data import Text
from gwg_dist.data.paths import named_data
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError
from tests.support.runs import run_fit

PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom... " * 40


@pytest.fixture
def prose(tmp_path: Path) -> str:
    (tmp_path / "prose.txt").write_text(PROSE)
    return str(tmp_path / "prose.txt")


def everything(data: Text) -> str:
    return "".join(text for part in data.splits for text in data.text_of(part))


def test_letters_are_a_to_z_and_single_spaces(tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_text("Élan vital -- 12 STRASSEN:\r\n\tdie Straße;  naïve  " * 20, encoding="utf-8-sig")
    data = Text(str(tmp_path / "odd.txt"), length=10)
    assert data.space == Categorical(10, 27)
    text = everything(data)
    right = " ".join(["elan vital strassen die strasse naive"] * 20)
    assert text == right[: len(text)]
    assert len(right) - len(text) < 10


def test_windows_of_the_splits_follow_each_other_and_share_nothing(prose: str) -> None:
    data = Text(prose, length=16, alphabet="found")
    train, validation, test = data.splits
    assert len(validation) == len(test) == round(0.1 * (len(PROSE) // 16))
    assert everything(data) == PROSE[: 16 * (len(train) + 2 * len(test))]
    assert data.symbols == "".join(sorted(set(PROSE)))
    assert data.category_names()[3] == list(data.symbols)


def test_codes_and_text_are_each_others_inverse(prose: str) -> None:
    data = Text(prose)
    codes = data.splits.test
    assert torch.equal(torch.stack([data.codes_of(text) for text in data.text_of(codes)]), codes)
    assert data.text_of(data.codes_of("Née: 7 x")[None]) == ["nee  7 x".replace("  7 ", "    ")]
    assert data.lines(codes) == data.text_of(codes)


def test_the_help_of_python_is_there_without_a_file() -> None:
    data = Text()
    assert data.space == Categorical(64, 27)
    assert len(data.splits.train) > 3000
    assert "the" in everything(data)
    assert data.batch(3).codes.shape == (100, 64)


def test_symbols_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "dna.txt").write_text("gattaca" * 30)
    data = Text(str(tmp_path / "dna.txt"), alphabet="tgca", length=7)
    assert data.text_of(data.splits.train)[0] == "gattaca"
    assert data.splits.train[0].tolist() == [1, 3, 0, 0, 3, 2, 3]
    (tmp_path / "bits.txt").write_text("0110" * 30)
    assert Text(str(tmp_path / "bits.txt"), alphabet="01", length=4).space == Binary(4)


def test_a_path_picks_the_class(prose: str, tmp_path: Path) -> None:
    assert named_data([prose], lambda _: False) == ["--data=Text", f"--data.path={prose}"]
    (tmp_path / "small.txt.gz").write_bytes(gzip.compress(PROSE.encode()))
    assert torch.equal(Text(str(tmp_path / "small.txt.gz")).splits.test, Text(prose).splits.test)


def test_windows_in_files_come_back(prose: str, tmp_path: Path) -> None:
    data = Text(prose, length=8, alphabet="found")
    codes = data.splits.validation
    for name in ("out.txt", "out.txt.gz", "out.npz"):
        data.write_file(tmp_path / name, codes, [""] * len(codes))
        found, names = data.encode_file(tmp_path / name)
        assert torch.equal(found, codes.long())
        assert names == [str(n + 1) for n in range(len(codes))]


def test_missing_characters_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("ab\nba\n" * 20)
    data = Text(str(tmp_path / "lines.txt"), length=3, alphabet="found")
    assert set(data.lines(data.splits.train)) == {"ab↵", "ba↵"}
    (tmp_path / "some.txt").write_text("a_↵\n\nba↵\n")
    found, names = data.encode_file(tmp_path / "some.txt", missing_as=9)
    assert found.tolist() == [[1, 9, 0], [2, 1, 0]]
    assert names == ["1", "3"]
    with pytest.raises(InputError, match=r"line 1: character 2 is missing; gwg_dist complete fills it in"):
        data.encode_file(tmp_path / "some.txt")


def test_a_text_of_few_letters_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "greek.txt").write_text("ἄνδρα μοι ἔννεπε, abc " * 30)
    assert any(
        "few characters are letters a to z" in note for note in Text(str(tmp_path / "greek.txt"), length=4).notes
    )


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"", {}, r"bad\.txt is empty"),
        (b"abc \xff" * 50, {}, r"bad\.txt is not text in UTF-8: .* at byte 4"),
        (b"\x1f\x8b\x08 torn", {}, r"bad\.txt cannot be read"),
        (b"too short", {}, "has 9 characters, at least three windows of 64 are needed"),
        (b"aaaa" * 90, {"alphabet": "found"}, "has 1 different characters, expected 2 to 100"),
        (b"abcd" * 90, {"alphabet": "found", "max_symbols": 3}, "has 4 different characters, expected 2 to 3"),
        (b"acgt\nacgx", {"alphabet": "acgt\n", "length": 2}, r"bad\.txt, line 2: 'x' is not among the 5 symbols"),
    ],
    ids=["empty", "no utf-8", "torn", "short", "one symbol", "many symbols", "unknown"],
)
def test_bad_files_get_one_line(content: bytes, settings: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Text(str(tmp_path / "bad.txt"), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length must be positive, got 0"),
        ({"max_symbols": 1}, "max_symbols must be at least 2, got 1"),
        ({"alphabet": "aab"}, "alphabet must be letters, found, or two and more different symbols, got 'aab'"),
        ({"held_out": 0.5}, "held_out must lie in"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Text(**settings)


def test_bad_windows_name_their_line(prose: str, tmp_path: Path) -> None:
    data = Text(prose, length=5, alphabet="found")
    for text, message in (
        ("It wa\nIt w\n", "line 2 has 4 characters, expected 5"),
        ("It wQ", "line 1: 'Q' is not among"),
    ):
        (tmp_path / "windows.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            data.encode_file(tmp_path / "windows.txt")


def test_samples_are_text(prose: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run on a path ends in lines of text; the energy is the recipe's."""
    args = [prose, "--model.energy=PottsEnergy", "--data.length=8", "--trainer.max_steps=3", "--pictures_every=0"]
    run = run_fit(tmp_path / "run", *args)
    capsys.readouterr()
    sample.main([str(run), "--num=12", "--num_steps=20"])
    lines = (run / "samples-12.txt").read_text().splitlines()
    assert [len(line) for line in lines] == [8] * 12
    assert set("".join(lines)) <= set(" abcdefghijklmnopqrstuvwxyz")
    assert lines[0] in capsys.readouterr().err
