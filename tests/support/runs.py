"""Running the command lines, in this process or in one of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gwg_dist import fit
from tests.conftest import ROOT

SMALL = [
    "--model.energy=RBMEnergy", "--model.energy.num_hidden=8", "--model.num_steps=2", "--model.chains.size=150",
    "--data.batch_size=20", "--evaluation.num_chains=10", "--evaluation.num_temperatures=10",
    "--evaluation.final_temperatures=10", "--trainer.accelerator=cpu",
    # Pinned, because a run whose rate or rhythm hangs on its length is not the beginning of a longer one.
    "--model.learning_rate=3e-3", "--model.warmup_iterations=0", "--model.cooldown=0", "--model.weight_decay=0",
    "--evaluation.every=1000",
]  # fmt: skip


def command(run_dir: Path, *args: str) -> list[str]:
    return [*SMALL, f"--run_dir={run_dir}", *args]


def run_fit(run_dir: Path, *args: str) -> Path:
    """A small fit in this process."""
    os.environ.pop("LOCAL_RANK", None)
    fit.main(command(run_dir, *args))
    return run_dir


def fails(main, args: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that a command prints before it exits with ``code``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    printed = capsys.readouterr().err
    assert exit_info.value.code == code, printed
    assert "Traceback" not in printed
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, printed
    return errors[0]


def start(module: str, args: list[str], log: Path, **environment: str) -> subprocess.Popen:
    """``python -m module`` in a process of its own, with its output in ``log``."""
    clean = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    clean |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *args], stdout=file, stderr=file, env=clean, cwd=ROOT, start_new_session=True
        )


def run(module: str, args: list[str], log: Path, *, timeout: float = 200, **environment: str) -> int:
    """Start and wait; kills the process and its children where it takes too long."""
    process = start(module, args, log, **environment)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def run_piped(module: str, args: list[str], log: Path) -> int:
    """As ``run``, with the output through a pipe: a process that cannot write files can still print."""
    found = subprocess.run(
        [sys.executable, "-m", module, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    log.write_bytes(found.stdout)
    return found.returncode


def checkpoint(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


STATES = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "chains")


def differing(a: object, b: object, path: str = "") -> list[str]:
    """Where two trees of tensors and numbers differ in a bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(a.keys() | b.keys(), key=str)
        return [
            d for k in keys for d in (differing(a[k], b[k], f"{path}/{k}") if k in a and k in b else [f"{path}/{k}"])
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differing(x, y, f"{path}/{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if same else [path]


def assert_same_state(a: Path, b: Path) -> None:
    """Weights, averages, optimizer, schedule, chains and generators of two checkpoints agree bit for bit."""
    one, other = checkpoint(a), checkpoint(b)
    assert one["global_step"] == other["global_step"]
    found = {key: differing(one[key], other[key]) for key in STATES}
    assert found == {key: [] for key in STATES}
