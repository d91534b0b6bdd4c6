"""Told to stop: at any moment, on any rank, under any launcher, a run ends within seconds and goes on where it was."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.runs import assert_same_state, checkpoint, command, run, start

CALM = ["--pictures_every=0", "--trainer.callbacks=tests.plugins.Watched"]
DDP = ["--trainer.strategy=ddp", "--trainer.devices=2"]
SECONDS = 20  # "within seconds", on a machine that others use; a deadlock lasts for ever


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen | None, log: Path, seconds: float = 100
) -> None:
    """Until the condition holds; fails where the process has ended before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)


def phase(folder: Path, rank: int = 0) -> str:
    path = folder / f"phase.{rank}"
    return path.read_text().strip() if path.exists() else ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(folder.glob("pid.*"))]


def test_a_signal_in_an_evaluation_does_not_wait_for_it(tmp_path: Path) -> None:
    """An evaluation of minutes is left out and made up for; the run ends with the same best.ckpt as a calm one."""
    settings = ["--trainer.max_steps=40", "--evaluation.every=20", *CALM]
    slow, quick = "--evaluation.num_temperatures=1000000", "--evaluation.num_temperatures=300"
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start("gwg_dist.fit", command(folder, slow, *settings), log)
    wait_for(lambda: phase(folder) == "likelihood", process, log)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 75, log.read_text()
    assert checkpoint(folder / "last.ckpt")["global_step"] == 20
    assert not (folder / "best.ckpt").exists()
    assert run("gwg_dist.fit", command(folder, quick, "--ckpt_path=last", *settings), log) == 0
    assert run("gwg_dist.fit", command(tmp_path / "calm", quick, *settings), log) == 0
    assert_same_state(folder / "last.ckpt", tmp_path / "calm/last.ckpt")
    assert_same_state(folder / "best.ckpt", tmp_path / "calm/best.ckpt")
    assert "iteration 20: log-likelihood" in log.read_text().split("going on from iteration 20")[1]


def test_an_evaluation_that_was_left_out_at_the_end_leaves_it_undecided(tmp_path: Path) -> None:
    """best.ckpt is of ten wild iterations; that of the last was cut short, so the closing evaluation compares both."""
    settings = ["--ema.decay=0", "--evaluation.num_chains=50", "--evaluation.final_temperatures=500", *CALM]
    wild = [*settings, "--trainer.max_steps=10", "--model.learning_rate=0.1"]
    calm = [*settings, "--trainer.max_steps=200", "--model.learning_rate=0.005", "--ckpt_path=last"]
    folder, log = tmp_path / "run", tmp_path / "log"
    assert run("gwg_dist.fit", command(folder, *wild), log) == 0
    process = start("gwg_dist.fit", command(folder, *calm, "--evaluation.num_temperatures=1000000"), log)
    wait_for(lambda: phase(folder) == "likelihood", process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 75, log.read_text()
    steps = [checkpoint(folder / name)["global_step"] for name in ("last.ckpt", "best.ckpt")]
    assert steps == [200, 10]
    assert run("gwg_dist.fit", command(folder, *calm), log) == 0, log.read_text()
    assert json.loads((folder / "results.json").read_text())["iteration"] == 200
    assert checkpoint(folder / "best.ckpt")["global_step"] == 200


def test_a_signal_before_and_after_training_ends_at_once(tmp_path: Path) -> None:
    """There is nothing to save then: what was there stays, and --resume goes on."""
    folder, log = tmp_path / "run", tmp_path / "log"
    final = command(folder, "--trainer.max_steps=10", "--evaluation.every=0", *CALM)
    process = start("gwg_dist.fit", [*final, "--evaluation.final_temperatures=1000000"], log)
    wait_for(lambda: phase(folder) == "checkpoint" or (folder / "last.ckpt").exists(), process, log)
    time.sleep(1.5)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(SECONDS) == 75, log.read_text()
    assert not (folder / "results.json").exists()
    assert checkpoint(folder / "last.ckpt")["global_step"] == 10, "it was told in the closing evaluation"
    assert "Traceback" not in log.read_text()
    slow = "--evaluation.final_temperatures=1000000"
    process = start("gwg_dist.fit", [*final, slow, "--ckpt_path=last"], log)
    time.sleep(4)  # imports are over or nearly so
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) in (75, -signal.SIGTERM), "before Python handles signals, the system ends it"
    assert run("gwg_dist.fit", [*final, "--ckpt_path=last"], log) == 0
    assert checkpoint(folder / "last.ckpt")["global_step"] == 10
    assert (folder / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("told", "slower"), [(0, 0.0), (1, 0.2)])
