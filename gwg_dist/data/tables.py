"""A table: a point a line, a site a column. Integers, or columns of categories of any kind."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits
from gwg_dist.data.categories import EMPTY, Choice, Codebook, encoded
from gwg_dist.data.cells import DELIMITERS, Cells, is_number, read_cells, write_cells
from gwg_dist.data.coding import Coded, Coding, code
from gwg_dist.data.files import check_held_out, existing, read_arrays, read_text
from gwg_dist.data.points import MISSING_CELLS, values_of
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import replacing

LARGE = 256  # categories of a column that is more likely a number of the row, or a measurement
SIZES = ("auto", "same", "own")
FEW = 3  # rows that a table has at least


class Table(DiscreteData):
    """A .csv, .tsv, .parquet or .npz: a point a row, a site a column. A first line of names is a header.

    Columns of integers alone hold categories 0..K-1, K the same for all. In any other table every column has
    categories of its own: its words in sorted order, and missing cells (empty, "?", ".", NA, nan). The same words of
    another file get the same codes.

    Args:
        path: the file.
        batch_size: points in an iteration, on all ranks together.
        num_categories: K, of all columns; None takes the largest value found plus one, at least 2.
        held_out: fraction for each of the two splits that are cut.
        coding: what integers are: "auto", "codes", "compact", "onehot" or "packed", see ``Arrays``.
        binarization: "none", or how grey levels become binary: "dynamic", "static", "threshold", see ``Arrays``.
        levels: divide the range of grey levels into so many categories; None leaves it.
        shape: shape of a point, such as [28,28] where a line holds 784 numbers; None takes a line of sites.
        sizes: "same", one K for all columns; "own", the values of each column are its categories; "auto", "same" where
            there is nothing but integers.
        missing: what a missing cell is: "category", one more category of its column; "drop", its row is left out;
            "error".
        label: name of the column that becomes the last site; None leaves the order.
        leave_out: names of columns that are not read.
        max_categories: the most different values of a column that has its own.

    Raises:
        InputError: a file, line or column that cannot be used.
    """

    sources: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".parquet")
    paths: ClassVar[tuple[str, ...]] = ("path",)
    beside: str = ".csv"

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
        sizes: str = "auto",
        missing: str = "category",
        label: str | None = None,
        leave_out: tuple[str, ...] = (),
        max_categories: int = 100,
    ) -> None:
        how = Coding(coding, binarization, levels, num_categories, shape)
        choice = Choice(missing, label, leave_out, max_categories)
        if sizes not in SIZES:
            raise ValueError(f"sizes must be one of {', '.join(SIZES)}, got {sizes!r}")
        if sizes == "own" and how != Coding():
            raise ValueError("sizes=own takes columns as they are: leave out num_categories, coding, binarization, "
                             "levels and shape")  # fmt: skip
        self.held_out = check_held_out(held_out)
        self.binarization = binarization
        self.book: Codebook | None = None
        self.header: list[str] = []
        cells = None
        if sizes == "own" or (sizes == "auto" and how == Coding()):
            cells = _categories(path, own=sizes == "own" or choice != Choice())
        if cells is not None:
            self.book, codes, notes = encoded(cells, choice, name="data.path")
            self._coded = Coded(self.book.space, {"train": codes.to(self.book.space.code_dtype)}, notes)
        else:
            table = read_table(path, "data.path", whole=not how.is_grey)
            self.header = table.header
            self._coded = code({"train": table.values}, how, path=path)
            self._coded.notes[:0] = table.notes()
        super().__init__(self._coded.space, batch_size=batch_size)
        self.label_site = None if label is None else self.space.num_sites - 1
        self.notes, self.values = list(self._coded.notes), self._coded.values
        self.order, self.grey = self._coded.order, self._coded.grey

    @classmethod
    def reads(cls, path: Path) -> bool:
        """An .npz of columns: arrays ``(N,)`` of one length, two or more; or an array of text."""
        if path.suffix.lower() != ".npz":
            return False
        try:
            arrays = read_arrays(path, "data").values()
        except InputError:
            return False
        columns = len(arrays) > 1 and all(array.ndim == 1 for array in arrays)
        text = len(arrays) == 1 and all(array.ndim == 2 and array.dtype.kind == "U" for array in arrays)
        return text or (columns and len({len(array) for array in arrays}) == 1)

    def kept(self) -> dict[str, Any]:
        book = None if self.book is None else asdict(self.book)
        return {**super().kept(), "book": book, "header": self.header}

    @classmethod
    def of_kept(cls, space: Space, kept: dict[str, Any]) -> DiscreteData:
        found = cls.__new__(cls)
        DiscreteData.__init__(found, space)
        found.take_kept(kept)
        found.header, found.book = kept["header"], None if kept["book"] is None else Codebook(**kept["book"])
        return found

    def load(self) -> Splits:
        return self._coded.cut(held_out=self.held_out, binarization=self.binarization)

    def encode_file(self, path: str | Path, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
        if self.book is None:
            return super().encode_file(path, missing_as=missing_as)
        cells = read_cells(path, "file", header=self.book.named)
        return self.book.encode(cells, missing_as=missing_as), [str(n + 1) for n in range(len(cells.places))]

    def write_file(self, path: str | Path, codes: Tensor, names: Sequence[str]) -> None:
        path = Path(path)
        if path.suffix.lower() not in DELIMITERS:
            super().write_file(path, codes, names)
            return
        if self.book is None:
            header, rows = self.header, values_of(codes, self.values).tolist()
        else:
            header, rows = self.book.header if self.book.named else [], self.book.decode(codes)
        with replacing(path) as beside:
            write_cells(beside, header, rows, delimiter=DELIMITERS[path.suffix.lower()][0])

    def blanks(self) -> Tensor:
        if self.book is None:
            return super().blanks()
        words = [self.book.words[site] for site in self.book.sites]
        return torch.tensor([site.index(EMPTY) if EMPTY in site else -1 for site in words])

    def site_names(self) -> list[str]:
        if self.book is None:
            return self.header if len(self.header) == self.space.num_sites else super().site_names()
        return self.book.sites

    def category_names(self) -> list[list[str]]:
        if self.book is None:
            return super().category_names()
        return [[word or "missing" for word in self.book.words[site]] for site in self.book.sites]


def _categories(path: str | Path, *, own: bool) -> Cells | None:
    """The cells of a table whose columns have categories of their own; None where it is one of integers.

    Args:
        path: the file.
        own: whether they have, also where all are integers.
    """
    cells = read_cells(path, "data.path")
    if own or cells.path.suffix.lower() not in DELIMITERS:
        return cells
    if len(cells.places) < FEW:
        return None  # the reader of integers says what is wrong with it
    known = (*MISSING_CELLS,) if cells.named else tuple(cell for cell in MISSING_CELLS if not is_number(cell))
    strange = any(cell in known or not is_number(cell) for column in cells.columns for cell in column.values)
    return cells if strange else None


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
    lines = [(number, line) for number, line in enumerate(read_text(path, name).splitlines(), 1) if line.strip()]
    delimiter = max(DELIMITERS[path.suffix.lower()], key=lines[0][1].count)
    first = _cells(lines[0][1], delimiter)
    header = first if not any(is_number(cell) for cell in first) else []
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
            if not is_number(cell):
                return f"{where}: {cell!r} is text; number the categories of that column 0, 1, 2, ... or leave it out"
            if whole and not float(cell).is_integer():
                return f"{where}: {cell} is no integer; grey levels need --data.binarization or --data.levels"
            if not np.isfinite(float(cell)):
                return f"{where}: {cell} is no number"
    return "there are no rows"


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
