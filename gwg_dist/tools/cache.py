"""The folder of what can be made again: in the user's cache where it is the user's alone, else in a folder that is.

What is kept there is run or shown later, so a folder that another user owns, or may write to, is not used.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """Where this user keeps what programs can make again; one folder for the user where the home cannot be written to.

    Where even that is another's, a folder for this process.
    """
    for folder in (_of_the_user(), Path(tempfile.gettempdir()) / f"gwg_dist-{os.geteuid()}"):
        if folder is not None and _made(folder):
            return folder
    return _of_this_process()


def is_private(path: Path) -> bool:
    """Whether a file or folder belongs to this user, who alone may write to it; no link."""
    try:
        found = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
    return kind and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def keeping(path: Path) -> Iterator[Path]:
    """Fill the path that this yields; it takes the name ``path`` once its bytes are on disk. Raises OSError."""
    beside = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}.tmp")
    try:
        yield beside
        beside.chmod(0o600)
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _of_the_user() -> Path | None:
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "gwg_dist"
    except RuntimeError:  # no HOME, and no entry for the user
        return None


def _made(folder: Path) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError:
        return False
    return is_private(folder) and os.access(folder, os.W_OK)


@cache
def _of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="gwg_dist_"))
