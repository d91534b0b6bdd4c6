"""Reading a family of sequences: a file of records, or an .npz of their categories."""

from __future__ import annotations

import difflib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from gwg_dist.data.aligned import LEAST, UNKNOWN, Aligned, align, code_letters, few_gaps
from gwg_dist.data.alphabets import ALPHABETS, GAP, Alphabet, fitting_alphabet
from gwg_dist.data.files import read_arrays
from gwg_dist.data.sequences import read_sequences
from gwg_dist.tools.errors import InputError

CODES, LETTERS = "msa", "alphabet"  # arrays that make an .npz a family


@dataclass(frozen=True)
class Reading:
    """How the records of a family are read.

    Args:
        alphabet: "auto", the name of a known one, or letters in the order of their categories.
        unknown: letters outside the alphabet: "gap" reads them as gaps, "drop" leaves out their sequences, "error"
            refuses them.
        max_gaps: largest share of gaps of a sequence that is kept.
        max_column_gaps: largest share of gaps of a column that is kept.
        reference: name of the reference record, or the first word of it; None takes the file's.

    Raises:
        ValueError: a setting outside its range.
    """

    alphabet: str = "auto"
    unknown: str = "gap"
    max_gaps: float = 1.0
    max_column_gaps: float = 1.0
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.unknown not in UNKNOWN:
            raise ValueError(f"unknown must be one of {', '.join(UNKNOWN)}, got {self.unknown!r}")
        for name, share in (("max_gaps", self.max_gaps), ("max_column_gaps", self.max_column_gaps)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share}")
        _ = self.given

    @property
    def given(self) -> Alphabet | None:
        """The alphabet that is asked for, if one is."""
        return None if self.alphabet == "auto" else ALPHABETS.get(self.alphabet) or Alphabet(self.alphabet)


@dataclass(frozen=True, eq=False)
class Family:
    """Sequences of a family.

    Args:
        names: a name each.
        codes: categories ``(N, L)`` uint8.
        alphabet: what they are.
        columns: where each site was among the columns of the file, ``(L,)`` from 0.
        width: columns of the file.
        reference: letters and gaps of the reference at the sites, ``L`` of them.
        weights: those of the file, ``(N,)`` float64; None where it has none.
        notes: what was found out on the way.
    """

    names: list[str]
    codes: np.ndarray
    alphabet: Alphabet
    columns: np.ndarray
    width: int
    reference: str
    weights: np.ndarray | None
    notes: list[str]


class _Records(NamedTuple):
    """What a file holds, before it is read as an alignment; ``reference`` of an .npz that names one."""

    names: list[str]
    strings: list[str]
    alphabet: Alphabet | None = None
    weights: np.ndarray | None = None
    reference: str | None = None


def holds_family(path: Path) -> bool:
    """Whether a file is an .npz with arrays msa and alphabet."""
    try:
        return path.suffix.lower() == ".npz" and {f"{CODES}.npy", f"{LETTERS}.npy"} <= set(
            zipfile.ZipFile(path).namelist()
        )
    except (OSError, zipfile.BadZipFile):
        return False


