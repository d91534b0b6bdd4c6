"""How much memory there is for this process."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from gwg_dist.tools.errors import InputError

WORTH_A_LOOK = 2**30  # bytes; less is had or refused by the allocator
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def free_memory(root: str | Path = "/") -> int | None:
    """Bytes that can still be taken: of the machine, or of the container or job where that has less; None if unknown.

    Args:
        root: where proc and sys are.
    """
    root = Path(root)
    rooms = [*_of_machine(root), *_of_groups(root)]
    return max(min(rooms), 0) if rooms else None


def check_room(num_bytes: int, what: str, instead: str) -> None:
    """Raise InputError, before anything is allocated, where there is no room for so many bytes on the machine.

    Args:
        num_bytes: what will be taken; less than a gigabyte is not looked at.
        what: what takes it, in the plural.
        instead: what takes less.
    """
    if num_bytes < WORTH_A_LOOK:
        return
    free = free_memory()
    if free is not None and num_bytes > free:
        raise InputError(f"{what} take {in_words(num_bytes)} of memory and {in_words(free)} are free: {instead}")


def in_words(num_bytes: float) -> str:
    """A number of bytes as people say it: 1.5 GB."""
    for unit in UNITS[:-1]:
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} {UNITS[-1]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, whichever library it is from."""
    words = r"can't allocate memory|not enough memory|out of memory|calculation overflowed|unable to allocate"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search(words, str(error), re.IGNORECASE) is not None
    )


def _of_machine(root: Path) -> Iterator[int]:
    found = re.search(r"MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"))
    if found:
        yield int(found[1]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    """Of the control group of this process and those above it, in version 2 and 1; file caches can be given back."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        limit, used = ("memory.max", "memory.current") if not controllers else _VERSION_1
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            texts = [_text(folder / name) for name in (limit, used)]
            if all(text.strip().isdigit() for text in texts):
                caches = re.search(r"^(?:total_)?inactive_file (\d+)", _text(folder / "memory.stat"), re.M)
                yield int(texts[0]) - int(texts[1]) + (int(caches[1]) if caches else 0)


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):  # another kind of machine: not known
        return path.read_text()
    return ""
