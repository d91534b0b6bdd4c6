"""What this machine and this installation are good for: one row a check, exit code 1 where one failed.

python -m gwg_dist.doctor            half a minute, ten seconds of it training
python -m gwg_dist.doctor --quick    without training

Checks run in turn in a process of their own: one that hangs is ended, one that crashes is a row. Nothing heavy is
imported here: a broken installation gets its table too. Not implemented: collectives between machines.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

OK, WARNING, FAILED = "ok", "warning", "failed"
COLOURS = {OK: "green", WARNING: "yellow", FAILED: "bold red"}
GIB = 1 << 30
SLOW_SYNC_S, PATIENCE_S, TRAINING_S, TABLE_WIDTH, MAX_REASON = 0.5, 40.0, 10, 150, 300
LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_", "NODE_RANK")


class Finding(NamedTuple):
    """What a check found, whether that is "ok", "warning" or "failed", and what to do about it."""

    found: str
    status: str = OK
    advice: str = ""


def judged(found: str, good: bool, advice: str, otherwise: str = WARNING) -> Finding:
    """Advice is for what is not good."""
    return Finding(found) if good else Finding(found, otherwise, advice)


class Check(NamedTuple):
    """A row of the table: ``function(*arguments)``, which has ``seconds`` to answer."""

    name: str
    function: Callable[..., Finding]
    arguments: tuple[Any, ...] = ()
    seconds: float = 60.0


def all_checks(run_dir: Path, *, quick: bool) -> list[Check]:
    """The rows in the order of the table."""
    checks = [
        *(Check(name, package_version, (name,)) for name in packages()),
        Check("native kernels", native_kernels, seconds=180),
        Check("CPU", cores),
        Check("CUDA", cuda_devices, seconds=90),
        Check("gloo", meeting, ("gloo", 2), seconds=2 * PATIENCE_S),
        Check("NCCL", nccl, seconds=4 * PATIENCE_S),
        Check("host name", host_name),
        Check("launcher", launcher),
        Check("run folder", run_folder, (run_dir,)),
        Check("TMPDIR", temporary_folder, (run_dir,)),
        Check("/dev/shm", shared_memory),
        Check("SLURM", slurm_commands),
    ]
    return checks if quick else [*checks, Check("training", training, seconds=TRAINING_S + 120)]


def requirements() -> dict[str, Requirement]:
    """The Python and the packages that the project asks for: the installed metadata's, or else the sources'."""
    try:
        lines = importlib.metadata.requires("gwg-dist") or []
        python = importlib.metadata.metadata("gwg-dist")["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        sweeps = [f'{line}; extra == "tune"' for line in project["optional-dependencies"]["tune"]]
        lines, python = project["dependencies"] + sweeps, project["requires-python"]
    found: dict[str, Requirement] = {}
    for wanted in map(Requirement, (f"python{python}", *lines)):
        if wanted.marker is None or wanted.name not in found:  # what is required wins over extras
            found[wanted.name] = wanted
    return found


def packages() -> list[str]:
    """What gets a row: all that a run needs, and Ray, which sweeps need."""
    return [*(name for name, wanted in requirements().items() if wanted.marker is None), "ray"]


def package_version(name: str) -> Finding:
    """Whether the installed version of a package, or of Python, is one that the project asks for."""
    wanted = requirements()[name]
    optional = wanted.marker is not None
    advice = f"{'pip ' * (name != 'python')}install '{str(wanted).split(';')[0]}'"
    try:
        found = sys.version.split()[0] if name == "python" else importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return judged("not installed, needed for sweeps only" if optional else "missing", optional, advice, FAILED)
    good = wanted.specifier.contains(found, prereleases=True)
    return judged(f"{found} ({wanted.specifier})", good, advice, WARNING if optional else FAILED)


def native_kernels() -> Finding:
    """The kernels in C, compiled."""
    from gwg_dist.samplers.fast import native

    if os.environ.get("GWG_DIST_NATIVE") == "0":
        return Finding("switched off", WARNING, "unset GWG_DIST_NATIVE: small steps are slower in torch")
    program, began = native.compiler(), time.monotonic()
    works, found = native.library() is not None, f"compiled by {program}, ready in {time.monotonic() - began:.1f} s"
    wrong = f"{program} does not compile them" if program else "no C compiler"
    return judged(found if works else wrong, works, "install gcc and libc's headers: small steps are slower in torch")


def cores() -> Finding:
    """What this process may use, by its affinity and by the quota of its container, and its threads."""
    import torch

    usable, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    quota = cpu_quota(Path("/sys/fs/cgroup/cpu.max"))
    most = max(1, round(min(usable, quota)))
    found = f"{usable} of {os.cpu_count()} cores{f', a quota of {quota:g}' * (quota < usable)}, {threads} threads"
    return judged(found, threads <= most, f"set OMP_NUM_THREADS={most}")


def cpu_quota(file: Path) -> float:
    """Cores that a control group's file "QUOTA PERIOD" grants."""
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        quota, period = map(float, file.read_text().split())
        return quota / period
    return float("inf")


