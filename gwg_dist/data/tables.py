"""A text table of small integers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from gwg_dist.data.base import DiscreteData, Splits
from gwg_dist.data.coding import Coding, code
from gwg_dist.data.files import check_held_out, existing
from gwg_dist.tools.errors import InputError

DELIMITERS = {".tsv": "\t", ".csv": ",;\t "}
LARGE = 256  # categories of a column that is more likely a number of the row, or a measurement


class Table(DiscreteData):
    """A .csv or .tsv of small integers: a point a line, a site a column. A first line of names is a header.

    Columns of text, dates or measurements are not read: number their categories first.

    Args:
        path: the file.
        batch_size: points in an iteration, on all ranks together.
        num_categories: K, of all columns; None takes the largest value found plus one, at least 2.
        held_out: fraction for each of the two splits that are cut.
        coding: what the values are: "auto", "codes", "compact", "onehot" or "packed", see ``Arrays``.
        binarization: "none", or how grey levels become binary: "dynamic", "static", "threshold", see ``Arrays``.
        levels: divide the range of grey levels into so many categories; None leaves it.
        shape: shape of a point, such as [28,28] where a line holds 784 numbers; None takes a line of sites.

    Raises:
        InputError: a file, line or column that cannot be used.
    """

    sources: ClassVar[tuple[str, ...]] = (".csv", ".tsv")
    paths: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(
        self,
        path: str,
        *,
        batch_size: int = 100,
        num_categories: int | None = None,
        held_out: float = 0.1,
        coding: str = "auto",
        binarization: str = "none",
        levels: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        how = Coding(coding, binarization, levels, num_categories, shape)
        self.held_out = check_held_out(held_out)
        self.binarization = binarization
        table = read_table(path, "data.path", whole=not how.is_grey)
        self._coded = code({"train": table.values}, how, path=path)
        super().__init__(self._coded.space, batch_size=batch_size)
        self.notes = [*table.notes(), *self._coded.notes]

    def load(self) -> Splits:
        return self._coded.cut(held_out=self.held_out, binarization=self.binarization)


class TableText(NamedTuple):
    """The numbers of a table ``(N, D)``, and the names of its columns; none where it has no header."""

    values: np.ndarray
    header: list[str]

    def notes(self) -> list[str]:
        """What was found out about the table."""
        found = [f"the first line names the columns: {', '.join(self.header[:4])}, ..."] if self.header else []
        largest = self.values.max(0)
        if largest.max() >= LARGE:
            column = int(largest.argmax())
            found.append(f"column {self._name(column)} goes up to {largest[column]:g}: is it a category?")
        return found

    def _name(self, column: int) -> str:
        return repr(self.header[column]) if self.header else str(column + 1)


def read_table(path: str | Path, name: str, *, whole: bool = True) -> TableText:
    """The numbers of a .csv or .tsv.

    Args:
        path: the file.
        name: the setting it came from, for messages.
        whole: whether all numbers must be integers.

    Raises:
        InputError: no such file, no text, a line or cell that does not fit, which is named.
    """
    path = existing(path, name)
    if path.suffix.lower() not in DELIMITERS:
        raise InputError(f"{name}: expected a .csv or .tsv file, got {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: {path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"{name}: {path} cannot be read: {error.strerror}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{name}: {path} is empty")
    delimiter = max(DELIMITERS[path.suffix.lower()], key=lines[0][1].count)
    first = _cells(lines[0][1], delimiter)
    header = first if not any(_is_number(cell) for cell in first) else []
    body = lines[1:] if header else lines
    values = _values([line for _, line in body], delimiter)
    good = values.size and np.isfinite(values).all() and not (whole and (values != np.round(values)).any())
    if not good:
        raise InputError(f"{name}: {path}, {_complaint(body, header, delimiter, whole=whole)}")
    return TableText(values, header)


def _values(lines: list[str], delimiter: str) -> np.ndarray:
    """The numbers ``(N, D)``; none where a line does not fit."""
    if not lines:
        return np.empty((0, 0))
    try:
        return np.loadtxt(lines, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
    except ValueError:
        return np.empty((0, 0))


def _complaint(body: list[tuple[int, str]], header: list[str], delimiter: str, *, whole: bool) -> str:
    """The first line that is no row of the table, and why."""
    width = len(header) or (len(_cells(body[0][1], delimiter)) if body else 0)
    for number, line in body:
        cells = _cells(line, delimiter)
        if len(cells) != width:
            return f"line {number}: {len(cells)} cells, expected {width}"
        for column, cell in enumerate(cells):
            where = f"line {number}, column {header[column] if header else column + 1}"
            if not cell:
                return f"{where}: the cell is empty; give what is missing a category of its own"
            if not _is_number(cell):
                return f"{where}: {cell!r} is text; number the categories of that column 0, 1, 2, ... or leave it out"
            if whole and not float(cell).is_integer():
                return f"{where}: {cell} is no integer; grey levels need --data.binarization or --data.levels"
            if not np.isfinite(float(cell)):
                return f"{where}: {cell} is no number"
    return "there are no rows"


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