def read_family(path: str, how: Reading) -> Family:
    """The sequences of a file.

    Args:
        path: FASTA, A2M, A3M or Stockholm, plain or compressed by gzip, or an .npz of msa and alphabet.
        how: how they are read.

    Raises:
        InputError: a file, record or letter that cannot be used, or a reference that is not there.
    """
    where = f"data.path: {path}"
    records = (
        _of_arrays(path) if holds_family(Path(path).expanduser()) else _Records(*read_sequences(path, "data.path"))
    )
    given = how.given or records.alphabet
    whole = align(records.names, records.strings, where, letters=given.letters if given else "")
    notes = []
    if len(whole.columns) < whole.width:
        notes.append(f"{whole.width - len(whole.columns):,} of {whole.width:,} columns are inserts and are left out")
    alphabet = given or _found_alphabet(whole, where, notes)
    unknown = "error" if how.unknown == "gap" and GAP not in alphabet.letters else how.unknown
    found, codes, more = code_letters(whole, alphabet, unknown, where)
    gaps = codes == alphabet.letters.find(GAP)
    rows, columns, gap_notes = few_gaps(gaps, how.max_gaps, how.max_column_gaps)
    found, codes = found.take(rows, columns), codes[np.ix_(rows, columns)]
    if codes.shape[0] < LEAST or not codes.shape[1]:
        raise InputError(f"{where}: {codes.shape[0]} sequences of {codes.shape[1]} columns are left: see data.unknown, "
                         "data.max_gaps and data.max_column_gaps")  # fmt: skip
    reference = _reference(records, whole, found.columns, how.reference, where)
    weights = None if records.weights is None else records.weights[found.rows]
    return Family(
        found.names, codes, alphabet, found.columns, found.width, reference, weights, [*notes, *more, *gap_notes]
    )


def _of_arrays(path: str) -> _Records:
    arrays = read_arrays(path, "data.path")
    codes, letters = arrays[CODES], "".join(np.atleast_1d(arrays[LETTERS]).astype(str))
    where = f"data.path: array {CODES!r} of {path}"
    if codes.ndim != 2 or codes.dtype.kind not in "iu" or not codes.size:
        raise InputError(f"{where} must hold integers (N, L), got {codes.dtype} of shape {codes.shape}")
    try:
        alphabet = Alphabet(letters)
    except ValueError as error:
        raise InputError(f"data.path: array {LETTERS!r} of {path}: {error}") from error
    if codes.min() < 0 or codes.max() >= len(letters):
        raise InputError(f"{where} must hold 0 to {len(letters) - 1}, a number for each letter of {letters}, got "
                         f"{codes.min()} to {codes.max()}")  # fmt: skip
    strings = alphabet.text_of(torch.from_numpy(codes.astype(np.int64)))
    names = arrays.get("names", np.arange(1, len(codes) + 1)).astype(str).tolist()
    weights = arrays.get("weights")
    if weights is not None and (weights.shape != (len(codes),) or weights.dtype.kind not in "iuf"):
        raise InputError(f"data.path: array 'weights' of {path} must hold {len(codes)} numbers, one for each sequence, "
                         f"got {weights.dtype} of shape {weights.shape}")  # fmt: skip
    reference = "".join(np.atleast_1d(arrays["ref"]).astype(str)) if "ref" in arrays else None
    if len(names) != len(strings) or (reference is not None and len(reference) != codes.shape[1]):
        raise InputError(f"data.path: arrays names and ref of {path} must fit msa of shape {codes.shape}")
    return _Records(names, strings, alphabet, None if weights is None else weights.astype(np.float64), reference)


def _found_alphabet(found: Aligned, where: str, notes: list[str]) -> Alphabet:
    try:
        name = fitting_alphabet(found.letters)
    except InputError as error:
        raise InputError(f"{where}: {error}; give --data.alphabet=LETTERS, the gap among them") from error
    notes.append(f"letters are read as {name}: {ALPHABETS[name].letters} (--data.alphabet)")
    return ALPHABETS[name]


def _reference(records: _Records, whole: Aligned, columns: np.ndarray, name: str | None, where: str) -> str:
    """Letters of the reference at some columns of the file; of the first record where none is named."""
    row = 0
    if name is None and records.reference is not None:
        return "".join(records.reference[column] for column in columns)
    if name is not None:
        fits = [row for row, other in enumerate(records.names) if name in (other, *other.split()[:1])]
        if not fits:
            near = difflib.get_close_matches(name, records.names, n=1, cutoff=0.4)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"{where} has no record {name!r}, which data.reference names{hint}")
        row = fits[0]
    return whole.letters[row, np.isin(whole.columns, columns)].tobytes().decode()
