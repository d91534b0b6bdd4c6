"""Runs from Python: the notebook runs, scores are those of the exact model, mistakes are named."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import evaluate
from gwg_dist import fit as verb
from gwg_dist.evaluation import exact_log_z
from gwg_dist.runs import estimate_log_z, fit, load_run, score
from gwg_dist.tools.errors import InputError
from tests.conftest import ROOT
from tests.support.runs import SMALL, fails, run_fit


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder in which the notebook has run, cell by cell, and the names that it leaves."""
    folder, before = tmp_path_factory.mktemp("notebook"), Path.cwd()
    cells = json.loads((ROOT / "examples/own_data.ipynb").read_text())["cells"]
    names: dict = {}
    os.chdir(folder)
    try:
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    finally:
        os.chdir(before)
    return folder, names


def test_the_notebook_finds_what_the_data_are(notebook: tuple[Path, dict]) -> None:
    folder, names = notebook
    assert json.loads((folder / "runs/mine/results.json").read_text())["verdict"]["kind"] == "better"
    assert float(score(names["run"], names["odd"], names["log_z"]).log_likelihood) < float(
        names["scores"].log_likelihood.mean()
    )


def test_scores_are_those_of_the_exact_model(notebook: tuple[Path, dict]) -> None:
    run = load_run(notebook[0] / "runs/mine")
    everything = run.module.space.all_codes()
    log_z = estimate_log_z(run, num_chains=200, num_temperatures=300)
    scores = score(run, everything, log_z)
    total = float(torch.logsumexp(scores.log_likelihood, 0))
    assert abs(total - (exact_log_z(run.module.target) - log_z.log_z)) < 1e-4
    assert abs(total) < 5 * scores.stderr + 0.02
    assert scores.stderr == log_z.stderr
    torch.testing.assert_close(scores.energies.float(), -run.module.target.f(run.module.target.encode(everything)),
                               rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("points", [np.zeros((2, 5), int), np.full((2, 12), 7), np.zeros((2, 12)), np.zeros(12, int)])
def test_points_of_another_kind_are_refused(points: np.ndarray, notebook: tuple[Path, dict]) -> None:
    with pytest.raises(InputError, match="points"):
        score(notebook[1]["run"], points, notebook[1]["log_z"])


def test_settings_that_are_wrong_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"did you mean model.learning_rate"):
        fit({"model.lr": 3})
    with pytest.raises(InputError, match="seed must lie in"):
        fit(seed=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_says_what_changed(
    notebook: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(notebook[0] / "runs/mine", tmp_path / "run")
    few = [arg for arg in SMALL if arg.startswith("--evaluation")]
    verb.main(["--resume", str(tmp_path / "run"), "--trainer.max_steps=301", "--model.learning_rate=0.01", *few])
    printed = capsys.readouterr().err
    assert "model.learning_rate is 0.01 from here on, it was 0.02" in printed
    assert "trainer.max_steps is 301 from here on, it was 300" in printed
    assert "model.energy" not in printed.split("chains:")[0]


def test_evaluate_prints_json_and_nothing_else(notebook: tuple[Path, dict], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    evaluate.main([str(notebook[0] / "runs/mine"), "--json", "--num_chains=20", "--num_temperatures=50"])
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"]["kind"] in ("better", "unknown")
    assert math.isfinite(found["bits_per_dim"]["test"])


@pytest.mark.parametrize("main", ["fit", "evaluate", "sample", "bench.cli", "launch", "doctor", "tune.cli"])
def test_every_verb_says_its_version(main: str, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    with pytest.raises(SystemExit) as exit_info:
        importlib.import_module(f"gwg_dist.{main}").main(["--version"])
    assert exit_info.value.code == 0
    assert "gwg_dist 0." in capsys.readouterr().out


def test_own_loggers_stand_beside_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its folder."""
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_steps=2", "--pictures_every=0", "--trainer.log_every_n_steps=1"]
    run_fit(Path("run"), *few, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=mine")
    assert list(tmp_path.glob("run/metrics/*/metrics.csv"))
    assert list(tmp_path.glob("run/mine/**/metrics.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_quiet_and_a_log_file(
    notebook: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but errors; or the same lines in a file. The settings of the run know nothing of it."""
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_steps=2", "--pictures_every=0"]
    capsys.readouterr()
    run_fit(Path("quiet"), *few, "--quiet")
    assert capsys.readouterr() == ("", "")
    run_fit(Path("logged"), *few, "--log_file=log.txt")
    assert capsys.readouterr().err == ""
    assert "verdict:" in Path("log.txt").read_text()
    evaluate.main(["logged", "--num_chains=4", "--num_temperatures=4", "--quiet"])
    assert capsys.readouterr().err == ""
    assert "seed must lie in" in fails(verb.main, ["--quiet", "--seed=-1"], capsys)
    assert "log_file: none/log.txt cannot be written" in fails(verb.main, ["--log_file=none/log.txt"], capsys)
    assert "log_file" not in Path("logged/config.yaml").read_text()
