"""The benchmark of the defaults: what it runs, what it leaves out, and what it says of a run."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from gwg_dist import bench
from gwg_dist.bench import recipe
from gwg_dist.training.settings import build_parser
from tests.support.runs import fails


def test_a_very_short_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    bench.main(["--only=recipe", "--minutes=0.05", "--sets=digits threshold, DNA", f"--out={out}",
                f"--runs={tmp_path}/runs", "--seeds=[3]", f"--data_dir={tmp_path}"])  # fmt: skip
    printed = capsys.readouterr().err
    assert f"DNA is left out: there is no dna_mlbench.npz in {tmp_path}" in printed
    (row,) = json.loads(out.read_text())["recipe"]
    assert row["exit_code"] == 0, (tmp_path / "runs/digits_threshold-3.log").read_text()
    assert (row["name"], row["seed"], row["energy"]) == ("digits threshold", 3, "RBMEnergy")
    assert abs(row["reference"] + 25.57) < 0.1
    assert row["command"] == "python -m gwg_dist.fit --data=Digits --seed=3 --max_minutes=0.05"
    assert "digits threshold" in printed


def test_every_set_is_settings_of_the_data_alone() -> None:
    parser = build_parser()
    defaults = parser.parse_args([]).as_dict()
    for data in recipe.SETS:
        args = [arg.format(path="points.npz", folder="data") for arg in data.args]
        config = parser.parse_args(args).as_dict()
        assert [key for key in config if key != "data" and config[key] != defaults[key]] == [], data.name


def test_files_become_integers(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "rna.fasta.gz", "wt") as file:
        file.write(">one\nAC-\nGu\n>two\nACG\nUN\n")
    assert recipe.rna(tmp_path / "rna.fasta.gz").tolist() == [[1, 2, 0, 3, 4], [1, 2, 3, 4, 0]]
    np.savez(tmp_path / "grey.npz", x=np.array([[0, 127, 128, 255]], dtype=np.uint8))
    assert recipe.halves(tmp_path / "grey.npz").tolist() == [[0, 0, 1, 1]]
    assert recipe.sixteen_levels(tmp_path / "grey.npz").tolist() == [[0, 7, 8, 15]]


def test_a_run_that_failed_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(
        "iteration 9: away. Going on from the state of iteration 0 with\nerror: diverged\n"
    )
    found = recipe.outcome("name", 0, tmp_path / "run", 1.0, 3, "command")
    assert (found.verdict, found.returned, found.test) == ("diverged", 1, None)
    recipe.outcome_table([found._asdict()], title="")


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, expected in (
        (["--minutes=0"], "minutes must be positive, got 0.0"),
        (["--sets=nothing"], "sets: none of digits threshold, "),
    ):
        args = ["--only=recipe", f"--out={tmp_path}/b.json", f"--runs={tmp_path}/runs", *args]
        assert expected in fails(bench.main, args, capsys)
    assert list(tmp_path.iterdir()) == []
