"""``gwg_dist couplings``: what it writes is the model's, with and without distances, and its mistakes are one line."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import couplings
from gwg_dist.evaluation.contacts import pair_model
from gwg_dist.runs import load_run
from tests.support.runs import SMALL, fails, run_fit

SITES = 9


@pytest.fixture(scope="module")
def potts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("potts")
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(3, (200, SITES), generator=generator, dtype=torch.uint8)
    codes[:, 8] = codes[:, 0]
    np.save(folder / "x.npy", codes.numpy())
    distances = np.full((SITES, SITES), 20.0)
    distances[0, 8] = distances[8, 0] = 4.0
    np.save(folder / "distances.npy", distances)
    small = [option for option in SMALL if "RBM" not in option and "num_hidden" not in option]
    run_fit(folder / "run", f"{folder}/x.npy", *small, "--model.energy=PottsEnergy", "--trainer.max_steps=60",
            "--model.learning_rate=0.03")  # fmt: skip
    return folder


def test_the_files_hold_the_models_couplings(potts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    couplings.main([str(potts / "run"), f"--distances={potts}/distances.npy", "--checkpoint=last", "--device=cpu"])
    printed = capsys.readouterr().err
    (path,) = (potts / "run" / "couplings").glob("*.npz")
    found = np.load(path)
    module = load_run(potts / "run", "last", device="cpu").module
    rows, slope, constant = module.energy.double().structure()  # pyright: ignore[reportGeneralTypeIssues]
    right = pair_model(rows, slope + module.reference.probs.log().flatten(), constant, 3).zero_sum()
    assert np.allclose(found["couplings"], right.couplings, atol=1e-5)
    assert np.allclose(found["fields"], right.fields, atol=1e-5)
    table = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert [(row["i"], row["j"]) for row in table[:1]] == [("1", "9")], "the two sites that are the same come first"
    assert table[0]["distance"] == "4"
    assert len(table) == 6  # pairs six or more apart
    assert "1 contacts (< 8 Å) 6 or more" in printed
    assert "mean field" in printed
    if pytest.importorskip("matplotlib"):
        assert path.with_suffix(".png").read_bytes()[1:4] == b"PNG"


def test_models_without_pairs_have_effective_couplings(tmp_path: Path) -> None:
    run = run_fit(tmp_path / "run", "--data=IsingSamples", "--data.shape=[3,3]", "--data.num_train=100",
                  "--data.num_steps=10", "--trainer.max_steps=2")  # fmt: skip
    path = couplings.couplings(str(run), checkpoint="last", device="cpu", num_points=2)
    found = np.load(path)
    assert found["couplings"].shape == (9, 9)
    assert np.allclose(found["scores"], np.abs(found["couplings"]))
    assert "fields" not in found
    assert len(path.with_suffix(".csv").read_text().splitlines()) == 1 + 36


def pairs_of(path: Path) -> list[tuple[str, str]]:
    return [(row["i"], row["j"]) for row in csv.DictReader(path.with_suffix(".csv").open())]


@pytest.fixture(scope="module")
def few() -> list[str]:
    small = [option for option in SMALL if "RBM" not in option and "num_hidden" not in option]
    return [*small, "--model.energy=PottsEnergy", "--trainer.max_steps=2"]


def test_pairs_of_a_table_have_its_names_and_neighbours_are_ranked(tmp_path: Path, few: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(3, (200, 4), generator=generator).tolist()
    words = "".join(",".join("abc"[code] for code in row) + "\n" for row in rows)
    (tmp_path / "x.csv").write_text("leaf,stem,root,seed\n" + words)
    run = run_fit(tmp_path / "run", f"{tmp_path}/x.csv", *few)
    found = pairs_of(couplings.couplings(str(run), checkpoint="last", device="cpu"))
    assert {frozenset(pair) for pair in found} >= {frozenset(("leaf", "stem")), frozenset(("root", "seed"))}
    assert len(found) == 6


def test_pairs_of_an_alignment_are_counted_in_columns_and_know_its_gap(tmp_path: Path, few: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(20, (200, 5), generator=generator).tolist()
    rows = ["".join("ACDEFGHIKLMNPQRSTVWY"[code] for code in row) for row in letters]
    text = "".join(f">r{number}\n{row[:2]}---{row[2:]}\n" for number, row in enumerate(rows))
    (tmp_path / "x.fasta").write_text(text)
    run = run_fit(tmp_path / "run", f"{tmp_path}/x.fasta", *few, "--data.max_column_gaps=0.5", "--data.split=rows")
    found = pairs_of(couplings.couplings(str(run), checkpoint="last", device="cpu"))
    assert set(found) == {("1", "7"), ("1", "8"), ("2", "8")}, "six or more columns apart"
    (tmp_path / "x.fasta").rename(tmp_path / "moved.fasta")
    again = couplings.couplings(str(run), checkpoint="last", device="cpu", out=str(tmp_path / "again"))
    assert pairs_of(again) == found, "the checkpoint keeps the letters, and so the gap"


@pytest.mark.parametrize(("options", "message"), [
    (["--gap=3"], "gap must be a category from 0 to 2, got 3"),
    (["--min_separation=9"], "min_separation must lie in 1 to 8, got 9"),
    (["--num_points=0"], "num_points must be positive"),
    (["--cutoff=0"], "cutoff must be positive"),
    (["--kind=ca"], "kind must be one of cb, heavy, got 'ca'"),
    (["--kind=heavy"], "kind says how a file of distances is read: give --distances too, got 'heavy'"),
    (["--chain=A"], "chain says how a file of distances is read"),
    (["--sequence=ACD"], "sequence says how a file of distances is read"),
    (["--distances=nowhere.npz"], "nowhere.npz"),
    (["--distances={}/x.npy"], "must hold 9x9 distances"),
    (["--out={}/run/couplings"], "is there already"),
])  # fmt: skip
def test_mistakes(potts: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    couplings.couplings(str(potts / "run"), checkpoint="last", device="cpu")
    options = [option.format(potts) for option in options]
    assert message in fails(couplings.main, [str(potts / "run"), "--checkpoint=last", *options], capsys)
