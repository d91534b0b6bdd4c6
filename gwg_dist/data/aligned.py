"""What the records of an alignment have in common: its columns, its alphabet, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gwg_dist.data.alphabets import GAP, NO_CODE, UNKNOWN_MARKS, Alphabet, letters_of
from gwg_dist.tools.errors import InputError

UNKNOWN = ("gap", "drop", "error")
LEAST = 3  # sequences that make an alignment
HALF = 0.5  # share of gaps that is worth a word
DOT, LOWER = ord("."), "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, eq=False)
class Aligned:
    """Sequences of one length.

    Args:
        names: a name each.
        rows: the number of each among the records of the file, ``(N,)`` from 0.
        letters: upper-case letters and gaps as bytes of ASCII, ``(N, L)`` uint8.
        columns: where each column was among the ``width`` ones of the file, ``(L,)`` from 0.
        width: columns of the file; those of an A3M are its match columns.
    """

    names: list[str]
    rows: np.ndarray
    letters: np.ndarray
    columns: np.ndarray
    width: int

    def take(self, rows: np.ndarray | None = None, columns: np.ndarray | None = None) -> Aligned:
        """Some of the sequences, or of the columns, both by number or as a mask."""
        rows = np.arange(len(self.rows))[slice(None) if rows is None else rows]
        columns = np.arange(len(self.columns))[slice(None) if columns is None else columns]
        return replace(
            self,
            names=[self.names[row] for row in rows],
            rows=self.rows[rows],
            letters=self.letters[np.ix_(rows, columns)],
            columns=self.columns[columns],
        )


def align(names: Sequence[str], strings: Sequence[str], where: str, *, letters: str = "") -> Aligned:
    """The columns that sequences of a file have in common.

    Where sequences are of one length, the columns that hold lower-case letters and dots alone are inserts, as A2M has
    them, and are left out; in the others dots are gaps and lower-case letters are letters. Where they are not, as in
    A3M, each sequence's lower-case letters and dots are its inserts. A file without upper-case letters has none.

    Args:
        names: a name each.
        strings: a sequence each, as the file has it.
        where: the setting and the file, for messages.
        letters: those of an alphabet that is given; none of them is an insert.

    Raises:
        InputError: fewer than three sequences, one of another length, which is named.
    """
    if len(strings) < LEAST:
        found = "one sequence" if len(strings) == 1 else f"{len(strings)} sequences"
        raise InputError(f"{where} holds {found}, at least three are needed")
    raised = str.maketrans({low: low.upper() for low in LOWER if low not in letters})
    inserts = str.maketrans(dict.fromkeys(mark for mark in (*LOWER, ".") if mark not in letters))
    if not any(string != string.lower() for string in strings):
        strings = [string.translate(raised) for string in strings]
    whole = [string.translate(inserts) for string in strings]
    lengths = {len(string) for string in whole}
    if len({len(string) for string in strings}) == 1:
        found = letters_of(strings)
        is_insert = np.isin(found, list(inserts))
        by_column = (is_insert == is_insert[0]).all() or (found == DOT).any() or len(lengths) > 1
        if by_column:
            left_out: np.ndarray = np.logical_and.reduce(is_insert, axis=0)
            return _without_columns(names, [string.translate(raised) for string in strings], left_out, letters)
    if len(lengths) > 1:
        _refuse_lengths(names, whole, where)
    width = len(whole[0])
    return Aligned(list(names), np.arange(len(names)), letters_of(whole), np.arange(width), width)


def sites_of(strings: Sequence[str], columns: np.ndarray, width: int, letters: str, where: str) -> np.ndarray:
    """Letters of further sequences at the sites of an alignment, as bytes of ASCII ``(N, L)`` uint8.

    Args:
        strings: each with a letter for every site or for every column of the file, and inserts beside them.
        columns: where each site is among the columns of the file, ``(L,)`` from 0.
        width: columns of the file.
        letters: those of the alphabet.
        where: what the sequences came from, for messages.

    Raises:
        InputError: no sequence, one of another length, which is named.
    """
    if not len(strings):
        raise InputError(f"{where} holds no sequences")
    raised = str.maketrans({low: low.upper() for low in LOWER if low not in letters})
    inserts = str.maketrans(dict.fromkeys(mark for mark in (*LOWER, ".") if mark not in letters))
    found = []
    for number, string in enumerate(strings, 1):
        if string == string.lower():
            string = string.translate(raised)
        forms = [form for form in (string, string.translate(inserts)) if len(form) in (width, len(columns))]
        if not forms:
            lengths = " or ".join(str(length) for length in dict.fromkeys((len(columns), width)))
            raise InputError(f"{where}: sequence {number} has {len(string)} letters, expected {lengths}")
        whole = forms[0].translate(raised)
        found.append("".join(whole[column] for column in columns) if len(whole) == width else whole)
    codes = letters_of(found).copy()
    if "." not in letters:
        codes[codes == DOT] = ord(GAP)
    return codes


def is_unknown(letters: np.ndarray) -> np.ndarray:
    """Which bytes may stand for a letter that nobody knows: letters, and the marks that files write for one."""
    known = [byte for byte in range(128) if chr(byte).isalpha() or chr(byte) in UNKNOWN_MARKS]
    return np.isin(letters, known)


def code_letters(found: Aligned, alphabet: Alphabet, unknown: str, where: str) -> tuple[Aligned, np.ndarray, list[str]]:
    """The sequences that are kept, their categories ``(N, L)`` uint8, and a note about letters outside the alphabet.

    Args:
        found: the sequences.
        alphabet: what letters are.
        unknown: "gap" reads letters outside the alphabet as gaps, "drop" leaves out their sequences, "error" refuses
            them.
        where: the setting and the file, for messages.

    Raises:
        InputError: a letter that is refused, or that is none; more than half of the letters are outside.
    """
    codes = alphabet.coded(found.letters)
    outside = codes == NO_CODE
    if not outside.any():
        return found, codes, []
    counts = Counter(dict(enumerate(np.bincount(found.letters[outside], minlength=256).tolist())))
    strange = outside & ~is_unknown(found.letters)
    refused = outside if unknown == "error" else strange
    if refused.any():
        row, column = (int(i) for i in np.argwhere(refused)[0])
        letter, place = chr(found.letters[row, column]), int(found.columns[column]) + 1
        raise InputError(f"{where}: record {found.names[row]!r}, column {place}: {letter!r} is not in the alphabet "
                         f"{alphabet.letters}")  # fmt: skip
    if outside.mean() > 0.5:
        raise InputError(f"{where}: {outside.mean():.0%} of the letters are not in the alphabet {alphabet.letters}")
    listed = ", ".join(f"{chr(byte)} {num:,}" for byte, num in counts.most_common(6) if num)
    rows = outside.any(1)
    if unknown == "drop":
        return found.take(~rows), codes[~rows], [f"left out for letters outside the alphabet: {rows.sum():,} sequences "
                                                 f"({listed})"]  # fmt: skip
    codes[outside] = alphabet.letters.index(GAP)
    return found, codes, [f"letters outside the alphabet are read as gaps: {listed} (--data.unknown=drop leaves out "
                          f"{rows.sum():,} sequences)"]  # fmt: skip


def few_gaps(gaps: np.ndarray, max_gaps: float, max_column_gaps: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Which sequences and columns have few gaps, ``(N,)`` and ``(L,)`` bool, and notes about it.

    Sequences are judged first, by all columns; then columns, by the sequences that are left.

    Args:
        gaps: where gaps are, ``(N, L)`` bool.
        max_gaps: largest share of a sequence.
        max_column_gaps: largest share of a column.
    """
    rows = gaps.mean(1) <= max_gaps
    share = gaps[rows].mean(0) if rows.any() else np.zeros(gaps.shape[1])
    columns = share <= max_column_gaps
    notes = []
    for what, setting, most, shares, kept in (
        ("sequences", "max_gaps", max_gaps, gaps.mean(1), rows),
        ("columns", "max_column_gaps", max_column_gaps, share, columns),
    ):
        if not kept.all():
            notes.append(f"left out for more than {most:.0%} gaps: {(~kept).sum():,} {what}")
        elif most == 1 and (shares > HALF).any():
            num = int((shares > HALF).sum())
            notes.append(f"{what} with more than {HALF:.0%} gaps: {num:,} (--data.{setting}={HALF} leaves them out)")
    return rows, columns, notes


def _without_columns(names: Sequence[str], strings: Sequence[str], left_out: np.ndarray, letters: str) -> Aligned:
    """The columns that are not ``left_out``, with dots as gaps."""
    kept = letters_of(strings)[:, ~left_out].copy()
    if "." not in letters:
        kept[kept == DOT] = ord(GAP)
    return Aligned(list(names), np.arange(len(names)), kept, np.flatnonzero(~left_out), len(left_out))


def _refuse_lengths(names: Sequence[str], strings: Sequence[str], where: str) -> None:
    """Raise InputError that names the first sequence of another length than most."""
    width, _ = Counter(map(len, strings)).most_common(1)[0]
    row = next(row for row, string in enumerate(strings) if len(string) != width)
    raise InputError(
        f"{where} is no alignment: record {row + 1}, {names[row]!r}, has {len(strings[row])} columns, most have {width}"
    )
