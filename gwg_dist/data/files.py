"""Reading numpy files with errors that name the file and the field."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from gwg_dist.tools.errors import InputError


def read_arrays(path: str | Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz, or {"x": array} of an .npy; nothing pickled is loaded.

    Args:
        path: the file.
        name: the setting it came from, for messages.

    Raises:
        InputError: no such file, another suffix, a damaged file, pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{name}: there is no file {path}")
    if path.suffix not in (".npz", ".npy"):
        raise InputError(f"{name}: expected a .npz or .npy file, got {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        return {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InputError(f"{name}: {path} is damaged or holds more than plain arrays: {error}") from error