def test_one_rank_is_told_and_all_stop_at_the_same_step(told: int, slower: float, tmp_path: Path) -> None:
    settings = ["--trainer.max_steps=100000", "--evaluation.every=0", "--checkpoint_every=100000", *CALM, *DDP]
    settings += [f"--trainer.callbacks.seconds={slower}"]
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start("gwg_dist.fit", command(folder, *settings), log)
    wait_for(lambda: phase(folder, 0) == phase(folder, 1) == "training", process, log)
    time.sleep(1)
    pids = processes(folder)
    os.kill(pids[told], signal.SIGTERM)
    assert process.wait(SECONDS) == 75, log.read_text()
    wait_for(lambda: not any(map(alive, pids)), None, log, SECONDS)
    step = checkpoint(folder / "last.ckpt")["global_step"]
    printed = log.read_text()
    assert printed.count(f"stopped at iteration {step}\n") == 1
    assert "Traceback" not in printed
    assert (
        run("gwg_dist.fit", command(folder, "--ckpt_path=last", *settings, f"--trainer.max_steps={step + 3}"), log) == 0
    )
    assert f"going on from iteration {step}\n" in log.read_text()


@pytest.mark.slow
def test_one_rank_is_told_within_an_evaluation(tmp_path: Path) -> None:
    """Both are in the middle of annealing, one hears of it: neither waits for ever."""
    settings = ["--trainer.max_steps=20", "--evaluation.every=10", "--evaluation.num_temperatures=1000000", *CALM, *DDP]
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start("gwg_dist.fit", command(folder, *settings), log)
    wait_for(lambda: phase(folder, 0) == phase(folder, 1) == "likelihood", process, log)
    os.kill(processes(folder)[1], signal.SIGUSR1)
    assert process.wait(SECONDS) == 75, log.read_text()
    assert checkpoint(folder / "last.ckpt")["global_step"] == 10


@pytest.mark.slow
def test_two_ranks_go_on_with_an_estimate(tmp_path: Path) -> None:
    """Where both stopped, bit for bit; the run of one process begins the estimate again."""
    settings = ["--trainer.max_steps=22", "--evaluation.every=20", "--evaluation.num_temperatures=15000", *CALM]
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start("gwg_dist.fit", command(folder, *settings, *DDP), log)
    wait_for(lambda: phase(folder, 0) == phase(folder, 1) == "likelihood", process, log)
    time.sleep(0.3)
    os.kill(processes(folder)[1], signal.SIGTERM)
    assert process.wait(SECONDS) == 75, log.read_text()
    held = checkpoint(folder / "last.ckpt")["callbacks"]["AISLikelihood"]["unfinished"]
    assert 0 < held["t"] < 15000
    assert held["t"] % 100 == 0
    assert held["packed"].shape == (10, 8)
    assert len(held["generators"]) == 2
    shutil.copytree(folder, tmp_path / "alone")
    assert run("gwg_dist.fit", command(folder, *settings, *DDP, "--ckpt_path=last"), log) == 0, log.read_text()
    assert run("gwg_dist.fit", command(tmp_path / "calm", *settings, *DDP), log) == 0, log.read_text()
    assert_same_state(folder / "best.ckpt", tmp_path / "calm/best.ckpt")
    lines = [line for line in log.read_text().splitlines() if line.startswith("iteration 20: ")]
    assert len(lines) == 2
    assert len(set(lines)) == 1
    values = [best_value(path) for path in (folder, tmp_path / "calm")]
    assert values[0] == values[1]
    assert run("gwg_dist.fit", command(tmp_path / "alone", *settings, "--ckpt_path=last"), log) == 0, log.read_text()
    assert abs(best_value(tmp_path / "alone") - values[0]) < 0.1


