"""Points in files of their own, for questions to a model: arrays and tables of codes, with holes where one may be."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.files import ARRAYS, MATLAB, existing, read_arrays, read_text
from gwg_dist.data.forms import SITES, Grey, kind_of, numbers_of, of_grey
from gwg_dist.data.image_files import are_images, image_points
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import replacing

TABLES = {".csv": ",;\t ", ".tsv": "\t"}
WRITTEN = (*ARRAYS, *TABLES)
MISSING_CELLS = ("", "?", ".", "NA", "NaN", "nan")
LEVELS = 255


def read_points(
    path: str | Path,
    space: Space,
    *,
    missing_as: int | None = None,
    values: Sequence[int] | None = None,
    order: str | None = None,
    grey: Grey | None = None,
) -> tuple[Tensor, list[str]]:
    """Codes ``(N, D)`` int64 of a file, and a name for each point: its number, from 1, or that of its image.

    An .npz, .npy or .mat holds integers ``(N, ...)``; of several arrays it is x, or the only one whose points have D
    sites. Two levels 0 and 255 are 0 and 1 of a Binary space. One-hot sites, packed bits, and the grey levels of a run
    that made categories of such are recognised, and it is said. An .npz with energies f beside x, as ``gwg_dist
    sample`` writes it, holds codes in any case. A .csv or .tsv has a point a line and a site a column. A folder holds
    images, see ``image_points``; a single image is read as well.

    Args:
        path: the file, or a folder of images.
        space: where the points live.
        missing_as: the code that stands for a missing site in what is returned. In arrays -1 and NaN are missing, in
            tables -1, an empty cell, "?", "." and NA. None refuses missing sites.
        values: what the file holds for the codes 0, 1, ..., in order; None where it holds codes. With -1 among them,
            -1 is not missing.
        order: of packed bits in the run's own file, "big" or "little"; None where it had none.
        grey: how the grey levels of the run's own file became categories; None where it had none.

    Raises:
        InputError: no such file, one of another kind, another number of sites, a value that is no category; it names
            the file, and the line and column or the point and site.
    """
    path = Path(path).expanduser()
    path = path if path.is_dir() else existing(path, "file")
    suffix, names = path.suffix.lower(), None
    if are_images(path):
        numbers, names, are_codes = image_points(path, space, grey=grey)
        values, grey = (None if are_codes else values), None
    elif suffix in (*ARRAYS, MATLAB):
        arrays = read_arrays(path, "file")
        values, grey = (None, None) if {"x", "f"} <= arrays.keys() else (values, grey)
        numbers = _array(arrays, path, space, order, bits=values is None and grey is None)
    elif suffix in TABLES:
        numbers = _table(path, space)
    else:
        known = ", ".join(WRITTEN)
        raise InputError(f"file: {path} is of no kind that the data of this run are read from: {known}, images")
    if values is not None:
        numbers = _codes_of(numbers, np.array(values), str(path))
    codes = checked_codes(of_grey(numbers, grey, str(path)), space, str(path), missing_as=missing_as)
    return codes, names or [str(n + 1) for n in range(len(codes))]


def values_of(codes: Tensor, values: Sequence[int] | None) -> np.ndarray:
    """What a file holds for codes ``(N, D)`` in which -1 is a missing site; see ``read_points``.

    A missing site is -1, or NaN where -1 is one of the values.
    """
    points = codes.cpu().numpy()
    if values is None:
        return points
    found = np.array(values)[points]
    missing = points == -1
    if not missing.any():
        return found
    return np.where(missing, np.nan, found) if -1 in values else np.where(missing, -1, found)


def _codes_of(numbers: np.ndarray, values: np.ndarray, where: str) -> np.ndarray:
    """Codes of numbers ``(N, D)`` that are among sorted values, -1 for a missing site."""
    missing = np.isnan(numbers) if numbers.dtype.kind == "f" else np.zeros(numbers.shape, bool)
    missing |= (numbers == -1) & (-1 not in values)
    found = np.where(missing, values[0], numbers)
    codes = np.searchsorted(values, found).clip(max=len(values) - 1)
    wrong = values[codes] != found
    if wrong.any():
        n, site = (int(i) for i in np.argwhere(wrong)[0])
        known = ", ".join(map(str, values[:20])) + (", ..." if len(values) > 20 else "")
        raise InputError(f"{where}: point {n + 1}, site {site + 1} is {numbers[n, site]:g}, expected one of the values "
                         f"that the run's data have: {known}")  # fmt: skip
    return np.where(missing, -1, codes)


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


def write_points(
    path: str | Path, codes: Tensor, names: Sequence[str], space: Space, *, values: Sequence[int] | None = None
) -> None:
    """Write codes ``(N, D)`` where ``read_points`` with these ``values`` finds them, by the suffix of ``path``.

    An .npz holds x ``(N, ...)`` in the shape of the space and the names, a .csv or .tsv a point a line.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix, points = path.suffix.lower(), values_of(codes, values)
    if suffix not in WRITTEN:
        raise InputError(f"out must end in {', '.join(WRITTEN)}, got {path}")
    shaped = points.reshape(len(points), *space.shape)
    with replacing(path) as beside:
        if suffix in TABLES:
            np.savetxt(beside, points, fmt="%.0f", delimiter=TABLES[suffix][0])
            return
        with open(beside, "wb") as file:
            if suffix == ".npz":
                np.savez_compressed(file, x=shaped, names=np.array(list(names)))
            else:
                np.save(file, shaped)


def _array(arrays: dict[str, np.ndarray], path: Path, space: Space, order: str | None, *, bits: bool) -> np.ndarray:
    """The numbers ``(N, D)`` of an array file; 0 and 1 for two levels 0 and 255 where they are to be ``bits``."""
    kinds = {name: kind_of(array, space) for name, array in arrays.items()}
    fitting = [name for name, kind in kinds.items() if kind == SITES] or [name for name, kind in kinds.items() if kind]
    name = next((name for name in ("x", *fitting) if name in arrays), None)
    if name is None or kinds[name] is None or (name != "x" and len(fitting) > 1):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
        raise InputError(f"file: {path} needs one array (N, ...) with {space.num_sites} numbers a point, or x among "
                         f"several; it has {shapes}")  # fmt: skip
    if arrays[name].dtype.kind not in "iufb":
        raise InputError(f"file: array {name} of {path} must hold integers, got {arrays[name].dtype}")
    array = numbers_of(arrays[name], space, str(path), order=order)
    values = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    two_levels = bits and space.num_categories == 2 and array.size and np.isin(values, (0, LEVELS)).all()
    return values // LEVELS if two_levels and (values == LEVELS).any() else values


def _table(path: Path, space: Space) -> np.ndarray:
    """The numbers ``(N, D)`` of a text file, NaN where a cell is missing."""
    lines = [(number, line) for number, line in enumerate(read_text(path, "file").splitlines(), 1) if line.strip()]
    delimiter = max(TABLES[path.suffix.lower()], key=lines[0][1].count)
    rows = [
        (number, [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]) for number, line in lines
    ]
    values = []
    for index, (number, cells) in enumerate(rows):
        if index == 0 and not any(map(_is_number, cells)) and not set(cells) <= set(MISSING_CELLS):
            continue  # the names of the columns; that of an index may be empty
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
