"""Job scripts: what they say, and what is refused."""

import os
import subprocess
from pathlib import Path

import pytest

from gwg_dist import launch
from gwg_dist.tools.provenance import code_version
from tests.conftest import ROOT
from tests.support.runs import SMALL, fails


@pytest.mark.parametrize(
    "path", [*(ROOT / "launch").rglob("*.sh"), *(ROOT / "launch").rglob("*.sbatch")], ids=lambda p: p.name
)
def test_scripts_are_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK) or path.suffix == ".sbatch"


def options_of(path: Path) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launch.main(
        ["--nodes=2", "--gpus=4", "--partition=a100", "--time=2-00:00:00", "--setup=module load cuda", "--submit=false",
         "--container=apptainer exec --nv image.sif", "--", *SMALL, "--run_dir=run", "--model.num_steps=7"]
    )  # fmt: skip
    options = options_of(tmp_path / "run/job.sbatch")
    assert options == {
        "job-name": "gwg_dist", "nodes": "2", "ntasks-per-node": "4", "gres": "gpu:4", "cpus-per-task": "4",
        "time": "2-00:00:00", "signal": "SIGUSR1@90", "partition": "a100", "output": "run/slurm-%j.out",
        "chdir": str(tmp_path), "requeue": "", "open-mode": "append",
    }  # fmt: skip
    text = (tmp_path / "run/job.sbatch").read_text()
    assert "apptainer exec --nv image.sif python -m gwg_dist.fit --config=run/launched.yaml --run_dir=" in text
    assert text.index("module load cuda") < text.index("set -u") < text.index("srun ")
    assert f"# {code_version()}; fit --model.energy=RBMEnergy" in text
    settings = (tmp_path / "run/launched.yaml").read_text()
    assert "num_steps: 7" in settings
    assert "devices: '4'" in settings
    assert "num_nodes: 2" in settings


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--nodes=0"], "nodes, processes and cpus must be positive, gpus not negative, got nodes 0"),
        (["--time=soon"], "time must be like 04:00:00"),
        (["--seeds=a-b"], "seeds must be like 0-9"),
        (["--time=1", "--warning=90"], "warning must be shorter than time (1), got 90 s"),
        (["--name=bash"], "Lightning takes a job called bash for a shell"),
        (["--partitoin=x"], "did you mean partition?"),
        (["--", "--model.nm_steps=3"], "did you mean model.num_steps?"),
        (["--", "--model.num_steps=0"], "num_steps must be positive, got 0"),
        (["--", "--run_dir=/proc/nowhere"], "run_dir: /proc/nowhere cannot be written to"),
        (["--", "--resume=none"], "none/config.yaml"),
    ],
)
def test_mistakes(
    args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in fails(launch.main, args, capsys)
    assert list(tmp_path.iterdir()) == [], "nothing is written for a mistake"


def test_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launch.main(["--nodes=2", "--gpus=0", "--submit=false", "--", *SMALL])
    (script,) = tmp_path.glob("runs/digits-*/job.sbatch")
    assert f"run=runs/{script.parent.name}\n" in script.read_text()


def test_no_sbatch_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here" in fails(launch.main, ["--", *SMALL, f"--run_dir={tmp_path}/run"], capsys)


def test_a_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert "already holds a run" in fails(launch.main, ["--", *SMALL, f"--run_dir={tmp_path}"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
