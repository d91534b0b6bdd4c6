"""A help page that is slow to make is kept in the user's cache, and shown from there.

The settings of a run are read from the signatures of a dozen classes and of Lightning's trainer; importing them takes
seconds. The page is made anew when a file of the package, a version below it or the width of the terminal has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from gwg_dist.tools.cache import cache_folder, is_private, keeping

PACKAGE = Path(__file__).parents[1]
BELOW = ("torch", "lightning", "jsonargparse")
ASKS_FOR_HELP = (["--help"], ["-h"])


def show_help(prog: str, make: Callable[[], str]) -> None:
    """Print the help page of ``prog``: the one that was kept, or else the one that ``make`` returns, which is kept."""
    page = _page(prog)
    try:
        text = page.read_text() if is_private(page) else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        text = make()
        with contextlib.suppress(OSError):  # the next call makes it again
            _keep(page, text)
    sys.stdout.write(text)


def _keep(page: Path, text: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for older in page.parent.glob(f"{page.stem.rpartition('-')[0]}-*.txt"):
        older.unlink(missing_ok=True)
    with keeping(page) as beside:
        beside.write_text(text)


def _page(prog: str) -> Path:
    """The file of a page; its name holds a digest of everything that the page depends on."""
    seen = hashlib.sha256(f"{prog} {shutil.get_terminal_size().columns} {sys.version}".encode())
    for name in BELOW:
        seen.update(importlib.metadata.version(name).encode())
    for path in sorted([*PACKAGE.rglob("*.py"), *(PACKAGE / "configs").glob("*/*.yaml")]):
        stat = path.stat()
        seen.update(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode())
    return cache_folder() / "help" / f"{prog.replace(' ', '-')}-{seen.hexdigest()[:16]}.txt"
