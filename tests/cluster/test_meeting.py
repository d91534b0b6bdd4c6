"""Processes that meet, and processes that wait in vain: one line, soon, and nobody left behind."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from gwg_dist import fit
from tests.cluster.test_preemption import torchrun
from tests.support.runs import assert_same_state, command, fails, run, start
from tests.support.slurm import free_ports

QUIET = ["--evaluation.every=5", "--pictures_every=0", "--trainer.max_steps=12"]


def node(number: int, port: int, address: str = "127.0.0.1") -> dict[str, str]:
    """What somebody sets who starts one of two machines by hand."""
    return {"NODE_RANK": str(number), "MASTER_ADDR": address, "MASTER_PORT": str(port)}


@pytest.mark.slow
def test_torchrun_by_hand_and_by_itself_are_the_same_run(tmp_path: Path) -> None:
    """Two processes: started by fit, by torchrun, and as two machines by hand."""
    log = tmp_path / "log"
    assert run("gwg_dist.fit", command(tmp_path / "itself", *QUIET, "--trainer.devices=2"), log) == 0, log.read_text()
    assert torchrun(tmp_path / "torchrun", log, *QUIET).wait(150) == 0, log.read_text()
    (port,) = free_ports(1)
    args = command(tmp_path / "hand", *QUIET, "--trainer.num_nodes=2")
    second = start("gwg_dist.fit", args, log, **node(1, port))
    first = start("gwg_dist.fit", args, log, **node(0, port))
    assert (first.wait(150), second.wait(20)) == (0, 0), log.read_text()
    for other in ("torchrun", "hand"):
        assert_same_state(tmp_path / other / "last.ckpt", tmp_path / "itself/last.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "address", "expected"),
    [
        (1, "no-such-host.invalid", "rank 1 does not know the host of rank 0, no-such-host.invalid"),
        (1, "127.0.0.1", "rank 1 found no rank 0 at 127.0.0.1:"),
        (0, "127.0.0.1", "1 of 2 processes did not come to 127.0.0.1:"),
    ],
)
def test_waiting_in_vain_is_one_line(number: int, address: str, expected: str, tmp_path: Path) -> None:
    log, (port,) = tmp_path / "log", free_ports(1)
    args = command(tmp_path / "run", *QUIET, "--trainer.num_nodes=2", "--join_seconds=3")
    began = time.monotonic()
    assert start("gwg_dist.fit", args, log, **node(number, port, address)).wait(100) == 1
    assert time.monotonic() - began < 60
    errors = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert len(errors) == 1, log.read_text()
    assert expected in errors[0]
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        args = command(tmp_path / "run", *QUIET, "--trainer.num_nodes=2", "--join_seconds=3")
        assert start("gwg_dist.fit", args, log, **node(0, taken.getsockname()[1])).wait(100) == 1
    assert "the port is in use; set MASTER_PORT" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--trainer.devices=30"], "data.batch_size must be at least the 30 processes, got 20"),
        (["--trainer.devices=15"], "evaluation.num_chains must be at least the 15 processes, got 10"),
        (["--join_seconds=0"], "join_seconds must be positive, got 0"),
        (["--run_dir=/proc/run"], "run_dir: /proc/run cannot be written to"),
        (["--trainer.devices=-3"], "devices"),
        (["--trainer.num_nodes=2"], "neither srun nor torchrun started this process"),
        (["--trainer.accelerator=cuda", "--trainer.devices=2"], "CUDA"),
    ],
)
def test_mistakes_start_nothing(
    args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before any other process is started, and before anything is written."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert expected.lower() in fails(fit.main, command(tmp_path / "run", *args), capsys).lower()
    assert not (tmp_path / "run").exists()
    assert "LOCAL_RANK" not in os.environ


@pytest.mark.slow
def test_a_mistake_under_torchrun_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = torchrun(tmp_path / "run", log, "--model.num_steps=0")
    assert process.wait(100) != 0
    errors = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert errors == ["error: num_steps must be positive, got 0"]


@pytest.mark.slow
def test_evaluation_spreads_its_chains(tmp_path: Path) -> None:
    """Two processes anneal half of the chains each: one table, one file, the same log Z within its error."""
    run_dir, log = tmp_path / "run", tmp_path / "log"
    assert run("gwg_dist.fit", command(run_dir, *QUIET), log) == 0
    settings = [str(run_dir), "--num_chains=101", "--num_temperatures=50", "--checkpoint=last"]
    launcher = ["--standalone", "--nproc-per-node=2", "-m", "gwg_dist.evaluate"]
    assert run("torch.distributed.run", [*launcher, *settings], tmp_path / "two.log") == 0, (
        tmp_path / "two.log"
    ).read_text()
    assert (tmp_path / "two.log").read_text().count("written to") == 1
    (path,) = (run_dir / "evaluation").glob("last-*-101x50-linear.json")
    two = json.loads(path.read_text())["ais"]
    assert run("gwg_dist.evaluate", settings, log) == 0
    one = json.loads(path.read_text())["ais"]
    assert two["num_chains"] == one["num_chains"] == 101
    assert two["log_z"] != one["log_z"]
    assert abs(two["log_z"] - one["log_z"]) < 5 * (two["stderr"] ** 2 + one["stderr"] ** 2) ** 0.5
