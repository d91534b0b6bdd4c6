"""A help page that is slow to make is kept in the user's cache, and shown from there.

The settings of a run are read from the signatures of a dozen classes and of Lightning's trainer; importing them takes
seconds. The page is made anew when a file of the package, a version below it or the width of the terminal has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
BELOW = ("torch", "lightning", "jsonargparse")
ASKS_FOR_HELP = (["--help"], ["-h"])


def show_help(prog: str, make: Callable[[], str]) -> None:
    """Print the help page of ``prog``: the one that was kept, or else the one that ``make`` returns, which is kept."""
    page = _page(prog)
    try:
        text = page.read_text()
    except OSError:
        text = make()
        with contextlib.suppress(OSError):  # the next call makes it again
            _keep(page, text)
    sys.stdout.write(text)


def cache_folder() -> Path:
    """Where this user keeps what programs can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gwg_dist"


def _keep(page: Path, text: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for older in page.parent.glob(f"{page.stem.rpartition('-')[0]}-*.txt"):
        older.unlink(missing_ok=True)
    beside = page.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(text)
    beside.replace(page)


def _page(prog: str) -> Path:
    """The file of a page; its name holds a digest of everything that the page depends on."""
    seen = hashlib.sha256(f"{prog} {shutil.get_terminal_size().columns} {sys.version}".encode())
    for name in BELOW:
        seen.update(importlib.metadata.version(name).encode())
    for path in sorted([*PACKAGE.rglob("*.py"), *(PACKAGE / "configs").glob("*/*.yaml")]):
        stat = path.stat()
        seen.update(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode())
    return cache_folder() / "help" / f"{prog.replace(' ', '-')}-{seen.hexdigest()[:16]}.txt"
