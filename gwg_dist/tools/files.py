"""Writing files: whole or not at all, on disk when it is said, and a full disk is the caller's to survive or not."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from gwg_dist.tools.errors import InputError

_failing: set[str] = set()
logger = logging.getLogger("gwg_dist")


@contextlib.contextmanager
def replacing(path: str | Path, *, keep_as: str = "") -> Iterator[Path]:
    """Write a file through another one: fill the path that this yields; at the end it takes the name ``path``.

    The bytes are flushed to disk before the name changes, and the name after it, so that a power loss leaves the old
    file or the new one. Where the block raises, or the disk is full, the old file stays and nothing is left beside it.

    Args:
        path: the file to write; its folder is made.
        keep_as: name in the same folder under which the file that was there is kept; "" keeps none.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        if keep_as and final.is_file():
            _rename_copy(final, final.with_name(keep_as))
        os.replace(beside, final)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(final.parent)


def clear_scraps(folder: Path, names: Iterable[str]) -> None:
    """Delete what processes that were killed within ``replacing`` left of files of these names."""
    for name in names:
        for scrap in folder.glob(f".{name}.*tmp"):
            with contextlib.suppress(OSError):
                scrap.unlink()


@contextlib.contextmanager
def surviving(what: str) -> Iterator[None]:
    """Turn a file that cannot be written into one line of the log: a run is worth more than ``what``.

    The line is not repeated until ``what`` could be written again.
    """
    try:
        yield
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        if what not in _failing:
            logger.error("%s could not be written: %s; the run goes on", what, cause)
        _failing.add(what)
    else:
        _failing.discard(what)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` whole or not at all. Raises OSError where it cannot be written."""
    with replacing(path) as beside:
        beside.write_text(text)


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write ``values`` whole or not at all. Raises OSError where they cannot be written."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_tensors(path: str | Path, values: dict[str, Any], *, keep_as: str = "") -> None:
    """Write what ``torch.load`` reads, whole or not at all; see ``replacing``. Raises OSError where it cannot."""
    with replacing(path, keep_as=keep_as) as beside, open(beside, "wb") as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:
            raise _system_error(error) or error from None


def make_folder(folder: str | Path, *, name: str) -> None:
    """Make a folder that files can be written to. Raises InputError, which names the setting ``name``, otherwise."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{name}: {folder} cannot be written to: {error}") from error


def _system_error(error: BaseException) -> OSError | None:
    """The error of the file system behind an error of a library that was writing; None where there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found


def _rename_copy(path: Path, name: Path) -> None:
    """Give a file a second name, in place of the file of that name."""
    beside = name.with_name(f".{name.name}.tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # a filesystem without links: for a moment there is only the other name
        os.replace(path, name)
    else:
        os.replace(beside, name)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, on filesystems that offer it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
