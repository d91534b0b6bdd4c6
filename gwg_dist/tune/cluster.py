"""Ray: started quietly or joined, and how many trials fit."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import gwg_dist
from gwg_dist.tools.errors import InputError, LostError
from gwg_dist.training.living import born

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_worker_niceness": "0",  # Ray's own 15 starves a trial wherever anything else runs
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Ends processes, PID:BORN each, once nobody holds its input any more: the process that started it has ended.
REAPER = """
import os, signal, sys, time
sys.stdin.read()
time.sleep(5)
for process in sys.argv[1:]:
    pid, born = process.split(":")
    try:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[19] == born:
                os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
"""
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def import_ray(address: str | None) -> Any:
    """Ray with its settings in place. Raises InputError where it is not installed.

    Ray listens on all interfaces. One of our own gets a token, so that it takes orders from this process and its
    children alone. The token of a cluster to join must be where Ray looks for it: in RAY_AUTH_TOKEN, in the file
    RAY_AUTH_TOKEN_PATH or in ~/.ray/auth_token. Where one is found, a cluster that has none is joined with
    RAY_AUTH_MODE=disabled alone.
    """
    if address is None:
        access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    else:
        known = {*TOKENS} & {*os.environ} or os.path.isfile(os.path.expanduser("~/.ray/auth_token"))
        access = {"RAY_AUTH_MODE": "token"} if known else {}
    for name, value in (SETTINGS | access).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.train
        import ray.tune
    except ImportError as error:
        raise InputError(f"sweeps need Ray ({error}): pip install 'gwg-dist[tune]'") from error
    return ray


@contextmanager
def cluster(address: str | None, *, threads: int) -> Iterator[list[dict[str, float]]]:
    """Within it there is a Ray: one of our own, or the cluster at ``address``. Yields the resources of every machine.

    Workers find the modules that this process finds, and take ``threads`` threads.

    Raises:
        LostError: no cluster at the address, or one that wants another token.
    """
    ray = import_ray(address)
    paths = [os.getcwd(), str(Path(gwg_dist.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    variables = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path for path in paths if path)),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
        **{name: os.environ[name] for name in SETTINGS},
    }
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            runtime_env={"env_vars": variables},
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"at {address}" if address else "here"
        raise LostError(f"address: no Ray {where}: {str(error).splitlines()[0]}") from error
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with reaped() if address is None else nullcontext():
            yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
            sys.stderr.flush()
    finally:
        ray.shutdown()


@contextmanager
def reaped() -> Iterator[None]:
    """Within it the processes below this one end some seconds after it, also where it is killed. Linux alone.

    Agents of Ray else try for a minute to tell its head, which is gone, that they are about to end.
    """
    ours = [f"{pid}:{born(pid)}" for pid in below(os.getpid())]
    reaper = subprocess.Popen(
        [sys.executable, "-IS", "-c", REAPER, *ours], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        reaper.kill()
        reaper.wait()


def below(pid: int) -> list[int]:
    """The processes that a process started, those that they started, and so on; none where the system does not say."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *below(child)]
    return found


def num_slots(machines: list[dict[str, float]], *, cpus: float, gpus: float) -> int:
    """How many workers fit, each whole on one machine."""
    found = 0
    for machine in machines:
        slots = machine.get("CPU", 0.0) / cpus
        if gpus:
            slots = min(slots, machine.get("GPU", 0.0) / gpus)
        found += int(slots + 1e-9)
    return found


def check_fits(machines: list[dict[str, float]], *, workers: int, cpus: float, gpus: float) -> int:
    """How many trials run at once. Raises InputError where not even one does."""
    slots = num_slots(machines, cpus=cpus, gpus=gpus)
    if slots < workers:
        total = {name: sum(machine.get(name, 0.0) for machine in machines) for name in ("CPU", "GPU")}
        key = "gpus" if num_slots(machines, cpus=cpus, gpus=0) >= workers else "workers" if slots else "cpus"
        raise InputError(
            f"{key}: a trial takes {workers} x ({cpus:g} CPUs, {gpus:g} GPUs), each on one machine, but there are "
            f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs on {len(machines)} machines"
        )
    return slots // workers
