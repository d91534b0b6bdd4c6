"""A SLURM of two machines on this host, with its own munged, daemons, ports and folders; nothing else is touched."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.conftest import ROOT

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "runuser")
CONF = """
ClusterName=gwgtest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,requeue_delay=1
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdTimeout=10
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=5
InactiveLimit=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PlugStackConfig={folder}/plugstack.conf
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=4000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Why no SLURM can be started here."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        return f"SLURM's programs are not here: {', '.join(missing)} (packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root here"


class Cluster:
    """Two machines, n1 and n2. A context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
        self.environment |= {
            "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }  # fmt: skip
        self.daemons: dict[str, subprocess.Popen] = {}
        self.output: IO[bytes] | None = None

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True)
        for name in ("state", "spool.n1", "spool.n2"):
            (self.folder / name).mkdir()
        (self.folder / "plugstack.conf").touch()
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(CONF.format(host=host, folder=self.folder, ports=free_ports(3)))
        self.output = open(self.folder / "daemons.log", "ab")
        self._start_munge()
        self.start("slurmctld", "slurmctld", "-D")
        self.start("n1", "slurmd", "-D", "-N", "n1")
        self.start("n2", "slurmd", "-D", "-N", "n2")
        self.wait(lambda: self.ask("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * 4, "nodes are idle")
        return self

    def __exit__(self, *error: object) -> None:
        self.ask("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 20
        while self.ask("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.5)
        for daemon in reversed(list(self.daemons.values())):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        if self.output is not None:
            self.output.close()

    def start(self, name: str, *command: str) -> None:
        self.daemons[name] = subprocess.Popen(
            command, env=self.environment, stdout=self.output, stderr=self.output, start_new_session=True
        )

    def ask(self, *command: str, check: bool = True) -> str:
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=ROOT)
        if check and result.returncode:
            raise AssertionError(f"{command}: {result.stderr}")
        return result.stdout

    def state(self, job: str) -> str:
        """Of a job: PENDING, RUNNING, COMPLETING, COMPLETED, ..."""
        return self.shown(job, "JobState")

    def shown(self, job: str, field: str) -> str:
        text = self.ask("scontrol", "show", "job", job)
        return next(part.partition("=")[2] for part in text.split() if part.startswith(f"{field}="))

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.ask('squeue')}{self.ask('sinfo', '-N')}")
            time.sleep(0.2)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(128))
        for path in (folder, folder / "key"):
            shutil.chown(path, "munge", "munge")
        (folder / "key").chmod(0o400)
        folder.chmod(0o755)
        self.start(
            "munged", "runuser", "-u", "munge", "--", "munged", "--foreground", "--force", f"--key-file={folder}/key",
            f"--socket={folder}/socket", f"--pid-file={folder}/pid", f"--log-file={folder}/log",
            f"--seed-file={folder}/seed",
        )  # fmt: skip
        self.wait((folder / "socket").exists, "munged answers", 20)


def free_ports(num: int) -> list[int]:
    sockets = [socket.socket() for _ in range(num)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
