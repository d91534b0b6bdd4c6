"""Nobody is left behind: terminals that close, pipes without a reader, ranks that hang, launchers that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gwg_dist import fit
from gwg_dist.tools.distributed import is_loopback, join
from tests import plugins
from tests.cluster.test_preemption import CALM, DDP, alive, phase, processes, torchrun, wait_for
from tests.conftest import ROOT
from tests.support.runs import checkpoint, command, start
from tests.support.slurm import free_ports

LONG = ["--trainer.max_steps=100000", "--evaluation.every=0", "--checkpoint_every=100000", "--pictures_every=0"]
FEW = [*LONG, "--trainer.max_steps=200"]
SECONDS = 60  # a hung run lasts for ever; on a busy machine an end takes its time


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    plugins.Calls.function = None
    for number, handler in before.items():  # a run that was told to stop leaves them ignored
        signal.signal(number, handler)


@pytest.mark.usefixtures("at_step")
def test_a_terminal_that_closes_ends_the_run_as_sigterm_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.Calls.function = lambda step: os.kill(os.getpid(), signal.SIGHUP) if step == 5 else None
    with pytest.raises(SystemExit) as exit_info:
        fit.main(command(tmp_path / "run", *FEW, "--trainer.callbacks=tests.plugins.Calls"))
    assert exit_info.value.code == 75
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 6
    assert "go on with: " in capsys.readouterr().err


@pytest.mark.usefixtures("at_step")
def test_nohup_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    plugins.Calls.function = lambda step: os.kill(os.getpid(), signal.SIGHUP)
    try:
        fit.main(command(tmp_path / "run", "--trainer.max_steps=3", "--trainer.callbacks=tests.plugins.Calls"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 3


@pytest.mark.usefixtures("at_step")
def test_a_pipe_without_a_reader_ends_the_run_with_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fit 2>&1 | tee log`` whose tee is killed."""
    reader, writer = os.pipe()

    def close_and_print(step: int) -> None:
        if step == 5:
            os.close(reader)
            print("nobody reads this", file=sys.stderr, flush=True)

    plugins.Calls.function = close_and_print
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        with pytest.raises(SystemExit) as exit_info:
            fit.main(command(tmp_path / "run", *FEW, "--trainer.callbacks=tests.plugins.Calls"))
    assert exit_info.value.code == 75
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 6


def test_where_processes_of_one_machine_meet_no_other_machine_can() -> None:
    (port,) = free_ports(1)
    store = join("127.0.0.1", port, rank=0, world_size=1, patience=10)
    listening = [line.split()[1] for name in ("tcp", "tcp6") for line in table(name) if line.split()[3] == "0A"]
    assert [where for where in listening if where.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    del store


def test_a_host_that_nobody_knows_is_not_this_machine() -> None:
    assert is_loopback("127.0.0.1")
    assert not is_loopback("no-such-host.invalid")


def table(name: str) -> list[str]:
    """The sockets of this machine."""
    path = Path(f"/proc/net/{name}")
    return path.read_text().splitlines()[1:] if path.exists() else []


@pytest.mark.slow
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell in the background ignores it
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'lightning': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from gwg_dist.__main__ import main\n"
        "main(['fit', '--print_config'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_rank_that_hangs_does_not_hold_up_the_one_that_is_told(told: int, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    settings = [*LONG, "--checkpoint_every=5", "--stop_seconds=2", *CALM, *DDP]
    process = start("gwg_dist.fit", command(folder, *settings), log)
    wait_for(lambda: (folder / "last.ckpt").exists(), process, log)
    pids = processes(folder)
    os.kill(pids[1 - told], signal.SIGSTOP)
    try:
        time.sleep(0.5)
        os.kill(pids[told], signal.SIGTERM)
        if told == 0:
            assert process.wait(SECONDS) == 75, log.read_text()
        wait_for(lambda: not alive(pids[told]), None, log, SECONDS)
    finally:
        os.kill(pids[1 - told], signal.SIGCONT)
    wait_for(lambda: not any(map(alive, pids)), None, log, SECONDS)
    printed = log.read_text()
    assert f"error: rank {told}: told to stop, and other processes have not answered for" in printed
    assert "last.ckpt is of iteration" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_a_rank_that_dies_in_start_up_is_a_line_of_rank_0(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plugin = ["--trainer.callbacks=tests.plugins.Stillborn", "--trainer.callbacks.rank=1"]
    process = start("gwg_dist.fit", command(tmp_path / "run", *LONG, *plugin, "--trainer.devices=2"), log)
    assert process.wait(100) == 1, log.read_text()
    errors = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert len(errors) == 1, log.read_text()
    assert "error: rank 1 has ended early (process " in errors[0]
    assert "killed by SIGKILL" in errors[0]


@pytest.mark.slow
def test_rank_1_does_not_wait_for_a_rank_0_that_is_gone(tmp_path: Path) -> None:
    """Killed while the other imports or waits; --join_seconds would be two minutes."""
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start("gwg_dist.fit", command(folder, *LONG, "--trainer.devices=2"), log)
    wait_for(lambda: children(process.pid), process, log)
    (child,) = children(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(child), None, log, SECONDS)


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_workers_of_an_agent_that_was_killed_save_and_stop(tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    process = torchrun(folder, log, *LONG, *CALM)
    wait_for(lambda: phase(folder, 0) == phase(folder, 1) == "training", process, log)
    pids = processes(folder)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(alive, pids)), None, log, SECONDS)
    step = checkpoint(folder / "last.ckpt")["global_step"]
    assert f"stopped at iteration {step}\n" in log.read_text()
