"""The files that a contributor copies: each passes its own check, a spoilt one does not, and a run takes them all."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gwg_dist.testing import CheckError
from tests.conftest import ROOT
from tests.support.runs import SMALL

TEMPLATES = ROOT / "templates"
CHECKS = {
    "sampler": "MySampler leaves its target invariant",
    "energy": "MyEnergy is an energy on Categorical",
    "loss": "MyLoss has the gradient of the negative log-likelihood",
    "data": "Binary((16,)) [2000, 500, 500]",
}
SPOILT = {
    "sampler": ("-math.log(target.space.num_sites)", "-math.log(target.space.num_sites + 1)", "sums to"),
    "energy": ("square().sum(1)", "square().sum(1) + x.mean()", "depends on the other points of the batch"),
    "loss": ("- energy_model.mean()", "- 0.9 * energy_model.mean()", "the gradient in"),
    "data": ("remainder(2)", "remainder(3)", "must lie in 0..1"),
}


def python(*args: str, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=cwd, env=environment)


def test_every_template_is_tested() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.py")} == {*CHECKS, "verb"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_template_passes_its_check(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(TEMPLATES / f"{name}.py"), run_name="__main__")
    assert CHECKS[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_template_does_not(name: str, tmp_path: Path) -> None:
    right, wrong, message = SPOILT[name]
    text = (TEMPLATES / f"{name}.py").read_text()
    assert text.count(right) == 1
    (tmp_path / "spoilt.py").write_text(text.replace(right, wrong))
    with pytest.raises((CheckError, ValueError), match=message):
        runpy.run_path(str(tmp_path / "spoilt.py"), run_name="__main__")


def test_a_sampler_that_forgets_the_sizes_of_sites_is_told_so(tmp_path: Path) -> None:
    text = (TEMPLATES / "sampler.py").read_text()
    right = "(target.space.sizes, device=site.device)[site] - 1"
    assert text.count(right) == 1
    wrong = "([target.space.num_categories], device=site.device).expand(len(site)) - 1"
    (tmp_path / "spoilt.py").write_text(text.replace(right, wrong))
    with pytest.raises(CheckError, match="sites of different sizes at beta = 0: propose leaves the space"):
        runpy.run_path(str(tmp_path / "spoilt.py"), run_name="__main__")


def test_the_command_line_takes_all_of_them(tmp_path: Path) -> None:
    args = ["-m", "gwg_dist.fit", *(arg for arg in SMALL if not arg.startswith("--model.energy"))]
    args += ["--model.energy=energy.MyEnergy", "--model.energy.width=4", "--model.sampler=sampler.MySampler"]
    args += ["--model.objective=loss.MyLoss", "--data=data.MyData", "--data.num_sites=9"]
    done = python(*args, "--trainer.max_steps=2", f"--run_dir={tmp_path}/run", cwd=TEMPLATES)
    assert done.returncode == 0, done.stderr
    config = (tmp_path / "run/config.yaml").read_text()
    assert "class_path: energy.MyEnergy" in config
    assert "width: 4" in config


@pytest.mark.slow
def test_a_verb_is_its_file_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gwg_dist", tmp_path / "gwg_dist", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(TEMPLATES / "verb.py", tmp_path / "gwg_dist/count.py")
    np.savez(tmp_path / "my.npz", x=np.array([[0, 1], [0, 1], [1, 1]] * 10))
    shown = python("-m", "gwg_dist", "--help", cwd=tmp_path, path=tmp_path)
    assert "  count     Count the different points of a data file." in shown.stdout
    done = python("-m", "gwg_dist", "count", "my.npz", "--show=1", cwd=tmp_path, path=tmp_path)
    assert done.stdout.startswith("24 points, 2 different\n"), done.stderr
    assert done.stdout.splitlines()[1].endswith("times [0, 1]")
    for mistake, message in (("--shwo=1", "did you mean show?"), ("--show=-1", "show must not be negative, got -1")):
        wrong = python("-m", "gwg_dist", "count", "my.npz", mistake, cwd=tmp_path, path=tmp_path)
        assert wrong.returncode == 2
        assert message in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1
