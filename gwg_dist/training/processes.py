"""How the processes of a run find each other: started by Lightning, torchrun, SLURM or by hand.

Lightning knows torchrun, SLURM and its own way of starting processes; what is added is that a process that waits for
others in vain says so. Not implemented: strategies that shard the weights.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed.constants import default_pg_timeout

from gwg_dist.tools.commands import LOST
from gwg_dist.tools.distributed import any_rank, from_rank_0, initialized, is_loopback, join
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say_error

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl
STARTER = "GWG_DIST_STARTER"  # variable: number of the process that started this one
LOOK_SECONDS = 0.5  # between two looks at processes that this one started
LEAVE_SECONDS = 5.0  # in which a process finds by itself that another has died


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine; where one of them fails, this process ends with a line and code 1.

    Lightning's own launcher ends it with SIGKILL.
    """

    def __init__(self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self.leaving = threading.Event()

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        if not self.cluster_environment.creates_processes_externally:
            self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
            os.environ[STARTER] = str(os.getpid())
            self._call_children_scripts()
            threading.Thread(target=self._look_after, name="processes", daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def _look_after(self) -> None:
        """Wait for the end of all, or the failure of one; where this process does not see that, end it."""
        while all(process.poll() in (None, 0) for process in self.procs):
            if all(process.poll() == 0 for process in self.procs):
                return
            time.sleep(LOOK_SECONDS)
        failed = next(process for process in self.procs if process.poll() not in (None, 0))
        seen = self.leaving.wait(LEAVE_SECONDS)
        if seen:
            time.sleep(LEAVE_SECONDS)  # it says why by itself, and has not ended yet
        else:
            rank = self.procs.index(failed) + 1
            say_error(f"rank {rank} has ended early (process {failed.pid}, {ended_by(failed.returncode)})")
        for process in self.procs:
            process.kill()
        os._exit(LOST)


def ended_by(code: int) -> str:
    """What a return code of ``subprocess`` says."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class ChainDDP(DDPStrategy):
    """DDP for models whose buffers differ between ranks, joined with patience.

    Args:
        patience: seconds in which all processes must have come.
    """

    def __init__(self, *, patience: float) -> None:
        super().__init__(broadcast_buffers=False)
        self.patience = patience

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def teardown(self) -> None:
        if isinstance(self._launcher, Launcher):
            self._launcher.leaving.set()
        super().teardown()

    def setup_distributed(self) -> None:
        """Raises LostError where processes do not meet in time."""
        environment = self.cluster_environment
        if not initialized() and environment is not None and not isinstance(environment, TorchElasticEnvironment):
            self.set_world_ranks()
            if sys.platform == "linux" and is_loopback(environment.main_address):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo listens as well
            store = join(
                environment.main_address,
                environment.main_port,
                rank=self.global_rank,
                world_size=self.world_size,
                patience=self.patience,
            )
            store.set_timeout(self._timeout or default_pg_timeout)
            dist.init_process_group(
                self._get_process_group_backend(),
                store=store,
                rank=self.global_rank,
                world_size=self.world_size,
                timeout=self._timeout,
                device_id=self.root_device if self.root_device.type == "cuda" else None,
            )
            atexit.register(_leave_group)
        super().setup_distributed()


class SameStart(Callback):
    """Raises InputError, before the first iteration, where ranks would go on from different iterations.

    Args:
        iteration: iteration of the checkpoint that this process goes on from; 0 where it begins.
    """

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        first = from_rank_0(self.iteration)
        if any_rank(int(first != self.iteration), trainer.strategy.root_device):
            raise InputError(
                f"this process goes on from iteration {self.iteration}, rank 0 from {first}, and others from yet "
                "another: run_dir must be on a disk that all see, with the same --ckpt_path"
            )


def take_launched_world(config: Namespace, args: list[str]) -> None:
    """Where torchrun or srun started the processes, put their number into the settings.

    Raises InputError where the command line ``args`` says another number; a number from a file gives way.
    """
    world, typed = launched_world(), {arg.split("=")[0] for arg in args}
    if world is None:
        if config.trainer.num_nodes > 1 and not os.environ.keys() & {"NODE_RANK", "MASTER_ADDR"}:
            if "--trainer.num_nodes" in typed:
                raise InputError(
                    f"trainer.num_nodes is {config.trainer.num_nodes}, but neither srun nor torchrun started this "
                    "process, and NODE_RANK and MASTER_ADDR are not set"
                )
            config.trainer.num_nodes = 1
        return
    for key, found, what in (("devices", world[0], "processes on each machine"), ("num_nodes", world[1], "machines")):
        ours = str(config.trainer[key])
        if f"--trainer.{key}" in typed and ours.isdigit() and ours != str(found):
            raise InputError(f"trainer.{key} is {ours}, but the launcher started {found} {what}")
        config.trainer[key] = found


def launched_world() -> tuple[int, int] | None:
    """Processes on each machine, and machines, where torchrun or srun started this process.

    Raises InputError where srun was not told how many tasks each machine gets.
    """
    if TorchElasticEnvironment.detect():
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return per_node, int(os.environ["WORLD_SIZE"]) // per_node
    if under_srun():
        per_node, nodes = os.environ.get("SLURM_NTASKS_PER_NODE"), int(os.environ.get("SLURM_NNODES", "1"))
        tasks = int(os.environ["SLURM_NTASKS"])
        if per_node is None and tasks > 1:
            raise InputError(f"srun: give --ntasks-per-node, one a GPU, in place of --ntasks={tasks}")
        if int(per_node or 1) * nodes != tasks:
            raise InputError(f"srun: {tasks} tasks are not {per_node} (--ntasks-per-node) on each of {nodes} machines")
        return int(per_node or 1), nodes
    return None


def under_srun() -> bool:
    """Whether srun started this process (a job called bash or interactive counts as a shell)."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ and not interactive


def environment() -> ClusterEnvironment | None:
    """What Lightning would get wrong: SLURM without its requeueing, and none in a script that srun did not start."""
    if TorchElasticEnvironment.detect():
        return None
    if under_srun():
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment() if "SLURM_NTASKS" in os.environ else None


@contextlib.contextmanager
def meeting(device: str | None, *, patience: float = 60) -> Iterator[str | None]:
    """A process group without a trainer, where torchrun or srun started several processes.

    Args:
        device: asked for, or None for a CUDA device where there is one.
        patience: seconds in which all processes must have come.

    Yields this process's device: its own one of the machine's where CUDA is wanted.
    Raises LostError where processes do not meet in time.
    """
    world = launched_world()
    if world is None or world == (1, 1):
        yield device
        return
    launched = SLURMEnvironment(auto_requeue=False) if under_srun() else TorchElasticEnvironment()
    cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    if cuda:
        device = f"cuda:{launched.local_rank()}"
        torch.cuda.set_device(device)
    store = None
    rank, size = launched.global_rank(), launched.world_size()
    if under_srun():
        store = join(launched.main_address, launched.main_port, rank=rank, world_size=size, patience=patience)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        device_id=torch.device(device) if cuda and device else None,
    )
    yield device
    _leave_group()


def _leave_group() -> None:
    if initialized():
        dist.destroy_process_group()


def follow_starter() -> None:
    """Hear SIGTERM when torchrun's agent, or the rank that started this process, ends without ending it. Linux alone.

    Else a worker whose agent was killed trains on, for nobody.
    """
    if sys.platform == "linux" and (started_by_us() or TorchElasticEnvironment.detect()):
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if started_by_us() and os.environ.get(STARTER) not in (None, str(os.getppid()), str(os.getpid())):
            os.kill(os.getpid(), signal.SIGTERM)  # it has ended already


def started_by_us() -> bool:
    """Whether rank 0 of this run started this process, as Lightning does where nothing else starts processes."""
    return "LOCAL_RANK" in os.environ and not TorchElasticEnvironment.detect() and not under_srun()


def job() -> str | None:
    """What torchrun or SLURM calls this job, however often it starts it; None where it has no name of its own."""
    if under_srun():
        return f"SLURM job {os.environ['SLURM_JOB_ID']}"
    name = os.environ.get("TORCHELASTIC_RUN_ID") if TorchElasticEnvironment.detect() else None
    return f"torchrun job {name}" if name not in (None, "none") else None
