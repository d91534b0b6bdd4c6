"""The letters of sequences, and the categories that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gwg_dist.tools.errors import InputError

GAP = "-"
NO_CODE = 255
UNKNOWN_MARKS = "*?~_.-"  # what files write for no letter, or for one that nobody knows
NUCLEOTIDES = ("A", "C", "G", "TU")
AMBIGUOUS = "NRYSWKMBDHV"  # what IUPAC calls one of several nucleotides
FITS = 0.9  # share of the letters that an alphabet must hold to be taken


@dataclass(frozen=True)
class Alphabet:
    """Letters in the order of their categories: the first one is category 0.

    Args:
        letters: at least two different ones, printable and in ASCII.
        read_as: letters that are read as others of the alphabet.

    Raises:
        ValueError: fewer than two letters, a letter twice, one outside ASCII, white space or ">".
    """

    letters: str
    read_as: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(self.letters) < 2:
            raise ValueError(f"alphabet must have at least two letters, got {self.letters!r}")
        double = next((letter for letter in self.letters if self.letters.count(letter) > 1), None)
        if double is not None:
            raise ValueError(f"alphabet must have every letter once, got {double!r} twice")
        strange = next((letter for letter in self.letters if not "!" <= letter <= "~" or letter == ">"), None)
        if strange is not None:
            raise ValueError(f"alphabet must have printable letters of ASCII, got {strange!r}")

    def codes_of(self, strings: Sequence[str]) -> Tensor:
        """Categories of sequences of one length, ``(N, L)`` uint8.

        Raises:
            InputError: another length than the first one's, a letter outside the alphabet; it names the sequence.
        """
        width = len(strings[0]) if len(strings) else 0
        for number, string in enumerate(strings, 1):
            if len(string) != width:
                raise InputError(f"sequence {number} has {len(string)} letters, the first one {width}")
        codes = self.coded(letters_of(strings))
        if (codes == NO_CODE).any():
            row, site = (int(i) for i in np.argwhere(codes == NO_CODE)[0])
            raise InputError(f"sequence {row + 1}, letter {site + 1}: {strings[row][site]!r} is not in {self.letters}")
        return torch.from_numpy(codes)

    def text_of(self, codes: Tensor) -> list[str]:
        """Sequences of categories ``(N, L)``."""
        table = np.frombuffer(self.letters.encode(), dtype=np.uint8)
        return [row.tobytes().decode() for row in table[codes.cpu().numpy()]]

    def coded(self, letters: np.ndarray) -> np.ndarray:
        """Categories of bytes of ASCII, uint8 of the same shape; ``NO_CODE`` where there is none."""
        table = np.full(256, NO_CODE, dtype=np.uint8)
        for code, letter in enumerate(self.letters):
            table[ord(letter)] = code
        for other, letter in self.read_as:
            table[ord(other)] = self.letters.index(letter)
        return table[letters]


NUCLEIC = ("dna", "rna")
ALPHABETS: Mapping[str, Alphabet] = {
    "dna": Alphabet("-ACGT", (("U", "T"),)),
    "rna": Alphabet("-ACGU", (("T", "U"),)),
    "protein": Alphabet("-ACDEFGHIKLMNPQRSTVWY"),
}


def letters_of(strings: Sequence[str]) -> np.ndarray:
    """Sequences of one length as bytes, ``(N, L)`` uint8; what is not ASCII becomes "?"."""
    text = "".join(strings).encode("ascii", errors="replace")
    return np.frombuffer(text, dtype=np.uint8).reshape(len(strings), -1)


def fitting_alphabet(letters: np.ndarray) -> str:
    """The name of the smallest alphabet that holds nearly all of the letters; of equally small ones the best.

    Codes of ambiguous nucleotides such as N do not count for alphabets of nucleotides, neither as held nor as missing,
    where A, C, G and T or U all occur and make up more than half of the letters.

    Args:
        letters: bytes of ASCII of any shape.

    Raises:
        InputError: none holds them; it names the letters.
    """
    counts = np.bincount(letters.ravel(), minlength=256)
    counts[[ord(mark) for mark in UNKNOWN_MARKS]] = 0
    total = int(counts.sum())
    if not total:
        raise InputError("there is no letter among the gaps")
    held = {name: _count(counts, alphabet.letters) for name, alphabet in ALPHABETS.items()}
    with_others = {
        name: held[name] + _count(counts, "".join(other for other, _ in alphabet.read_as))
        for name, alphabet in ALPHABETS.items()
    }
    speaking = dict.fromkeys(ALPHABETS, total)
    every = all(_count(counts, letters) for letters in NUCLEOTIDES)
    if every and 2 * _count(counts, "".join(NUCLEOTIDES)) > total:
        speaking |= dict.fromkeys(NUCLEIC, total - _count(counts, AMBIGUOUS))
    fits = [name for name in ALPHABETS if with_others[name] >= FITS * speaking[name]]
    if not fits:
        found = "".join(chr(byte) for byte in np.flatnonzero(counts))
        raise InputError(f"the letters {found} are of no known alphabet ({', '.join(ALPHABETS)})")
    return min(fits, key=lambda name: (len(ALPHABETS[name].letters), -held[name]))


def _count(counts: np.ndarray, letters: str) -> int:
    """How many of the letters that were counted by their bytes are among ``letters``."""
    return int(counts[[ord(letter) for letter in letters]].sum())