def cuda_devices() -> Finding:
    """Name, memory and compute capability of every device, each tried."""
    import torch

    built, driver = torch.version.cuda, ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        driver = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()[0]
    if not (driver or torch.cuda.is_available()):
        return Finding("none: training runs on the CPU")
    lines = [f"driver {driver or 'unknown'}, torch {f'for CUDA {built}' if built else 'without CUDA'}"]
    if not torch.cuda.is_available():
        advice = "update the driver, or look at CUDA_VISIBLE_DEVICES" if built else "install a torch built for CUDA"
        return Finding(f"{lines[0]}: no device", FAILED if built else WARNING, advice)
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        torch.ones(1000, device=f"cuda:{number}").sum().item()  # raises where this torch has no code for it
        free, total = map(size, torch.cuda.mem_get_info(number))
        lines.append(f"{number}: {device.name}, {total}, {free} free, compute {device.major}.{device.minor}")
    return Finding("\n".join(lines))


def nccl() -> Finding:
    """A group of all GPUs, of one where there is one."""
    import torch
    from torch.cuda import nccl as library

    gpus = torch.cuda.device_count()
    if not torch.distributed.is_nccl_available():
        return judged("not in this torch, needed for several GPUs", gpus < 2, "install a torch with NCCL", FAILED)
    finding = meeting("nccl", gpus) if gpus else Finding("not tried without a GPU")
    return finding._replace(found=f"{'.'.join(map(str, library.version()))}, {finding.found}")


def meeting(backend: str, num: int) -> Finding:
    """``num`` new processes make a group over 127.0.0.1 and sum a megabyte."""
    from torch.multiprocessing.spawn import ProcessRaisedException, spawn

    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answer, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    try:
        spawn(_meet, (num, backend, port, theirs), nprocs=num)
    except ProcessRaisedException as error:
        reason = str(error).strip().splitlines()[-1]
        return Finding(reason, FAILED, f"look at {backend.upper()}_SOCKET_IFNAME and /etc/hosts")
    times = f"1 MiB summed in {answer.recv():.2f} ms ({time.monotonic() - began:.0f} s in all)"
    return Finding(f"{num} process{'es' * (num > 1)}, {times}")


def _meet(rank: int, num: int, backend: str, port: int, answer: Connection) -> None:
    import torch

    from gwg_dist.tools.distributed import join

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    store = join("127.0.0.1", port, rank=rank, world_size=num, patience=PATIENCE_S)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=num)
    values, times = torch.empty(1 << 18, device=device), []
    for _ in range(10):
        values.fill_(rank)
        began = time.perf_counter()
        torch.distributed.all_reduce(values)
        total = float(values[-1])
        times.append(time.perf_counter() - began)
        if total != num * (num - 1) / 2:
            raise RuntimeError(f"the ranks 0 to {num - 1} sum to {total}")
    if rank == 0:
        answer.send(1e3 * min(times))
    torch.distributed.destroy_process_group()


