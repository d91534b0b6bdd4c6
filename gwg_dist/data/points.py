"""Points in files of their own, for questions to a model: arrays and tables of codes, with holes where one may be."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.files import existing, read_arrays
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import replacing

ARRAYS, TABLES = (".npz", ".npy"), {".csv": ",;\t ", ".tsv": "\t"}
MISSING_CELLS = ("", "?", ".", "NA", "NaN", "nan")
LEVELS = 255


def read_points(path: str | Path, space: Space, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
    """Codes ``(N, D)`` int64 of a file, and a name for each point: its number, from 1.

    An .npz or .npy holds integers ``(N, ...)``; of several arrays it is x, or the only one whose points have D sites.
    Two levels 0 and 255 are 0 and 1 of a Binary space. A .csv or .tsv has a point a line and a site a column.

    Args:
        path: the file.
        space: where the points live.
        missing_as: the code that stands for a missing site in what is returned. In arrays -1 and NaN are missing, in
            tables -1, an empty cell, "?", "." and NA. None refuses missing sites.

    Raises:
        InputError: no such file, one of another kind, another number of sites, a value that is no category; it names
            the file, and the line and column or the point and site.
    """
    path = existing(path, "file")
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        values = _array(path, space)
    elif suffix in TABLES:
        values = _table(path, space)
    else:
        known = ", ".join((*ARRAYS, *TABLES))
        raise InputError(f"file: {path} is of no kind that the data of this run are read from: {known}")
    return checked_codes(values, space, str(path), missing_as=missing_as), [str(n + 1) for n in range(len(values))]


def checked_codes(values: np.ndarray, space: Space, where: str, *, missing_as: int | None = None) -> Tensor:
    """Codes ``(N, D)`` int64 out of numbers in which -1 and NaN are missing sites.

    Args:
        values: ``(N, D)``.
        space: where the points live.
        where: what they came from, for messages.
        missing_as: the code of a missing site in what is returned; None refuses missing sites.

    Raises:
        InputError: no points, a value that is no category, a missing site that is not wanted; it names the first.
    """
    if not len(values):
        raise InputError(f"{where} holds no points")
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    missing |= values == -1
    found = np.where(missing, 0, values)
    wrong = (found != np.round(found)) | (found < 0) | (found >= np.array(space.sizes))
    if wrong.any():
        n, site = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{where}: point {n + 1}, site {site + 1} is {values[n, site]:g}, expected an integer from 0 to "
            f"{space.sizes[site] - 1}"
        )
    if missing_as is None and missing.any():
        n, site = (int(i) for i in np.argwhere(missing)[0])
        raise InputError(f"{where}: point {n + 1}, site {site + 1} is missing; gwg_dist complete fills it in")
    codes = torch.from_numpy(found.astype(np.int64))
    return codes if missing_as is None else codes.masked_fill(torch.from_numpy(missing), missing_as)


def write_points(path: str | Path, codes: Tensor, names: Sequence[str], space: Space) -> None:
    """Write codes ``(N, D)`` where ``read_points`` finds them again, by the suffix of ``path``.

    An .npz holds x ``(N, ...)`` in the shape of the space and the names, a .csv or .tsv a point a line.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix, points = path.suffix.lower(), codes.cpu().numpy()
    if suffix not in (*ARRAYS, *TABLES):
        raise InputError(f"out must end in {', '.join((*ARRAYS, *TABLES))}, got {path}")
    shaped = points.reshape(len(points), *space.shape)
    with replacing(path) as beside:
        if suffix in TABLES:
            np.savetxt(beside, points, fmt="%d", delimiter=TABLES[suffix][0])
            return
        with open(beside, "wb") as file:
            if suffix == ".npz":
                np.savez_compressed(file, x=shaped, names=np.array(list(names)))
            else:
                np.save(file, shaped)


def _array(path: Path, space: Space) -> np.ndarray:
    """The numbers ``(N, D)`` of an array file."""
    arrays = read_arrays(path, "file")
    fitting = {name: a for name, a in arrays.items() if a.ndim > 1 and a.size == len(a) * space.num_sites}
    name = next((name for name in ("x", *fitting) if name in arrays), None)
    if name not in fitting or (name != "x" and len(fitting) > 1):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
        raise InputError(f"file: {path} needs one array (N, ...) with {space.num_sites} numbers a point, or x among "
                         f"several; it has {shapes}")  # fmt: skip
    array = fitting[name].reshape(len(fitting[name]), space.num_sites)
    if array.dtype.kind not in "iufb":
        raise InputError(f"file: array {name} of {path} must hold integers, got {array.dtype}")
    values = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    two_levels = space.num_categories == 2 and array.size and np.isin(values, (0, LEVELS)).all()
    return values // LEVELS if two_levels and (values == LEVELS).any() else values


def _table(path: Path, space: Space) -> np.ndarray:
    """The numbers ``(N, D)`` of a text file, NaN where a cell is missing."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"file: {path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"file: {path} is empty")
    delimiter = max(TABLES[path.suffix.lower()], key=lines[0][1].count)
    rows = [
        (number, [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]) for number, line in lines
    ]
    values = []
    for index, (number, cells) in enumerate(rows):
        if index == 0 and not any(cell in MISSING_CELLS or _is_number(cell) for cell in cells):
            continue  # the names of the columns
        if len(cells) != space.num_sites:
            raise InputError(f"file: {path}, line {number}: {len(cells)} cells, expected {space.num_sites}")
        wrong = next((i for i, cell in enumerate(cells) if cell not in MISSING_CELLS and not _is_number(cell)), None)
        if wrong is not None:
            raise InputError(f"file: {path}, line {number}, column {wrong + 1}: {cells[wrong]!r} is no number")
        values.append([np.nan if cell in MISSING_CELLS else float(cell) for cell in cells])
    return np.array(values, dtype=np.float64).reshape(len(values), space.num_sites)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
