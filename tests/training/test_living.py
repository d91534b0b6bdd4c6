"""A folder has one owner that lives, and a name that is made up is made up once."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gwg_dist import fit
from gwg_dist.tools.errors import InputError
from gwg_dist.training import folder as folders
from gwg_dist.training.living import LOCK, born, make_new, owned
from tests.conftest import ROOT
from tests.support.runs import SMALL, checkpoint, command, fails, run_fit, start

HOLDER = """
import sys, time
from pathlib import Path
from gwg_dist.training.living import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""
QUICK = ["--trainer.max_steps=2", "--evaluation.every=0", "--pictures_every=0"]


def holder(folder: Path) -> subprocess.Popen:
    """Another process that owns the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_folders_that_are_made_up_at_once_differ(tmp_path: Path) -> None:
    found, together = [], threading.Barrier(8)

    def make() -> None:
        together.wait()
        found.append(make_new(tmp_path / "runs/digits-now", name="run_dir"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {path.name for path in found}
    assert names == {"digits-now", *(f"digits-now-{number}" for number in range(2, 9))}


def test_runs_of_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "now", lambda: "20260101-000000")
    for seed in (0, 1, 2):
        monkeypatch.setattr(sys, "argv", ["fit"])
        os.environ.pop("LOCAL_RANK", None)
        fit.main([*SMALL, *QUICK, f"--seed={seed}"])
    names = ["digits-20260101-000000", "digits-20260101-000000-2", "digits-20260101-000000-3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert [checkpoint(tmp_path / "runs" / name / "last.ckpt")["gwg_dist"]["seed"] for name in names] == [0, 1, 2]
    assert f"run folder: runs/{names[1]}\n" in capsys.readouterr().err


def test_a_mistake_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "num_steps" in fails(fit.main, [*SMALL, "--model.num_steps=0"], capsys)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    assert "num_steps" in fails(fit.main, command(tmp_path / "mine", "--model.num_steps=0"), capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "a folder that was there stays"


def test_a_second_run_in_a_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with --resume; the owner is named, and the folder is free as soon as it is killed."""
    run_dir = run_fit(tmp_path / "run", *QUICK)
    before = (run_dir / "last.ckpt").read_bytes()
    (run_dir / ".last.ckpt.0123abcd.tmp").write_bytes(b"half a checkpoint")
    process = holder(run_dir)
    try:
        message = fails(fit.main, ["--resume", str(run_dir), "--trainer.max_steps=4"], capsys)
        assert f"run_dir: {run_dir} is in use (process {process.pid} on {socket.gethostname()}, since" in message
        assert (run_dir / "last.ckpt").read_bytes() == before
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((run_dir / LOCK).read_text())["pid"] == process.pid, "it had no time to take its name away"
    fit.main(["--resume", str(run_dir), "--trainer.max_steps=4"])
    assert checkpoint(run_dir / "last.ckpt")["global_step"] == 4
    assert (run_dir / LOCK).read_text() == ""
    assert list(run_dir.glob(".*.tmp")) == [], "what a killed process left is cleared"


def without_locks(*_: object) -> None:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize(
    ("host", "pid", "job", "free"),
    [
        (socket.gethostname(), os.getppid(), "", False),
        (socket.gethostname(), 2**22 + 1, "", True),
        ("elsewhere", 1, "", False),
        ("elsewhere", 1, "SLURM job 7", True),
        ("elsewhere", 1, "SLURM job 8", False),
    ],
)
def test_without_locks_the_word_of_the_owner_counts(
    host: str, pid: int, job: str, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an NFS without them: dead processes of this machine, and earlier starts of this job, hold nothing."""
    monkeypatch.setattr(fcntl, "flock", without_locks)
    owner = {"host": host, "pid": pid, "born": born(pid), "since": "today", "job": job}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    if free:
        with owned(tmp_path, job="SLURM job 7"):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    else:
        with pytest.raises(InputError, match="is in use"), owned(tmp_path, job="SLURM job 7"):
            pass
        assert json.loads((tmp_path / LOCK).read_text()) == owner


def test_a_requeued_job_is_not_held_up_by_a_lock_that_a_dead_machine_left(tmp_path: Path) -> None:
    """A server of files may keep the locks of a machine that is gone for a while."""
    with owned(tmp_path, job="SLURM job 7"):
        held = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).write_text(json.dumps(held | {"host": "gone"}))
        with owned(tmp_path, job="SLURM job 7"):
            pass
        (tmp_path / LOCK).write_text(json.dumps(held))
        with pytest.raises(InputError), owned(tmp_path, job="SLURM job 7"):
            pass


@pytest.mark.slow
def test_three_seeds_started_at_once_are_three_runs(tmp_path: Path) -> None:
    logs = [tmp_path / f"log.{seed}" for seed in range(3)]
    code = f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); runpy.run_module('gwg_dist.fit', run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("LOCAL_RANK", None)
    processes = []
    for seed, log in enumerate(logs):
        with open(log, "wb") as file:
            args = [sys.executable, "-c", code, *SMALL, *QUICK, f"--seed={seed}"]
            processes.append(subprocess.Popen(args, stdout=file, stderr=file, env=environment))
    assert [process.wait(200) for process in processes] == [0, 0, 0], [log.read_text() for log in logs]
    runs = sorted((tmp_path / "runs").iterdir())
    assert sorted(checkpoint(run / "last.ckpt")["gwg_dist"]["seed"] for run in runs) == [0, 1, 2]


@pytest.mark.slow
def test_killed_twice_a_folder_goes_on(tmp_path: Path) -> None:
    """kill -9, again while it goes on, and a last start: no lock, no scraps, no state is lost."""
    run_dir, log = tmp_path / "run", tmp_path / "log"
    args = command(run_dir, "--checkpoint_every=1", "--trainer.max_steps=100000", "--evaluation.every=0")
    seen = 0
    for _ in range(2):
        process = start("gwg_dist.fit", [*args, "--ckpt_path=last"], log)
        end = time.monotonic() + 100
        while time.monotonic() < end:
            step = checkpoint(run_dir / "last.ckpt")["global_step"] if (run_dir / "last.ckpt").exists() else 0
            if step > seen + 5:
                break
            time.sleep(0.05)
        process.kill()
        process.wait()
        before, seen = seen, checkpoint(run_dir / "last.ckpt")["global_step"]
        assert seen > before + 5, log.read_text()
    fit.main([*args, "--ckpt_path=last", f"--trainer.max_steps={seen + 2}"])
    assert checkpoint(run_dir / "last.ckpt")["global_step"] == seen + 2
    assert list(run_dir.glob(".*.tmp")) == []
