"""The doctor tells what is wrong: each check fails where it must, none can stop the others, none outlives its time."""

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from gwg_dist import doctor
from gwg_dist.doctor import FAILED, OK, WARNING, Check, Finding
from gwg_dist.samplers.fast import native
from tests.conftest import ROOT
from tests.support.runs import fails, run, start


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def ended(pids: list[int], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while any(map(running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(running, pids))


def hanging(pids: Path) -> Check:
    """A check that starts a process, and ends no more than that process does; both leave their numbers in ``pids``."""
    script = f"echo $PPID $$ > {pids}; exec sleep 600"
    return Check("hangs", subprocess.run, (["sh", "-c", script],), seconds=4)  # pyright: ignore[reportArgumentType]


def test_a_check_that_raises_hangs_or_dies_is_a_row_and_the_next_one_runs(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    checks = [
        Check("before", Finding, ("one",)),
        Check("raises", Path, (0,)),  # pyright: ignore[reportArgumentType]
        Check("exits", sys.exit, (2,)),
        Check("dies", os._exit, (9,)),
        Check("between", Finding, ("two",)),
        hanging(pids),
        Check("after", Finding, ("three",)),
    ]
    began = time.monotonic()
    findings = dict(doctor.run_checks(checks))
    assert time.monotonic() - began < 60
    assert list(findings) == [check.name for check in checks]
    assert [findings[name] for name in ("before", "between", "after")] == list(map(Finding, ("one", "two", "three")))
    assert findings["raises"].found.startswith("TypeError: ")
    assert findings["exits"].found == "SystemExit: 2"
    assert findings["dies"].found == "died (9)"
    assert findings["hangs"].found == "no answer in 4 s"
    assert {findings[name].status for name in ("raises", "exits", "dies", "hangs")} == {FAILED}
    assert ended(list(map(int, pids.read_text().split()))), "the check and what it started"


def test_a_reason_is_one_line() -> None:
    check = Check("raises", exec, ("raise ValueError('first\\nsecond')",))  # pyright: ignore[reportArgumentType]
    (_, finding), = doctor.run_checks([check])  # fmt: skip
    assert finding.found == "ValueError: first second"


def test_leaving_early_ends_the_check(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    rows = doctor.run_checks([Check("first", Finding, ("one",)), hanging(pids)])
    next(rows)
    until = time.monotonic() + 30
    while not (pids.exists() and pids.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    rows.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert ended(list(map(int, pids.read_text().split())))


# -- the installation -------------------------------------------------------------------------------------------------


def test_every_requirement_has_a_row(tmp_path: Path) -> None:
    """Also one that is new: rows are read from the project's metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    rows = [check.name for check in doctor.all_checks(tmp_path, quick=True)]
    assert required | {"python", "ray"} <= set(rows)
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("name", "version", "status", "advice"),
    [
        ("torch", "2.10.0", OK, ""),
        ("torch", "2.13.0+cu130", OK, ""),
        ("torch", "2.9.1", FAILED, "pip install 'torch<2.14,>=2.10'"),
        ("torch", "2.14.0", FAILED, "pip install 'torch<2.14,>=2.10'"),
        ("torch", None, FAILED, "pip install 'torch<2.14,>=2.10'"),
        ("ray", None, OK, ""),
        ("ray", "2.40.0", WARNING, "pip install 'ray[train,tune]<2.62,>=2.60'"),
    ],
)
def test_a_version_is_held_against_the_metadata(
    name: str, version: str | None, status: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed metadata's requirements count, not numbers of this module."""
    lines = ["torch<2.14,>=2.10", 'ray[tune,train]<2.62,>=2.60; extra == "tune"']

    def installed(_: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: {"Requires-Python": ">=3.11"})
    monkeypatch.setattr(importlib.metadata, "version", installed)
    finding = doctor.package_version(name)
    assert (finding.status, finding.advice) == (status, advice)


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.package_version("python").status == OK
    monkeypatch.setattr("sys.version", "3.9.1 (main)")
    finding = doctor.package_version("python")
    assert (finding.status, finding.advice) == (FAILED, "install 'python>=3.11'")


def test_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is not None:
        assert doctor.native_kernels().status == OK
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "compiler", lambda: "/bin/cc")
    assert doctor.native_kernels().found == "/bin/cc does not compile them"
    monkeypatch.setattr(native, "compiler", lambda: None)
    assert doctor.native_kernels()[:2] == ("no C compiler", WARNING)
    monkeypatch.setenv("GWG_DIST_NATIVE", "0")
    assert doctor.native_kernels()[:2] == ("switched off", WARNING)


# -- processors and processes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1.5), ("max 100000", float("inf")), ("", float("inf"))])
def test_the_quota_of_a_container(text: str, cores: float, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert doctor.cpu_quota(tmp_path / "cpu.max") == cores
    assert doctor.cpu_quota(tmp_path / "none") == float("inf")


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpu_quota", lambda _: 1.0)
    assert doctor.cores().status == OK
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert doctor.cores()[1:] == (WARNING, "set OMP_NUM_THREADS=1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("built", "status"), [(None, WARNING), ("13.0", FAILED)])
def test_a_driver_that_torch_cannot_use(
    built: str | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", built)
    assert doctor.cuda_devices() == Finding("none: training runs on the CPU")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 580.65.06\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    finding = doctor.cuda_devices()
    assert finding.status == status
    assert "580.65.06" in finding.found


@pytest.mark.slow
def test_gloo_meets_and_says_why_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "7")  # a launcher's own numbers do not matter
    monkeypatch.setenv("WORLD_SIZE", "9")
    good = Check("gloo", doctor.meeting, ("gloo", 2), seconds=90)
    (_, finding), = doctor.run_checks([good])  # fmt: skip
    assert finding.status == OK, finding
    assert "2 processes, 1 MiB summed in" in finding.found
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuchinterface")
    (_, finding), = doctor.run_checks([good])  # fmt: skip
    assert finding.status == FAILED, finding
    assert "GLOO_SOCKET_IFNAME" in finding.advice
    assert "Traceback" not in finding.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nccl_is_not_tried_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "meeting", lambda *_: pytest.fail("tried"))
    assert doctor.nccl().status == OK


def test_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Address(NamedTuple):
        address: str
        expected: str

    for address, expected in (Address("127.0.1.1", WARNING), Address("0.0.0.0", OK), Address("203.0.113.7", WARNING)):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        assert doctor.host_name().status == expected, address
    monkeypatch.undo()
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    assert doctor.host_name().status == WARNING
    assert "MASTER_ADDR" in doctor.host_name().advice


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6", "RANK": "0", "LOCAL_RANK": "0",
            "GROUP_RANK": "0"}  # fmt: skip
SRUN = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "2",
        "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "0"}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "status", "expected"),
    [
        ({}, OK, "none"),
        (TORCHRUN, OK, "torchrun: 2 processes on each of 3 machines"),
        (TORCHRUN | {"MASTER_ADDR": "127.0.0.1"}, OK, "rank 0 on 127.0.0.1"),
        (TORCHRUN | {"MASTER_ADDR": "no-such-host.invalid"}, FAILED, "rank 0 on no-such-host.invalid"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": "4"}, OK, "srun: 4 processes on each of 2 machines"),
        ({"SLURM_JOB_ID": "7"}, WARNING, "SLURM job 7"),
    ],
)
def test_launcher(variables: dict[str, str], status: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(doctor.LAUNCHERS)]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    finding = doctor.launcher()
    assert finding.status == status, finding
    assert expected in finding.found


# -- disks ------------------------------------------------------------------------------------------------------------


def test_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.run_folder(tmp_path / "not" / "there")
    assert finding.found.startswith(f"{tmp_path}, ")
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    (tmp_path / "file").write_text("")
    assert doctor.run_folder(tmp_path / "file").status == FAILED
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 << 30))
    assert doctor.run_folder(tmp_path).status == OK
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 30))
    assert doctor.run_folder(tmp_path)[1:] == (WARNING, "make room")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 << 30))
    monkeypatch.setattr(doctor, "SLOW_SYNC_S", -1.0)
    assert "slow" in doctor.run_folder(tmp_path).advice


