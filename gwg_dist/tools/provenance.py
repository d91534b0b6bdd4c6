"""Where a result comes from: version and commit of the code, versions of what it stands on, hardware, time."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

import torch

import gwg_dist

CPU_INFO = Path("/proc/cpuinfo")


@cache
def code_version() -> str:
    """Version, commit, and "-dirty" where files differ from the commit."""
    described = None
    if shutil.which("git") is not None:
        command = ["git", "-C", str(Path(gwg_dist.__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        described = subprocess.run(command, capture_output=True, text=True)
    known = described is not None and described.returncode == 0
    return f"gwg_dist {gwg_dist.__version__}, {described.stdout.strip() if described and known else 'commit unknown'}"


def cpu_flags() -> set[str]:
    """What this processor can do, in the kernel's words; empty where the system does not say."""
    return set(_cpu_info("flags").split())


@cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself, and torch has the products for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags()) and torch.backends.mkldnn.is_available()


def device_name(device: torch.device) -> str:
    """The name of a GPU; of a processor, with the widest vectors that it multiplies."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    widest = next((kind for kind in ("avx512_bf16", "avx512f", "avx2") if kind in cpu_flags()), None)
    return f"{name} ({widest})" if widest else name


def provenance(device: torch.device) -> dict[str, str | int]:
    """What a number was made by: code, versions, hardware, threads, date."""
    return {
        "code": code_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_info(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; "" where there is none."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
