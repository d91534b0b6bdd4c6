"""Alignments: what is read of a file, what sequences weigh, and that nothing held out is like what is trained on."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import fit, sample
from gwg_dist.data import Alignment, describe, identity
from gwg_dist.data.identity import compare, most_differences
from gwg_dist.data.paths import named_data
from gwg_dist.data.sequences import read_sequences
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError
from tests.support.runs import fails

RNG = np.random.default_rng(0)
ROWS = ["ACDEF", "AC-EF", "MCDEW", "MKDEW", "MKYEW", "AKYE-"]


def written(tmp_path: Path, rows: list[str], name: str = "my.fasta") -> str:
    text = "".join(f">r{number} of a family\n{row}\n" for number, row in enumerate(rows, 1))
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(tmp_path / name)


def all_text(data: Alignment) -> list[str]:
    return sorted(data.text_of(torch.cat(list(data.splits))))


def family(num: int, num_sites: int, num_categories: int, *, ancestors: int, change: float) -> np.ndarray:
    """Descendants of a few random ancestors, each site of which was drawn anew with a probability."""
    old = RNG.integers(0, num_categories, (ancestors, num_sites))[RNG.integers(0, ancestors, num)]
    new = RNG.integers(0, num_categories, old.shape)
    return np.where(RNG.random(old.shape) < change, new, old).astype(np.uint8)


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["my.fasta", "my.afa.gz", "my.whatever", "noending"])
def test_an_alignment_is_told_by_its_content(file: str, tmp_path: Path) -> None:
    path = written(tmp_path, ROWS, file)
    assert named_data([path], lambda _: False) == ["--data=Alignment", f"--data.path={path}"]
    data = Alignment(path)
    assert data.space == Categorical(5, 21)
    assert all_text(data) == sorted(ROWS)


def test_an_npz_is_a_family_by_its_arrays(shared_data: Path, tmp_path: Path) -> None:
    chosen = named_data([str(shared_data / "family_DHFR.npz")], lambda _: False)
    assert chosen[0] == "--data=Alignment"
    np.savez(tmp_path / "x.npz", x=np.eye(9, dtype=int))
    assert named_data([str(tmp_path / "x.npz")], lambda _: False)[0] == "--data=Arrays"


A2M = ["AC.DE.F", "ACkDErF", "M-.DE.W"]
A3M = ["ACDEF", "ACkDErF", "M-DEW"]
DOTS = ["AC.DEF", ".C.DEF", "M.kDEW"]  # Pfam writes gaps of columns as dots too


@pytest.mark.parametrize(
    ("rows", "expected", "columns", "width"),
    [
        (A2M, ["ACDEF", "ACDEF", "M-DEW"], [0, 1, 3, 4, 6], 7),
        (A3M, ["ACDEF", "ACDEF", "M-DEW"], [0, 1, 2, 3, 4], 5),
        (["ACkD", "wACD", "ACDl"], ["ACD", "ACD", "ACD"], [0, 1, 2], 3),  # an A3M of one length by chance
        (DOTS, ["ACDEF", "-CDEF", "M-DEW"], [0, 1, 3, 4, 5], 6),
        (["acdef", "ac-ef", "mcdew"], ["ACDEF", "AC-EF", "MCDEW"], [0, 1, 2, 3, 4], 5),
        (["ACDef", "AcDEF", "MCDEW"], ["ACDEF", "ACDEF", "MCDEW"], [0, 1, 2, 3, 4], 5),  # masked, not inserted
    ],
    ids=["A2M", "A3M", "A3M of one length", "dots", "lower case", "soft-masked"],
)
def test_inserts(rows: list[str], expected: list[str], columns: list[int], width: int, tmp_path: Path) -> None:
    data = Alignment(written(tmp_path, rows))
    assert all_text(data) == sorted(expected)
    assert data.columns.tolist() == columns
    assert data.site_names() == [str(column + 1) for column in columns]
    assert torch.equal(data.codes_of(rows), data.codes_of(expected))
    assert data.text_of(data.codes_of(rows)) == expected
    assert any(f"{width - len(columns)} of {width}" in note for note in data.notes) == (width > len(columns))


@pytest.mark.parametrize(
    ("rows", "alphabet", "letters"),
    [
        (["ACGU", "AC-U", "NCGU"] * 4, "auto", "-ACGU"),
        (["ACGT", "AC-T", "NCGT"] * 4, "auto", "-ACGT"),
        (["ACGTNN", "ACNTRN", "NCGTYA"], "auto", "-ACGT"),
        (["ACGUNN", "ACNURN", "NCGUYA"], "auto", "-ACGU"),
        (["ACGT", "AC-T", "ACGT"], "rna", "-ACGU"),
        (["ACGT", "MKLT", "WCGT"], "auto", "-ACDEFGHIKLMNPQRSTVWY"),
        (["HP", "PH", "HH"], "HP", "HP"),
        (["HpP", "PHp", "pHH"], "HpP", "HpP"),
    ],
)
def test_alphabets(rows: list[str], alphabet: str, letters: str, tmp_path: Path) -> None:
    data = Alignment(written(tmp_path, rows), alphabet=alphabet)
    assert data.alphabet == letters
    assert data.space == (Binary(len(rows[0])) if len(letters) == 2 else Categorical(len(rows[0]), len(letters)))
    assert data.category_names()[0] == list(letters)
    if alphabet == "rna":
        assert all_text(data)[-1] == "ACGU"


def test_letters_that_nobody_knows(tmp_path: Path) -> None:
    path = written(tmp_path, ["ACXEF", "ACDBF", *ROWS])
    data = Alignment(path)
    assert {"AC-EF", "ACD-F"} <= set(all_text(data))
    assert any("B 1, X 1 (--data.unknown=drop leaves out 2 sequences)" in note for note in data.notes)
    assert all_text(Alignment(path, unknown="drop")) == sorted(ROWS)
    with pytest.raises(InputError, match=r"my.fasta: record 'r1 of a family', column 3: 'X' is not in the alphabet"):
        Alignment(path, unknown="error")


def test_gaps_and_the_way_back_to_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path, ["A-DE", "A-DE", "M-DE", "M-D-", "MCDW", "----"])
    assert sum("more than 50% gaps" in note for note in Alignment(path).notes) == 2
    data = Alignment(path, max_gaps=0.5, max_column_gaps=0.5)
    assert all_text(data) == ["ADE", "ADE", "MD-", "MDE", "MDW"]
    assert data.columns.tolist() == [0, 2, 3]
    assert data.reference == "ADE"
    assert data.text_of(data.codes_of(["MKDE", "A-DE"])) == ["MDE", "ADE"]
    assert data.text_of(data.codes_of(["MDE"])) == ["MDE"]


def test_files_of_further_sequences(tmp_path: Path) -> None:
    data = Alignment(written(tmp_path, ROWS))
    path = written(tmp_path, ["ACXEF", "acdef"], "more.fasta")
    codes, names = data.encode_file(path)
    assert data.text_of(codes) == ["AC-EF", "ACDEF"]
    assert names == ["r1 of a family", "r2 of a family"]
    holes, _ = data.encode_file(path, missing_as=-7)
    assert holes[0].tolist() == [1, 2, -7, 4, 5]
    data.write_file(tmp_path / "out.fasta.gz", codes, names)
    back, again = data.encode_file(tmp_path / "out.fasta.gz")
    assert torch.equal(back, codes)
    assert again == names
    for row, message in (("ACDE", "sequence 1 has 4 letters, expected 5"), ("AC1EF", "sequence 1, site 3: '1'")):
        with pytest.raises(InputError, match=rf"file: \S+more.fasta: {message}"):
            data.encode_file(written(tmp_path, [row], "more.fasta"))


BAD = {
    "unequal": (["ACDEF", "ACDEF", "ACDE"], {}, "record 3, 'r3 of a family', has 4 columns, most have 5"),
    "one": (["ACDEF"], {}, "holds one sequence, at least three are needed"),
    "digit": (["ACDEF", "AC1EF", "ACDEF"], {}, "record 'r2 of a family', column 3: '1' is not in the alphabet"),
    "gaps": (["---", "---", "---"], {}, "there is no letter among the gaps"),
    "letters": (["BJOZ", "ZOJB", "OZBJ"], {}, "the letters BJOZ are of no known alphabet"),
    "wrong alphabet": (["MKLW"] * 3, {"alphabet": "dna"}, "100% of the letters are not in the alphabet -ACGT"),
    "nothing left": (["A-", "A-", "-A"], {"max_gaps": 0.1}, "0 sequences of 2 columns are left"),
    "reference": (ROWS, {"reference": "r11"}, "has no record 'r11', which data.reference names"),
    "merged": (["ACDEF", "ACDEF", "ACDEW"], {"duplicates": "merge"}, "2 different sequences are left of 3 in"),
    "weights": (ROWS, {"weights": "file"}, "has no weights of its own"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, settings, message = BAD[case]
    args = [written(tmp_path, rows), *(f"--data.{key}={value}" for key, value in settings.items())]
    line = fails(fit.main, args, capsys)
    assert message in line
    assert "my.fasta" in line


def test_a_family_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    codes = RNG.integers(0, 3, (9, 4))
    np.savez(tmp_path / "fam.npz", msa=codes, alphabet="-AC", dist_cb=np.ones((4, 4)))
    data = Alignment("~/fam.npz")
    assert data.space == Categorical(4, 3)
    assert data.distances is not None


@pytest.mark.parametrize(
    "settings",
    [{"unknown": "x"}, {"weights": "x"}, {"split": "x"}, {"duplicates": "x"}, {"identity": 0}, {"cluster_identity": 2},
     {"max_gaps": -1}, {"alphabet": "A"}, {"alphabet": "AA"}, {"alphabet": "A B"}, {"held_out": 0.6}],
)  # fmt: skip
def test_settings_that_do_not_fit(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Alignment(written(tmp_path, ROWS), **settings)


# -- weights and clusters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num", "num_sites", "num_categories"), [(300, 150, 21), (200, 64, 2), (90, 63, 5), (150, 401, 30), (40, 1, 3)]
)
@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_counts_and_clusters_are_those_of_all_pairs(
    num: int, num_sites: int, num_categories: int, share: float
) -> None:
    """A mutant that uses > in place of >=, or forgets a bit or a word, fails here."""
    codes = family(num, num_sites, num_categories, ancestors=9, change=0.25)
    alike = (codes[:, None] == codes).sum(2) >= share * num_sites - 1e-9
    found = compare(codes, near=share, linked=share)
    assert np.array_equal(found.counts, alike.sum(1))
    reached = np.linalg.matrix_power(alike.astype(float), num).astype(bool) if num < 100 else alike
    same = found.clusters[:, None] == found.clusters
    assert not (reached & ~same).any(), "linked sequences are of one cluster"
    if num < 100:
        assert np.array_equal(same, reached), "and no others"


def test_exact_shares_count() -> None:
    assert most_differences(150, 0.8) == 30
    assert most_differences(10, 0.7) == 3
    assert most_differences(7, 1.0) == 0


def test_many_links_become_a_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = family(200, 40, 4, ancestors=5, change=0.1)
    before = compare(codes, near=0.8, linked=0.8)
    monkeypatch.setattr(identity, "MAX_LINKS", 50)
    after = compare(codes, near=0.8, linked=0.8)
    assert np.array_equal(before.clusters, after.clusters)
    assert len(set(before.clusters)) == 5


def test_the_bar_counts_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    @contextmanager
    def watched(_: object, __: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: seen.append((done, total))

    monkeypatch.setattr(identity, "track", watched)
    monkeypatch.setattr(identity, "BLOCK", 20)
    compare(family(50, 20, 4, ancestors=3, change=0.2), near=0.8, linked=0.9)
    assert max(seen) == (50 * 49 // 2, 50 * 49 // 2)


def test_comparisons_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(identity, "MANY", 10)
    codes = family(50, 20, 4, ancestors=3, change=0.2)
    first = compare(codes, near=0.8, linked=0.9)
    kept = list(tmp_path.rglob("alike-*.npz"))
    assert len(kept) == 1
    monkeypatch.setattr(identity, "_compared", lambda *_: pytest.fail("it was kept"))
    assert np.array_equal(compare(codes, near=0.8, linked=0.9).counts, first.counts)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(identity, "MANY", 10)
    kept[0].write_bytes(b"torn")
    assert np.array_equal(compare(codes, near=0.8, linked=0.9).clusters, first.clusters)
    compare(codes, near=0.7, linked=0.9)
    compare(codes[::-1], near=0.8, linked=0.9)
    assert len(list(tmp_path.rglob("alike-*.npz"))) == 3


def test_weights_of_real_families(shared_data: Path) -> None:
    path = str(shared_data / "family_DHFR.npz")
    own, file = Alignment(path, weights="identity"), Alignment(path)
    for (_, mine), (_, theirs) in zip(own.splits.parts.values(), file.splits.parts.values(), strict=True):
        assert mine is not None
        assert theirs is not None
        assert torch.allclose(mine, theirs, atol=1e-6)
    rna = Alignment(str(shared_data / "rf00379.fasta.gz"))
    assert rna.space == Categorical(136, 5)
    total = sum(float(weights.sum()) for _, weights in rna.splits.parts.values() if weights is not None)
    assert abs(total - 1447) < 2


def test_merged_duplicates_are_the_same_data(tmp_path: Path) -> None:
    path = written(tmp_path, [*ROWS, *ROWS[:2], "ACDEF"])
    for weights in ("identity", "none"):
        data, merged = Alignment(path, weights=weights), Alignment(path, weights=weights, duplicates="merge")
        assert all_text(merged) == sorted(ROWS)
        counts = [torch.zeros(5, 21), torch.zeros(5, 21)]
        for count, which in zip(counts, (data, merged), strict=True):
            for points, own in which.splits.parts.values():
                one_hot = torch.nn.functional.one_hot(points.long(), 21)
                count += (one_hot * (torch.ones(len(points)) if own is None else own)[:, None, None]).sum(0)
        assert torch.allclose(counts[0], counts[1])


# -- what is held out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["rf00379.fasta.gz", "family_DHFR.npz", "chorismate_mutase.fasta.gz"])
def test_nothing_held_out_is_alike_to_training(file: str, shared_data: Path) -> None:
    """A split by rows fails here: a third of its test sequences have a relative in training."""
    data = Alignment(str(shared_data / file))
    train, validation, test = (part.numpy() for part in data.splits)
    total = len(train) + len(validation) + len(test)
    for part in (validation, test):
        assert abs(len(part) / total - 0.1) < 0.005
        nearest = np.array([(train == row).mean(1).max() for row in part[:80]])
        assert nearest.max() < 0.8
    assert np.array([(validation == row).mean(1).max() for row in test[:80]]).max() < 0.8
    again = Alignment(str(shared_data / file))
    assert torch.equal(again.splits.test, data.splits.test)
    assert [len(names) for names in data.names.values()] == [len(train), len(validation), len(test)]


def test_names_stay_with_their_sequences(tmp_path: Path) -> None:
    codes = family(60, 12, 20, ancestors=30, change=0.05)
    rows = ["".join("ACDEFGHIKLMNPQRSTVWY"[code] for code in row) for row in codes]
    cases: list[dict] = [{}, {"split": "rows"}, {"duplicates": "merge"}, {"split": "rows", "duplicates": "merge"}]
    for settings in cases:
        data = Alignment(written(tmp_path, rows), **settings)
        for part, points in zip(("train", "validation", "test"), data.splits, strict=True):
            numbers = [int(name.split()[0][1:]) - 1 for name in data.names[part]]
            assert [rows[number] for number in numbers] == data.text_of(points)


def test_one_cluster_of_nearly_everything_is_said(tmp_path: Path) -> None:
    near = family(100, 40, 20, ancestors=1, change=0.14)  # each about .75 alike, and all hang together at .8
    rows = ["".join("ACDEFGHIKLMNPQRSTVWY"[code] for code in row) for row in near]
    data = Alignment(written(tmp_path, rows), cluster_identity=0.7)
    assert [len(part) for part in data.splits] == [80, 10, 10]
    assert "clusters at 70% identity, the largest of" in data.notes[-2]
    assert "of 100 sequences: too large to be held out" in data.notes[-2]
    assert "held out by homology" in data.notes[-1]
    data = Alignment(written(tmp_path, [*["ACDEF"] * 60, *["MCDEF"] * 60]))
    assert [len(part) for part in data.splits] == [96, 12, 12]
    assert "single sequences are held out" in describe(data)[-1]


def test_a_run_of_an_alignment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = family(200, 10, 4, ancestors=60, change=0.3)
    path = written(tmp_path, ["".join("ACGU"[code] for code in row) for row in codes])
    run = tmp_path / "run"
    fit.main([path, "--trainer.max_steps=3", f"--run_dir={run}", "--evaluation.every=0", "--quiet"])
    assert f"path: {path}" in (run / "config.yaml").read_text()
    sample.main([str(run), "--num=5", "--num_steps=2", "--checkpoint=last", f"--out={tmp_path / 's.fasta'}"])
    with np.load(tmp_path / "s.npz") as file:
        drawn = torch.from_numpy(file["x"])
    assert read_sequences(tmp_path / "s.fasta").strings == Alignment(path).text_of(drawn)
    line = fails(sample.main, [str(run), "--checkpoint=last", "--out=s.txt"], capsys)
    assert "out must end in .npz or .fasta, got s.txt" in line