def test_a_folder_of_another_user(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    finding = doctor.run_folder(tmp_path)
    assert finding.status == FAILED
    assert f"user {os.getuid()}" in finding.advice


def test_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(folder: Path) -> Finding:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)
        return doctor.temporary_folder(tmp_path / "runs")

    assert finding(tmp_path).status == OK
    assert "the filesystem of the runs" in finding(tmp_path).found
    assert finding(tmp_path / "gone").status == WARNING
    assert "gone" in finding(tmp_path / "gone").advice
    if os.stat("/dev/shm").st_dev != tmp_path.stat().st_dev:
        assert "another filesystem" in finding(Path("/dev/shm")).found


def test_shared_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=64 << 20))
    assert doctor.shared_memory()[:2] == ("64 MiB", WARNING)


def test_slurm_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.slurm_commands().status == OK, "no cluster is no mistake"
    for name in ("sinfo", "sbatch", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        expected = OK if name == "scontrol" else WARNING
        assert doctor.slurm_commands().status == expected


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--quck (did you mean quick?)" in fails(doctor.main, ["--quck"], capsys)
    assert "did you mean run_dir?" in fails(doctor.main, ["--run_dirr=x"], capsys)


def test_exit_codes_and_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for row, code in ((Check("good [x]", Finding, ("as [it] is",)), 0), (Check("bad", sys.exit), 1)):
        monkeypatch.setattr(
            doctor, "all_checks", lambda *args, row=row, **settings: asked.append((args, settings)) or [row]
        )
        with pytest.raises(SystemExit) as exit_info:
            doctor.main(["--quick", "--run_dir=elsewhere"])
        assert exit_info.value.code == code
    printed = capsys.readouterr().out
    assert "as [it] is" in printed, "brackets are no markup"
    assert "0 ok, 0 warning, 1 failed" in printed
    assert asked == [((Path("elsewhere"),), {"quick": True})] * 2
    monkeypatch.setenv("LOCAL_RANK", "1")
    doctor.main([])
    assert capsys.readouterr().out == "", "one table a machine"


def test_quick_leaves_out_the_training_alone() -> None:
    long, short = (doctor.all_checks(Path("runs"), quick=quick) for quick in (False, True))
    assert long[:-1] == short
    assert long[-1].function is doctor.training


def test_a_signal_ends_its_processes(tmp_path: Path) -> None:
    process = start("gwg_dist.doctor", [], tmp_path / "log")
    children: list[int] = []
    until = time.monotonic() + 100
    while len(children) < 2 and time.monotonic() < until:  # the worker, and what keeps account of its semaphores
        time.sleep(0.2)
        children = list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
    assert children, (tmp_path / "log").read_text()
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert ended(children)


@pytest.mark.slow
def test_this_machine_is_healthy_with_training(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = run("gwg_dist.doctor", [f"--run_dir={tmp_path / 'runs'}"], log, timeout=280, RANK="0", MASTER_ADDR="nowhere")
    text = log.read_text()
    assert code == 0, text
    row = next(line for line in text.splitlines() if "iterations/s" in line)
    rate = float(row.split("iterations/s")[0].split()[-1])
    acceptance = float(row.split("acceptance")[1].split(",")[0])
    assert rate > 1
    assert 0.1 < acceptance <= 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_broken_installation_gets_its_table(tmp_path: Path) -> None:
    (tmp_path / "lightning.py").write_text("raise ImportError('broken on purpose')\n")
    path = f"{tmp_path}:{Path(doctor.__file__).parents[1]}"
    code = run("gwg_dist.doctor", ["--quick"], tmp_path / "log", PYTHONPATH=path)
    text = (tmp_path / "log").read_text()
    assert code == 1, text
    assert "ImportError: broken on purpose" in text
    assert "Traceback" not in text
    assert "1 MiB summed" in text, "what does not need it is checked"