def best_value(folder: Path) -> float:
    """The likelihood that best.ckpt was chosen by."""
    return checkpoint(folder / "last.ckpt")["callbacks"]["RunCheckpoints"]["best_value"]


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_one_rank_is_told_in_the_closing_evaluation(told: int, tmp_path: Path) -> None:
    """Nothing is trained then and nothing agreed on: who is told tells the other."""
    settings = [
        "--trainer.max_steps=10",
        "--evaluation.every=0",
        "--evaluation.final_temperatures=1000000",
        *CALM,
        *DDP,
    ]
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start("gwg_dist.fit", command(folder, *settings), log)
    wait_for(lambda: (folder / "last.ckpt").exists(), process, log)
    time.sleep(2)
    pids = processes(folder)
    os.kill(pids[told], signal.SIGTERM)
    assert process.wait(SECONDS) == 75, log.read_text()
    wait_for(lambda: not any(map(alive, pids)), None, log, SECONDS)
    assert log.read_text().count("go on with: ") == 1
    assert "Traceback" not in log.read_text()


def torchrun(folder: Path, log: Path, *args: str, restarts: int = 0) -> subprocess.Popen:
    """The launch script, with two processes."""
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"PYTHONPATH": str(ROOT), "PROCESSES": "2", "RESTARTS": str(restarts), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with open(log, "ab") as file:
        return subprocess.Popen(
            [ROOT / "launch/torchrun.sh", *command(folder, *args)], stdout=file, stderr=file, env=environment, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip


@pytest.mark.slow
def test_the_launcher_is_told(tmp_path: Path) -> None:
    """SIGTERM to torchrun's agent, which hands it to ranks of different speed."""
    settings = ["--trainer.max_steps=100000", "--evaluation.every=0", *CALM, "--trainer.callbacks.seconds=0.2"]
    folder, log = tmp_path / "run", tmp_path / "log"
    process = torchrun(folder, log, *settings)
    wait_for(lambda: phase(folder, 0) == phase(folder, 1) == "training", process, log)
    time.sleep(1)
    pids = processes(folder)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) != 0
    assert not any(map(alive, pids))
    step = checkpoint(folder / "last.ckpt")["global_step"]
    assert f"stopped at iteration {step}\n" in log.read_text()
    assert torchrun(folder, log, "--ckpt_path=last", *settings, f"--trainer.max_steps={step + 3}").wait(100) == 0
    assert f"going on from iteration {step}\n" in log.read_text()


@pytest.mark.slow
def test_torchrun_brings_a_killed_rank_back(tmp_path: Path) -> None:
    """The same command, no --resume: it ends as the undisturbed run that this program started by itself."""
    settings = ["--trainer.max_steps=200", "--evaluation.every=100", "--checkpoint_every=20", *CALM]
    folder, log = tmp_path / "run", tmp_path / "log"
    process = torchrun(folder, log, *settings, "--trainer.callbacks.seconds=0.01", restarts=3)
    wait_for(lambda: (folder / "last.ckpt").exists(), process, log)
    time.sleep(0.3)
    os.kill(processes(folder)[1], signal.SIGKILL)
    assert process.wait(150) == 0, log.read_text()[-3000:]
    assert "going on from iteration" in log.read_text()
    assert run("gwg_dist.fit", command(tmp_path / "calm", *settings, *DDP), log) == 0
    assert_same_state(folder / "last.ckpt", tmp_path / "calm/last.ckpt")


@pytest.mark.slow
def test_restarts_do_not_overwrite_another_run(tmp_path: Path) -> None:
    """A mistake stays one, however often torchrun tries."""
    folder, log = tmp_path / "run", tmp_path / "log"
    assert run("gwg_dist.fit", command(folder, "--trainer.max_steps=10", *CALM), log) == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert torchrun(folder, log, "--trainer.max_steps=20", "--model.learning_rate=0.5", restarts=1).wait(150) != 0
    assert log.read_text().count("already holds a run") == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_dies_takes_the_others_along(killed: int, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    settings = ["--trainer.max_steps=100000", "--evaluation.every=0", *CALM, *DDP]
    process = start("gwg_dist.fit", command(folder, *settings), log)
    wait_for(lambda: phase(folder, 0) == phase(folder, 1) == "training", process, log)
    pids = processes(folder)
    os.kill(pids[killed], signal.SIGKILL)
    assert process.wait(SECONDS) != 0
    wait_for(lambda: not any(map(alive, pids)), None, log, SECONDS)
    assert "Traceback" not in log.read_text()
