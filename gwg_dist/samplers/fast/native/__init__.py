"""Kernels in C, compiled in a few seconds when they are first wanted; without a C compiler there are none.

No address is passed but by ``Bound``, which checks every tensor against the table in signatures.py.

The shared library is kept in the user's cache, named after its source, its flags and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from gwg_dist.samplers.fast.native.signatures import Argument, shapes, signature
from gwg_dist.tools.cache import cache_folder, is_private, keeping

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("kernels.c", "all_moves.h", "many_sites.h", "pair_sweep.h", "parallel.h")
]
# Sums may be reordered, so that they vectorise; NaN, infinity and the process's rounding mode stay what they are.
FLAGS = [
    "-O3", "-march=native", "-fPIC", "-shared", "-std=gnu11", "-pthread", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-fassociative-math",
]  # fmt: skip
TIMEOUT_S = 120

logger = logging.getLogger(__name__)


NUMBERS = {"size": int, "number": float}


class Late:
    """The place of an argument that changes from call to call."""


LATE = Late()


@cache
def compiler() -> str | None:
    """The C compiler's path or name, which options may follow: ``CC``, or what is on the path."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no working C compiler or ``GWG_DIST_NATIVE=0`` is set."""
    program = compiler()
    if os.environ.get("GWG_DIST_NATIVE") == "0" or program is None:
        return None
    text = "".join(source.read_text() for source in SOURCES)
    machine = f"{_processor()}{platform.libc_ver()}"
    key = hashlib.sha256(f"{text}{FLAGS}{program}{machine}".encode()).hexdigest()[:16]
    try:
        return ctypes.CDLL(str(_built(program, key)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logger.warning("no native kernels, %s fails: %s", program, error)
        return None


class Bound:
    """A kernel in C with its arguments checked once; those that change from call to call are given, and checked, then.

    It moves its chains by as many threads as torch had when it was made. The number makes no difference to a bit of the
    result, and where there is little to do one thread does it.

    Args:
        name: name of the function in C.
        arguments: in the order of the table in signatures.py: sizes, numbers, tensors, or ``LATE``.

    Raises:
        TypeError: an argument that is not a contiguous CPU tensor of the type and shape in the table.
    """

    def __init__(self, name: str, *arguments: Tensor | int | float | Late) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError(f"{name}: there are no kernels in C without a C compiler")
        self.name = name
        self.kept = arguments  # their memory is read by address
        self.late: list[tuple[Argument, tuple[int, ...]]] = []
        self.values = _struct(name)()
        arguments_of, threads = signature(name), num_threads()
        sizes = tuple(
            value
            for argument, value in zip(arguments_of, arguments, strict=True)
            if argument.kind == "size" and isinstance(value, int)
        )
        for argument, shape, value in zip(arguments_of, shapes(name, sizes, threads), arguments, strict=True):
            if value is LATE:
                self.late.append((argument, shape))
            elif isinstance(value, NUMBERS.get(argument.kind, ())):
                setattr(self.values, argument.name, value)
            else:
                setattr(self.values, argument.name, self._address(argument, shape, value))
        self._share = loaded.for_chains
        self._call = ctypes.c_int64(threads), ctypes.c_int64(sizes[0]), loaded[name], ctypes.byref(self.values)

    def __call__(self, *late: Tensor) -> None:
        for (argument, shape), value in zip(self.late, late, strict=True):
            setattr(self.values, argument.name, self._address(argument, shape, value))
        self._share(*self._call)

    def _address(self, argument: Argument, shape: tuple[int, ...], value: object) -> int:
        if (
            not isinstance(value, Tensor)
            or value.dtype != argument.dtype
            or value.shape != shape
            or not value.is_contiguous()
            or not value.is_cpu
        ):
            expected = (
                f"a contiguous CPU tensor of {argument.dtype} and shape {shape}" if shape else f"a {argument.kind}"
            )
            raise TypeError(f"{self.name}: {argument.name} must be {expected}, got {_described(value)}")
        return value.data_ptr()


def num_threads() -> int:
    """Threads that chains are shared among, and rows of an argument that each needs for itself: those of torch."""
    return torch.get_num_threads()


@cache
def _struct(name: str) -> type[ctypes.Structure]:
    """The struct that a kernel takes: its arguments in order, eight bytes each."""
    types = {"size": ctypes.c_int64, "number": ctypes.c_double, "tensor": ctypes.c_void_p}
    fields = [(argument.name, types[argument.kind]) for argument in signature(name)]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    layout = "contiguous" if value.is_contiguous() else "strided"
    return f"a {layout} tensor of {value.dtype} and shape {tuple(value.shape)} on {value.device}"


def _built(program: str, key: str) -> Path:
    """The library of this key, compiled where there is none or what is there is not what was compiled.

    Its length and its digest are in a file beside it. Processes may race, the last rename wins.
    """
    path = cache_folder() / f"kernels-{key}.so"
    if not _is_whole(path):
        with keeping(path) as unfinished:
            command = [*shlex.split(program), *FLAGS, "-o", str(unfinished), str(SOURCES[0]), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
            with keeping(_sum_of(path)) as beside:
                beside.write_text(_sum(unfinished))
    return path


def _is_whole(path: Path) -> bool:
    """Whether a library is this user's and has the bytes that were compiled: loading another can end the process."""
    if not (is_private(path) and is_private(_sum_of(path))):
        return False
    return _sum_of(path).read_text() == _sum(path)


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".sum")


def _sum(path: Path) -> str:
    contents = path.read_bytes()
    return f"{len(contents)} bytes, sha256 {hashlib.sha256(contents).hexdigest()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")
