"""Kernels in C, compiled in a second when they are first wanted; without a C compiler there are none.

The shared library is kept in the user's cache, named after its source, its flags and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from torch import Tensor

SOURCES = [Path(__file__).with_name(name) for name in ("kernels.c", "all_moves.h")]
# Sums may be reordered, so that they vectorise; NaN, infinity and the process's rounding mode stay what they are.
FLAGS = [
    "-O3", "-march=native", "-fPIC", "-shared", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-fassociative-math",
]  # fmt: skip
TIMEOUT_S = 120

logger = logging.getLogger(__name__)


@cache
def compiler() -> str | None:
    """The C compiler's path or name: ``CC``, or what is on the path."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no working C compiler or ``GWG_DIST_NATIVE=0`` is set."""
    program = compiler()
    if os.environ.get("GWG_DIST_NATIVE") == "0" or program is None:
        return None
    text = "".join(source.read_text() for source in SOURCES)
    key = hashlib.sha256(f"{text}{FLAGS}{program}{_processor()}".encode()).hexdigest()[:16]
    try:
        return ctypes.CDLL(str(_built(program, key)))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("no native kernels, %s fails: %s", program, error)
        return None


def call(name: str, *arguments: Tensor | int | float) -> None:
    """Run a kernel on contiguous CPU tensors, 64-bit integers and doubles."""
    loaded = library()
    assert loaded is not None
    loaded[name](*(_as_c(argument) for argument in arguments))


def _as_c(argument: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_double(argument)


def _built(program: str, key: str) -> Path:
    """The library of this key, compiled where it is not there yet; processes may race, the last rename wins."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gwg_dist"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        folder = Path(tempfile.mkdtemp(prefix="gwg_dist_"))
    path = folder / f"kernels-{key}.so"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as unfinished:
            command = [program, *FLAGS, "-o", unfinished.name, str(SOURCES[0]), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
        os.replace(unfinished.name, path)
    return path


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")