def host_name() -> Finding:
    """Whether rank 0 could listen where others find this machine by its name."""
    name = socket.gethostname()
    advice = "for several machines: put it in the DNS or /etc/hosts, or set MASTER_ADDR to an address"
    try:
        family, *_, where = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)[0]
        socket.create_server(where, family=family).close()
    except OSError as error:
        return Finding(f"{name}: {error.strerror}", WARNING, advice)
    local = str(where[0]).startswith("127.") or where[0] == "::1"
    return judged(f"{name} is {where[0]}{', for this machine only' * local}", not local, advice)


def launcher() -> Finding:
    """Who started this process, and the world that a run would have."""
    from gwg_dist.training.processes import launched_world

    world = launched_world()
    if world is None:
        job = os.environ.get("SLURM_JOB_ID")
        found = f"SLURM job {job}, but not srun" if job else "none: a run starts its own processes (trainer.devices)"
        return judged(found, job is None, "start it with srun where a run shall have several processes")
    name, master = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun", os.environ.get("MASTER_ADDR", "")
    known = not master
    with contextlib.suppress(socket.gaierror):
        known = known or bool(socket.getaddrinfo(master, 0))
    found = f"{name}: {world[0]} processes on each of {world[1]} machines{f', rank 0 on {master}' * bool(master)}"
    return judged(found, known, f"MASTER_ADDR: this machine does not know {master}", FAILED)


def run_folder(folder: Path) -> Finding:
    """Free space and the time of a synced megabyte where runs are written; nothing is left there."""
    place = existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
            file.write(bytes(1 << 20))
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            seconds = time.monotonic() - began
    except OSError as error:
        return Finding(f"{place}: {error.strerror}", FAILED, f"let user {os.getuid()} write there, or change run_dir")
    free = shutil.disk_usage(place).free
    found = f"{place}, {size(free)} free, a megabyte is on disk after {seconds * 1e3:.0f} ms"
    advice = "make room" if free < 2 * GIB else "a slow disk: raise checkpoint_every"
    return judged(found, free >= 2 * GIB and seconds <= SLOW_SYNC_S, advice)


def temporary_folder(run_dir: Path) -> Finding:
    """The folder of temporary files that Python uses: TMPDIR where that can be written to."""
    used = tempfile.gettempdir()
    wanted = os.environ.get("TMPDIR", used)
    free = shutil.disk_usage(used).free
    same = os.stat(used).st_dev == os.stat(existing(run_dir)).st_dev
    found = f"{used}, {size(free)} free, {'the filesystem' if same else 'another filesystem than that'} of the runs"
    unused = Path(wanted).absolute() != Path(used)
    advice = f"make {wanted}, writable for this user" if unused else "make room, or set TMPDIR to a larger disk"
    return judged(f"{found}; TMPDIR is {wanted}" if unused else found, not unused and free >= GIB // 4, advice)


def shared_memory() -> Finding:
    """Room for tensors that processes of a machine share; a container gets 64 MiB unless told."""
    total = shutil.disk_usage("/dev/shm").total
    return judged(size(total), total >= GIB, "for several GPUs: docker run --shm-size 1g")


def slurm_commands() -> Finding:
    places = {name: shutil.which(name) for name in ("sinfo", "sbatch", "scontrol")}
    missing = [name for name, path in places.items() if path is None]
    advice = f"without {', '.join(missing)} no job is submitted or requeued from here"
    found = ", ".join(filter(None, places.values())) or "no commands, needed on a cluster only"
    return judged(found, len(missing) in (0, len(places)), advice)


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.0f} MiB"


