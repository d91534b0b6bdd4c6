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
        (["--time=1", "--warning=90"], "warning must be positive and shorter than time (1), got 90 s"),
        (["--time=00:01:00", "--warning=60"], "shorter than time (00:01:00), got 60 s"),
        (["--time=10:30", "--warning=631"], "shorter than time (10:30), got 631 s"),
        (["--time=0-01", "--warning=3600"], "shorter than time (0-01), got 3600 s"),
        (["--time=0-00:59", "--warning=3600"], "shorter than time (0-00:59), got 3600 s"),
        (["--warning=0"], "warning must be positive"),
        (["--time=9-00", "--warning=70000"], "warning must be at most 65535 s, which is what SLURM takes, got 70000 s"),
        (["--time=00:00:00"], "time must be like 04:00:00"),
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


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("2:00:03", 7203), ("1-2", 93600), ("1-2:30", 95400), ("1-02:30:05", 95405)],
)
def test_seconds_of_a_limit(time: str, seconds: int) -> None:
    """The six forms of sbatch's manual."""
    assert launch.seconds_of(time) == seconds


def test_a_percent_in_the_path_is_none_of_slurms(tmp_path: Path) -> None:
    """sbatch reads %j and its like in --output; an unknown one fails the job without a word."""
    launch.main(["--gpus=0", "--submit=false", "--", *SMALL, f"--run_dir={tmp_path}/50% of %j"])
    output = options_of(tmp_path / "50% of %j/job.sbatch")["output"]
    assert output == f"'{tmp_path}/50%% of %%j/slurm-%j.out'"


@pytest.mark.parametrize(
    ("setup", "code"),
    [("false", 2), ("cd /nowhere\ntrue", 2), ("true", 0), ("f() { false; true; }; f", 0), ("[[ -f x ]] && false", 0),
     ("", 0)],
)  # fmt: skip
def test_a_setup_line_that_fails_ends_the_job(setup: str, code: int, tmp_path: Path) -> None:
    text = launch.script({}, command="true", run="run", setup=setup)
    script = tmp_path / "job.sh"
    script.write_text(text[: text.index("# One task a process")] + "echo goes on\n")
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert (done.returncode, "goes on" in done.stdout) == (code, not code), done.stderr
    assert ("setup: exit code 1 of: " in done.stderr) == bool(code)


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
