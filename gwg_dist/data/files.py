"""Reading numpy and MATLAB files and text with errors that name the file and the field."""

from __future__ import annotations

import difflib
import gzip
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from gwg_dist.tools.errors import InputError

ARRAYS, MATLAB = (".npz", ".npy"), ".mat"
GZIP = b"\x1f\x8b"  # the beginning of a compressed file
# What numpy and zipfile raise for a file that is torn or strange; NotImplementedError is an unknown compression.
UNREADABLE = (OSError, ValueError, EOFError, KeyError, BadZipFile, NotImplementedError, zlib.error)


def existing(path: str | Path, name: str, *, folder: bool = False) -> Path:
    """``path`` where there is such a file, or folder. Raises InputError otherwise, with the name most like it."""
    path = Path(path).expanduser()
    kind, there = ("folder", path.is_dir()) if folder else ("file", path.is_file())
    if there:
        return path
    if path.exists():
        raise InputError(f"{name}: {path} is no {kind}")
    near: list[str] = []
    if path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    hint = f" (did you mean {path.with_name(near[0])}?)" if near else ""
    raise InputError(f"{name}: there is no {kind} {path}{hint}")


def check_held_out(held_out: float) -> float:
    """``held_out`` itself. Raises ValueError unless it is a fraction that leaves points to train on."""
    if not 0 < held_out < 0.5:
        raise ValueError(f"held_out must lie in (0, 0.5), got {held_out}")
    return held_out


def read_text(path: str | Path, name: str) -> str:
    """The text of a file, plain or compressed by gzip, its line breaks as "\\n".

    Args:
        path: the file.
        name: the setting it came from, for messages.

    Raises:
        InputError: no such file, an empty or damaged one, one that is not UTF-8.
    """
    path = existing(path, name)
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"{error.reason} at byte {error.start}; save it as UTF-8"
        raise InputError(f"{name}: {path} is not text in UTF-8: {what}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: {path} cannot be read: {error}") from error
    if not text.strip():
        raise InputError(f"{name}: {path} is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_arrays(path: str | Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz or .mat, or {"x": array} of an .npy; nothing pickled is loaded.

    Args:
        path: the file.
        name: the setting it came from, for messages.

    Raises:
        InputError: no such file, another suffix, a damaged file, pickled objects.
    """
    path = existing(path, name)
    if path.suffix.lower() not in (*ARRAYS, MATLAB):
        raise InputError(f"{name}: expected a .npz, .npy or .mat file, got {path}")
    if not path.stat().st_size:
        raise InputError(f"{name}: {path} is empty")
    if path.suffix.lower() == MATLAB:
        return _matlab(path, name)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        return {key: loaded[key] for key in loaded.files}
    except MemoryError as error:
        raise InputError(f"{name}: {path} does not fit into memory: {error}") from error
    except UNREADABLE as error:
        raise InputError(f"{name}: {path} is damaged or holds more than plain arrays: {error}") from error


def _matlab(path: Path, name: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path)
    except (*UNREADABLE, TypeError, MatReadError) as error:
        raise InputError(f"{name}: {path} is damaged or no MATLAB file up to version 7.2: {error}") from error
    return {key: array for key, array in found.items() if isinstance(array, np.ndarray)}