def training() -> Finding:
    """The default run for some seconds, in this process alone, on the CUDA device where there is one."""
    for name in filter(lambda name: name.startswith(LAUNCHERS), list(os.environ)):
        del os.environ[name]
    import torch
    from lightning.pytorch.callbacks import LambdaCallback

    from gwg_dist.training.settings import build_parser, instantiate
    from gwg_dist.training.trainer import make_trainer

    parser = build_parser()
    config = parser.parse_args([
        f"--trainer.max_time=00:00:00:{TRAINING_S}", "--trainer.max_steps=1000000", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false", "--evaluation.every=0", "--pictures_every=0",
    ])  # fmt: skip
    torch.set_num_threads(config.num_threads)
    objects, times = instantiate(parser, config), list[float]()
    clock = LambdaCallback(on_train_batch_end=lambda *_: times.append(time.monotonic()))
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        trainer = make_trainer(config, objects, Path(folder), callbacks=[clock])
        trainer.fit(objects.model, datamodule=objects.data)
    acceptance = float(objects.model.stats.accept_prob)  # waits for the device
    rate = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
    # getrusage would count what ran before exec
    peak = size(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10)
    found = f"{rate:.0f} iterations/s on {trainer.strategy.root_device}, acceptance {acceptance:.2f}, peak RSS {peak}"
    return judged(found, 0 < acceptance <= 1, "there is no such acceptance: run the tests", FAILED)


def run_checks(checks: Sequence[Check]) -> Iterator[tuple[str, Finding]]:
    """Every check's name and finding, as they come. Nothing that a check started outlives its time."""
    context, waiting = multiprocessing.get_context("spawn"), list(checks)
    while waiting:
        answers, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(waiting, theirs))
        process.start()
        theirs.close()
        try:
            while waiting:
                check = waiting.pop(0)
                finding = None
                with contextlib.suppress(EOFError):
                    finding = Finding(*answers.recv()) if answers.poll(check.seconds) else None
                if finding is None:
                    process.join(1)
                    how = f"no answer in {check.seconds:g} s" if process.is_alive() else f"died ({process.exitcode})"
                    yield check.name, Finding(how, FAILED, "its processes were ended; dmesg may say more")
                    break
                yield check.name, finding
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
            process.join()


def _work(checks: Sequence[Check], answers: Connection) -> None:
    os.setsid()  # a group that can be ended as a whole
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    for check in checks:
        try:
            finding = check.function(*check.arguments)
        except (Exception, SystemExit) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            finding = Finding(reason[:MAX_REASON], FAILED, "repair what it names")
        answers.send(tuple(finding))


def doctor(*, quick: bool = False, run_dir: str = "runs") -> bool:
    """Print the table, ``quick`` without training; whether nothing failed."""
    checks = all_checks(Path(run_dir), quick=quick)
    table = Table("check", "found", "", "what to do", title_justify="left")
    counts = dict.fromkeys(COLOURS, 0)
    with Console(stderr=True).status(f"{len(checks)} checks") as status:
        for name, (found, verdict, advice) in run_checks(checks):
            counts[verdict] += 1
            table.add_row(name, escape(found), f"[{COLOURS[verdict]}]{verdict}[/]", escape(advice))
            status.update(f"{table.row_count} of {len(checks)} checks")
    table.title = f"{socket.gethostname()}: {', '.join(f'{count} {name}' for name, count in counts.items())}"
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH, highlight=False).print(table)
    return counts[FAILED] == 0


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 0 where nothing failed, with 1 where something did, with 2 for a mistake."""
    try:
        from gwg_dist.tools.commands import make_parser
    except (ImportError, OSError):  # the table shows what is broken
        sys.exit(0 if doctor(quick="--quick" in sys.argv) else 1)
    parser = make_parser("python -m gwg_dist.doctor", __doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the training")
    parser.add_argument("--run_dir", type=str, default="runs", help="the folder whose disk is checked")
    config = parser.parse_args(args)
    if int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) > 0:
        return  # one table a machine
    sys.exit(0 if doctor(quick=config.quick, run_dir=config.run_dir) else 1)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, _: sys.exit(128 + number))  # and so ends the worker
    main()
