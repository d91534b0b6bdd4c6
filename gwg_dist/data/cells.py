"""Tables as text: the columns of a .csv, .tsv, .parquet or .npz, each with the different cells that it has.

A cell is what the file says, without white space around it. What it means is the matter of categories.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gwg_dist.data.files import existing, read_arrays, read_text
from gwg_dist.data.points import MISSING_CELLS
from gwg_dist.tools.errors import InputError

DELIMITERS = {".tsv": "\t", ".csv": ",;\t "}
SUFFIXES = (*DELIMITERS, ".parquet", ".npz")
LOOKED_AT = 50  # lines that tell the delimiter


class Column(NamedTuple):
    """One column.

    Args:
        name: its name, or its number from 1.
        values: the different cells, in the order in which they first occur.
        which: which of them each row has, ``(N,)`` int32.
    """

    name: str
    values: list[str]
    which: np.ndarray

    def rows(self, kept: np.ndarray) -> Column:
        """The column of these rows, ``(N,)`` booleans, with the cells that are left."""
        used, index = np.unique(self.which[kept], return_inverse=True)
        return Column(self.name, [self.values[i] for i in used], index.astype(np.int32))

    def first(self, value: int) -> int:
        """The first row that has the cell of this number."""
        return int((self.which == value).argmax())


class Cells(NamedTuple):
    """A table.

    Args:
        path: the file.
        columns: its columns.
        places: where each row is in the file, ``(N,)``: the number of its line, or of the row, from 1.
        unit: "line" or "row".
        named: whether the file names its columns.
    """

    path: Path
    columns: list[Column]
    places: np.ndarray
    unit: str
    named: bool

    def where(self, row: int, column: str) -> str:
        """A cell's place, for messages."""
        return f"{self.path}, {self.unit} {self.places[row]}, column {column}"

    def rows(self, kept: np.ndarray) -> Cells:
        """These rows alone, ``(N,)`` booleans."""
        return self._replace(columns=[column.rows(kept) for column in self.columns], places=self.places[kept])


def read_cells(path: str | Path, name: str, *, header: bool | None = None) -> Cells:
    """The cells of a table.

    Args:
        path: a .csv or .tsv, whose delimiter is found out; a .parquet; an .npz with an array ``(N,)`` a column, or with
            one array ``(N, D)``.
        name: the setting it came from, for messages.
        header: whether the first line of a text names the columns; None finds out: it has no number and no missing
            cell, and none of its cells occurs again in its column.

    Raises:
        InputError: no such file, one of another kind, no text, no rows, a line of another length, a name that two
            columns have, pyarrow not installed.
    """
    path = existing(path, name)
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        found = _text(path, name, header)
    elif suffix == ".parquet":
        found = _parquet(path, name)
    elif suffix == ".npz":
        found = _arrays(path, name)
    else:
        raise InputError(f"{name}: expected a table, {', '.join(SUFFIXES)}, got {path}")
    if not found.columns or not len(found.places):
        raise InputError(f"{name}: {path}, there are no rows")
    names = [column.name for column in found.columns]
    for number, column in enumerate(names):
        if column in names[:number]:
            both = f"columns {names.index(column) + 1} and {number + 1}"
            raise InputError(f"{name}: {path}, {both} have the same name {column!r}: every column needs its own")
    return found


def write_cells(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, delimiter: str) -> None:
    """Write a text table; no first line where there is no header."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        if header:
            writer.writerow(header)
        writer.writerows(rows)


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def column_of(name: str, cells: Iterable[Any]) -> Column:
    """A column out of its cells: text, or what else a file holds; None is an empty cell."""
    numbers: dict[str, int] = {}
    texts = ("" if cell is None else cell.decode() if isinstance(cell, bytes) else str(cell).strip() for cell in cells)
    index = [numbers.setdefault(text, len(numbers)) for text in texts]
    return Column(name, list(numbers), np.array(index, dtype=np.int32))


def _text(path: Path, name: str, header: bool | None) -> Cells:
    text = read_text(path, name)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, DELIMITERS[path.suffix.lower()]))
    rows, places = [], []
    try:
        for cells in reader:
            if cells and any(cell.strip() for cell in cells):
                rows.append(cells)
                places.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{name}: {path}, line {reader.line_num}: {error}") from error
    for place, cells in zip(places, rows, strict=True):
        if len(cells) != len(rows[0]):
            raise InputError(f"{name}: {path}, line {place}: {len(cells)} cells, expected {len(rows[0])}")
    columns = [column_of(str(number), cells) for number, cells in enumerate(zip(*rows, strict=True), 1)]
    named = header if header is not None else all(map(_begins_with_a_name, columns))
    if named:
        names, body = rows[0], np.arange(len(rows)) > 0
        columns = [column._replace(name=cell.strip()).rows(body) for column, cell in zip(columns, names, strict=True)]
        places = places[1:]
    return Cells(path, columns, np.array(places), "line", named)


def _begins_with_a_name(column: Column) -> bool:
    """Whether the first cell looks like the name of a column."""
    first = column.values[0]
    return not is_number(first) and first not in MISSING_CELLS and int((column.which == 0).sum()) == 1


def _delimiter(text: str, known: str) -> str:
    """The first that cuts the first lines into equally many cells, more than one; else that of most cuts."""
    lines = [line for line in text.splitlines()[: 2 * LOOKED_AT] if line.strip()][:LOOKED_AT]
    for delimiter in known:
        try:
            widths = {len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells}
        except csv.Error:
            continue
        if len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return max(known, key=lines[0].count)


def _parquet(path: Path, name: str) -> Cells:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(f"{name}: reading {path} needs pyarrow: pip install 'gwg_dist[parquet]'") from error
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise InputError(f"{name}: {path} is damaged or no Parquet file: {str(error).splitlines()[0]}") from error
    names = table.column_names
    columns = [column_of(column, table.column(i).to_pylist()) for i, column in enumerate(names)]
    return Cells(path, columns, np.arange(1, table.num_rows + 1), "row", True)


def _arrays(path: Path, name: str) -> Cells:
    arrays = read_arrays(path, name)
    named = all(array.ndim == 1 for array in arrays.values())
    if named:
        lengths = {len(array) for array in arrays.values()}
        columns = [column_of(key, array.tolist()) for key, array in arrays.items()]
    else:
        key = "x" if "x" in arrays else next(iter(arrays))
        if arrays[key].ndim != 2 or (key != "x" and len(arrays) > 1):
            shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
            raise InputError(f"{name}: {path} needs an array (N,) for each column, or x (N, columns); it has {shapes}")
        lengths = {len(arrays[key])}
        columns = [column_of(str(number), cells.tolist()) for number, cells in enumerate(arrays[key].T, 1)]
    if len(lengths) > 1:
        shapes = ", ".join(f"{key} {len(array)}" for key, array in arrays.items())
        raise InputError(f"{name}: {path}, the columns must have the same length, got {shapes}")
    return Cells(path, columns, np.arange(1, max(lengths, default=0) + 1), "row", named)
