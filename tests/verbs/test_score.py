"""``gwg_dist score``: the numbers of the exact model, its log Z by name, mutations beside measurements, mistakes."""

import csv
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from gwg_dist import evaluate, score
from gwg_dist.data import Alignment
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.tools.errors import InputError
from gwg_dist.training.loading import load_run
from gwg_dist.training.measurements import rank_correlation, read_measurements
from gwg_dist.training.scoring import chosen_point, fresh_file, mutation_rows, points_of
from tests.support.runs import SMALL, fails, run_fit

CODES = np.random.default_rng(0).integers(0, 3, (90, 5))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Potts model, trained for a moment; its files of points are beside it."""
    folder = tmp_path_factory.mktemp("score")
    np.savez(folder / "my.npz", x=CODES)
    np.savez(folder / "points.npz", x=CODES[:7])
    few = [arg for arg in SMALL if "energy" not in arg]
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_fit(folder / "run", "my.npz", *few, "--model.energy=PottsEnergy", "--trainer.max_steps=30", "--quiet")
    finally:
        os.chdir(before)
    return folder / "run"


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_the_exact_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score.main([str(run), str(run.parent / "points.npz"), f"--out={tmp_path / 's.csv'}", "--checkpoint=last"])
    target = load_run(run, "last").module.target
    log_prob, _ = exact_log_prob(target)
    at = CODES[:7] @ 3 ** np.arange(4, -1, -1)
    found = rows(tmp_path / "s.csv")
    assert [row["name"] for row in found] == [str(n) for n in range(1, 8)]
    assert [float(row["log_likelihood"]) for row in found] == pytest.approx(log_prob[at].tolist(), abs=1e-4)
    assert {row["stderr"] for row in found} == {"0"}
    assert "exact, by enumeration" in capsys.readouterr().err
    line = fails(score.main, [str(run), str(run.parent / "points.npz"), f"--out={tmp_path / 's.csv'}"], capsys)
    assert "nothing is overwritten" in line


def test_log_z_is_that_of_the_newest_estimate_of_these_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwg_dist.training.log_z.FEW_STATES", 0)
    here = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(here / "evaluation", ignore_errors=True)
    args = [str(here), "test", "--checkpoint=last"]
    evaluate.main(
        [str(here), "--checkpoint=last", "--num_chains=10", "--num_temperatures=20", f"--out={here}/evaluation/e.json"]
    )
    values = json.loads((here / "evaluation/e.json").read_text())
    del values["exact"]
    values["sides"] |= {"log_z": 2.5, "stderr": 0.5}
    (here / "evaluation/e.json").write_text(json.dumps(values))
    score.main([*args, f"--out={tmp_path / 'sides.csv'}"])
    assert "2.50 ± 0.50: from both sides, in" in capsys.readouterr().err
    del values["sides"]
    values["ais"] |= {"log_z": 1.5, "stderr": 0.1, "interval": [1.2, 1.99]}
    (here / "evaluation/e.json").write_text(json.dumps(values))
    score.main([*args, f"--out={tmp_path / 'a.csv'}"])
    assert "1.50 ± 0.25: the estimate in" in capsys.readouterr().err
    first = rows(tmp_path / "a.csv")[0]
    expected = float(first["log_reference"]) - float(first["energy"]) - 1.5
    assert float(first["log_likelihood"]) == pytest.approx(expected)
    assert float(first["stderr"]) == pytest.approx(0.25), "by the interval, not by the delta method"
    for path in [*here.glob("evaluation/*.json"), here / "results.json"]:
        path.write_text(json.dumps(values | {"iteration": 7}))  # of other weights
    score.main([*args, f"--out={tmp_path / 'b.csv'}"])
    assert "numbers are not normalised" in capsys.readouterr().err
    assert "log_likelihood" not in rows(tmp_path / "b.csv")[0]


def test_mutations_and_measurements(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points, out = str(run.parent / "points.npz"), tmp_path / "m.csv"
    target = load_run(run, "best").module.target
    log_prob, _ = exact_log_prob(target)
    wild = CODES[2]
    lines, expected = ["mutant,DMS_score"], []
    for site, to, value in ((1, 0, 0.5), (2, 1, -1.0), (4, 2, 0.1), (5, 0, 2.0), (3, 2, 0.0)):
        other = wild.copy()
        other[[site - 1, 0]] = [to, 1]  # two sites at once
        lines.append(f"{wild[site - 1]}{site + 20}{to}:{wild[0]}21{1},{value}")
        expected.append((log_prob[other @ 3 ** np.arange(4, -1, -1)], value))
    (tmp_path / "dms.csv").write_text("\n".join(lines) + "\n")
    score.main(
        [
            str(run),
            points,
            "--mutations",
            "--reference=3",
            f"--out={out}",
            "--offset=20",
            f"--measurements={tmp_path / 'dms.csv'}",
        ]
    )
    found = rows(out)
    assert len(found) == 5 * 2
    for row in found:
        other = wild.copy()
        assert int(row["from"]) == wild[int(row["site"]) - 1]
        other[int(row["site"]) - 1] = int(row["to"])
        both = [log_prob[code @ 3 ** np.arange(4, -1, -1)] for code in (other, wild)]
        assert float(row["log_ratio"]) == pytest.approx(float(both[0] - both[1]), abs=1e-4)
    assert out.with_suffix(".png").is_file()
    rho = spearmanr([float(a) for a, _ in expected], [b for _, b in expected])[0]
    assert f"Spearman correlation with 5 measurements: {rho:.3f}" in capsys.readouterr().err


def test_measurements_without_a_finite_value_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dms.csv"
    path.write_text("mutation,value\nA1C,1\nA2C,NaN\nA3C,\nA4C,-inf\nA5C,2\nA6C,3\n")
    assert [each.value for each in read_measurements(path)] == [1.0, 2.0, 3.0]
    assert "3 rows of" in capsys.readouterr().err
    path.write_bytes("mutation,value\nA1C,1\u00e9\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not text in UTF-8"):
        read_measurements(path)


def test_a_picture_is_not_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.png").write_text("mine")
    args = [str(run), str(run.parent / "points.npz"), "--mutations", f"--out={tmp_path / 'm.csv'}"]
    assert "m.png exists already" in fails(score.main, args, capsys)
    assert (tmp_path / "m.png").read_text() == "mine"
    assert fresh_file(None, tmp_path, "m", ".csv", beside=".png") == tmp_path / "m-2.csv"
    assert fresh_file(None, tmp_path, "m", ".csv") == tmp_path / "m.csv"


def test_points_have_the_names_of_the_data(tmp_path: Path) -> None:
    lines = [f">DYR_{n} of {n}\n{'ACDE'[n % 4]}{'ACD'[n % 3]}{'AC'[n % 2]}{'ACDEF'[n % 5]}K\n" for n in range(40)]
    (tmp_path / "my.fasta").write_text("".join(lines))
    data = Alignment(str(tmp_path / "my.fasta"), split="rows", batch_size=1)
    codes, names = points_of(data, "train")
    assert names == data.names["train"]
    row = int(names[3].split()[-1])
    assert (
        chosen_point(names, f"DYR_{row}") == chosen_point(names, f"DYR_{row} of {row}") == chosen_point(names, "4") == 3
    )
    assert data.text_of(codes[3:4]) == [lines[row].split("\n")[1]]


def test_rank_correlation_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator)
    b = (a + b).round()  # with ties
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b)[0], abs=1e-6)
    assert math.isnan(rank_correlation(a, torch.ones(50)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "needs a column value or"),
        ("mutation,value\n091,1\n091,2\n091,3\n", "there is no site 9"),
        ("mutation,value\n019,1\n019,2\n019,3\n", "'9' is no category of site 1"),
        ("mutation,value\nA,1\n", "line 2: 'A' is no mutation such as A24G"),
        ("mutation,value\n011,x\n", "line 2: 'x' is no number"),
        ("mutation,value\n011,nan\n011,inf\n011,1\n", "holds 1 measurements"),
        ("site,from,to,value\n1,7,0,1\n1,7,0,1\n1,7,0,1\n", "the reference has"),
        ("mutation,value\n", "holds 0 measurements"),
    ],
)
def test_strange_measurements_are_named(
    text: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dms.csv").write_text(text)
    args = [str(run), str(run.parent / "points.npz"), "--mutations", f"--measurements={tmp_path / 'dms.csv'}"]
    assert message in fails(score.main, args, capsys)


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = str(run.parent / "points.npz")
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 6), int))
    np.savez(tmp_path / "high.npz", x=np.full((3, 5), 3))
    (tmp_path / "empty").mkdir()
    shutil.copyfile(run / "config.yaml", tmp_path / "empty/config.yaml")
    for args, message in (
        ([str(run), str(tmp_path / "wide.npz")], "with 5 numbers a point"),
        ([str(run), str(tmp_path / "high.npz")], "point 1, site 1 is 3, expected an integer from 0 to 2"),
        ([str(run), points, "--out=x.json"], "out must end in .csv"),
        ([str(run), points, "--mutations", "--reference=9"], "no number from 1 to 7"),
        ([str(run), points, "--measurements=x.csv"], "add --mutations"),
        ([str(run), "nothing.npz"], "there is no file nothing.npz"),
        ([str(tmp_path / "empty"), points], "there is no checkpoint"),
    ):
        assert message in fails(score.main, args, capsys)


def test_the_last_weights_stand_in_for_the_best(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A short run of a hard model has no estimate that could be trusted, and so no best weights."""
    here = shutil.copytree(run, tmp_path / "run")
    (here / "best.ckpt").unlink(missing_ok=True)
    points = str(run.parent / "points.npz")
    score.main([str(here), points, f"--out={tmp_path / 'best.csv'}"])
    assert "has no best.ckpt" in capsys.readouterr().err
    score.main([str(here), points, f"--out={tmp_path / 'last.csv'}", "--checkpoint=last"])
    assert (tmp_path / "best.csv").read_text() == (tmp_path / "last.csv").read_text()


def test_a_run_whose_data_are_gone_still_scores_codes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "run"
    shutil.copytree(run, here)
    config = (here / "config.yaml").read_text()
    (here / "config.yaml").write_text(config.replace(str(run.parent / "my.npz"), str(tmp_path / "gone.npz")))
    score.main([str(here), str(run.parent / "points.npz")])
    assert (here / "scores-points.csv").is_file()
    assert "points are read and written as codes" in capsys.readouterr().err
    score.main([str(here), str(run.parent / "points.npz")])
    assert (here / "scores-points-2.csv").is_file()


def test_names_of_categories_are_those_of_the_data() -> None:
    changes = torch.zeros(2, 3)
    found = list(mutation_rows(changes, torch.tensor([0, 2]), ["p", "q"], [list("ACG"), list("ACG")]))
    assert [row[:3] for row in found] == [("p", "A", "C"), ("p", "A", "G"), ("q", "G", "A"), ("q", "G", "C")]
