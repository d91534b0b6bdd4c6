"""Words of a table as codes: every column is a site with categories of its own, numbered in sorted order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.cells import Cells, Column, is_number
from gwg_dist.data.points import MISSING_CELLS
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say

MISSING = ("category", "drop", "error")
EMPTY = ""  # the word of a missing cell
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
CUT = "cut a measurement into classes, or leave it out: --data.leave_out=[{}]"
STRAY = 0.1  # a share of text below which a column is one of numbers with a mistake in it


@dataclass(frozen=True)
class Choice:
    """Which columns become sites, and how.

    Args:
        missing: what a missing cell is: "category", one more category of its column; "drop", its row is left out;
            "error".
        label: name of the column that becomes the last site; None leaves the order.
        leave_out: names of columns that are not read.
        max_categories: the most different values of a column.

    Raises:
        ValueError: a setting outside its range.
    """

    missing: str = "category"
    label: str | None = None
    leave_out: tuple[str, ...] = ()
    max_categories: int = 100

    def __post_init__(self) -> None:
        if self.missing not in MISSING:
            raise ValueError(f"missing must be one of {', '.join(MISSING)}, got {self.missing!r}")
        if self.max_categories < 2:
            raise ValueError(f"max_categories must be at least 2, got {self.max_categories}")
        if self.label is not None and self.label in self.leave_out:
            raise ValueError(f"label {self.label!r} is among the columns of leave_out")


@dataclass(frozen=True)
class Codebook:
    """The words of the columns. It reads other files of the same columns, and writes codes as words again.

    Args:
        header: the columns of a file in their order, those of one word too.
        sites: the columns that are sites, in the order of the sites.
        words: of each column, in the order of their codes; "" last where a missing cell is a category.
        named: whether a file has a first line of names.
        label: the column that may be absent where missing cells are wanted.
    """

    header: list[str]
    sites: list[str]
    words: dict[str, list[str]]
    named: bool
    label: str | None = None

    @property
    def space(self) -> Space:
        """Where points live: a site for each column of several words."""
        sizes = [len(self.words[name]) for name in self.sites]
        return Binary(len(sizes)) if max(sizes) == 2 else Categorical(len(sizes), sizes)

    def encode(self, cells: Cells, *, missing_as: int | None = None) -> Tensor:
        """Codes ``(N, D)`` int64 of a table with these columns, in any order where they have names.

        Args:
            cells: the table.
            missing_as: the code of a missing cell; None takes the category of missing cells, where a column has one.

        Raises:
            InputError: a column that is not there, a word that no row of the training file had, a missing cell that is
                not wanted.
        """
        there = {column.name: column for column in self._columns(cells)}
        codes = []
        for name in self.sites:
            if name in there:
                codes.append(self._encoded(there[name], cells, missing_as))
                continue
            near = difflib.get_close_matches(name, there.keys() - self.sites, n=1)
            if missing_as is None or (near and name != self.label) or not there.keys() & set(self.sites):
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise InputError(f"{cells.path} has no column {name!r}{hint}")
            if name != self.label:
                say(f"{cells.path} has no column {name!r}: it is missing in every row")
            codes.append(np.full(len(cells.places), missing_as))
        return torch.from_numpy(np.stack(codes, 1).astype(np.int64))

    def decode(self, codes: Tensor) -> list[list[str]]:
        """Rows of words in the order of ``header``, from codes ``(N, D)``."""
        words = {name: np.array(self.words[name], dtype=object) for name in self.header}
        columns = dict(zip(self.sites, codes.cpu().numpy().T, strict=True))
        constant = np.zeros(len(codes), dtype=np.int64)
        return np.stack([words[name][columns.get(name, constant)] for name in self.header], 1).tolist()

    def _columns(self, cells: Cells) -> Sequence[Column]:
        if cells.named and self.named:
            return cells.columns
        if len(cells.columns) != len(self.header):
            raise InputError(f"{cells.path} has {len(cells.columns)} columns, expected {len(self.header)}")
        return [column._replace(name=name) for column, name in zip(cells.columns, self.header, strict=True)]

    def _encoded(self, column: Column, cells: Cells, missing_as: int | None) -> np.ndarray:
        """``(N,)``."""
        words = self.words[column.name]
        code_of, numbers = {word: code for code, word in enumerate(words)}, _are_numbers(words)
        codes = np.zeros(len(column.values), dtype=np.int64)
        for value, cell in enumerate(column.values):
            word = word_of(cell, number=numbers)
            if word == EMPTY and missing_as is not None:
                codes[value] = missing_as
            elif word in code_of:
                codes[value] = code_of[word]
            else:
                where = cells.where(column.first(value), column.name)
                if word == EMPTY:
                    raise InputError(f"{where}: the cell is empty; gwg_dist complete fills it in")
                raise InputError(f"{where}: {cell!r} is none of the {len(words)} values that the run knows: "
                                 f"{_some(words)}")  # fmt: skip
        return codes[column.which]


class Encoded(NamedTuple):
    """A table as points: how its words are numbered, codes ``(N, D)``, and what was found out on the way."""

    book: Codebook
    codes: Tensor
    notes: list[str]


def encoded(cells: Cells, choice: Choice, *, name: str) -> Encoded:
    """Number the words of a table.

    Args:
        cells: the table.
        choice: which columns, and how.
        name: the setting that the file came from, for messages.

    Raises:
        InputError: a column that does not exist, text among numbers, numbers that are no integers, too many different
            values, a missing cell where none may be, fewer than three rows, no column of two values.
    """
    notes = [f"the first line names the columns: {_some([c.name for c in cells.columns])}"] if cells.named else []
    cells, dropped = _chosen(cells, choice, name)
    notes += dropped
    if len(cells.places) < 3:
        raise InputError(f"{name}: {cells.path} must have at least three rows, got {len(cells.places)}")
    words = {column.name: _words(column, cells, choice, name) for column in cells.columns}
    sites = [column.name for column in cells.columns if len(words[column.name]) > 1]
    if not sites:
        raise InputError(f"{name}: {cells.path} has no column of two or more different values")
    if choice.label is not None:
        if choice.label not in sites:
            raise InputError(f"data.label: column {choice.label!r} of {cells.path} has the same value in every row")
        sites = [site for site in sites if site != choice.label] + [choice.label]
    header = [column.name for column in cells.columns]
    book = Codebook(header, sites, words, cells.named, choice.label)
    constant = [column for column in header if column not in sites]
    if constant:
        notes.append(f"left out, because every row has the same value: {_some(constant)}")
    missing = {c.name: int(np.isin(c.which, _missing(c)).sum()) for c in cells.columns}
    holes = {column: num for column, num in missing.items() if num and column in sites}
    if holes:
        notes.append(f"{sum(holes.values()):,} missing cells in {len(holes)} columns are a category of their own "
                     f"(--data.missing=drop leaves out {int(_incomplete(cells).sum()):,} rows)")  # fmt: skip
    return Encoded(book, book.encode(cells), notes)


def word_of(cell: str, *, number: bool) -> str:
    """What a cell says: "" where it is missing; a number in one way, so that 1.0 is 1."""
    if cell in MISSING_CELLS:
        return EMPTY
    return str(int(float(cell))) if number and is_number(cell) and float(cell).is_integer() else cell


def _chosen(cells: Cells, choice: Choice, name: str) -> tuple[Cells, list[str]]:
    """The columns and rows that are read, and a note on those that are not."""
    names = [column.name for column in cells.columns]
    for setting, asked in (("leave_out", choice.leave_out), ("label", () if choice.label is None else (choice.label,))):
        for column in asked:
            if column not in names:
                raise InputError(f"data.{setting}: {cells.path} has no column {column!r}; it has {_some(names, 12)}")
    cells = cells._replace(columns=[column for column in cells.columns if column.name not in choice.leave_out])
    if not cells.columns:
        raise InputError(f"data.leave_out: no column of {cells.path} is left")
    incomplete = _incomplete(cells)
    if not incomplete.any() or choice.missing == "category":
        return cells, []
    if choice.missing == "error":
        row = int(incomplete.argmax())
        column = next(column for column in cells.columns if column.which[row] in _missing(column))
        raise InputError(f"{name}: {cells.where(row, column.name)}: the cell is empty; --data.missing=category makes "
                         "that a category, --data.missing=drop leaves out the row")  # fmt: skip
    return cells.rows(~incomplete), [f"{int(incomplete.sum()):,} rows with missing cells are left out"]


def _missing(column: Column) -> list[int]:
    """Which of its cells are missing ones."""
    return [value for value, cell in enumerate(column.values) if cell in MISSING_CELLS]


def _incomplete(cells: Cells) -> np.ndarray:
    """Whether a row has a missing cell, ``(N,)`` booleans."""
    return np.any([np.isin(column.which, _missing(column)) for column in cells.columns], axis=0)


def _words(column: Column, cells: Cells, choice: Choice, name: str) -> list[str]:
    """The categories of a column: numbers in their order, text in that of its letters, missing cells last."""
    there = [value for value in range(len(column.values)) if column.values[value] not in MISSING_CELLS]
    text = [value for value in there if not is_number(column.values[value])]
    if text and all(DECIMAL_COMMA.fullmatch(column.values[value]) for value in text):
        raise InputError(f"{name}: {cells.where(column.first(text[0]), column.name)}: {column.values[text[0]]}, with a "
                         f"decimal comma, is no integer; {CUT.format(column.name)}")  # fmt: skip
    stray = int(np.isin(column.which, text).sum())
    if text and stray < STRAY * np.isin(column.which, there).sum():
        value = text[0]
        raise InputError(f"{name}: {cells.where(column.first(value), column.name)}: {column.values[value]!r} is text "
                         f"among numbers; --data.leave_out=[{column.name}] leaves out the column")  # fmt: skip
    number = not text
    if number:
        for value in there:
            if not float(column.values[value]).is_integer():
                raise InputError(
                    f"{name}: {cells.where(column.first(value), column.name)}: {column.values[value]} is no integer; "
                    + CUT.format(column.name)
                )
    found = {word_of(column.values[value], number=number) for value in there}
    if len(found) > choice.max_categories:
        raise InputError(
            f"{name}: {cells.path}, column {column.name} has {len(found):,} different values in "
            f"{len(column.which):,} rows: --data.leave_out=[{column.name}] leaves it out, "
            f"--data.max_categories={len(found)} takes it"
        )
    words = sorted(found, key=int) if number else sorted(found)
    return words if len(there) == len(column.values) else [*words, EMPTY]


def _are_numbers(words: Sequence[str]) -> bool:
    return all(is_number(word) for word in words if word != EMPTY)


def _some(words: Sequence[str], num: int = 4) -> str:
    shown = [word or "(missing)" for word in words[:num]]
    return ", ".join(shown) + (", ..." if len(words) > num else "")
