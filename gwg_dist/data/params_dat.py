"""params.dat: the couplings and fields of a Potts model as text, as adabmDCA writes and reads them.

    J i j a b value      i, j sites from 0, a, b letters
    h i a value

f(x) = sum_{i<j} J_ij(x_i, x_j) + sum_i h_i(x_i). A pair that is written in both orders counts with the sum of the two
(Rosset et al., "adabmDCA 2.0", Methods in Molecular Biology, 2025). Compressed where the name ends in .gz.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gwg_dist.data.alphabets import ALPHABETS
from gwg_dist.data.files import existing
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import replacing

STANDARD = tuple(ALPHABETS[name].letters for name in ("rna", "dna", "protein"))
CHUNK = 2**24  # bytes that are read together
COUPLING, FIELD = b"J", b"h"
WORDS = {COUPLING: 6, FIELD: 4}


class Parameters(NamedTuple):
    """A Potts model of letters.

    Args:
        couplings: J, ``(L, L, q, q)`` float32, J_ji the transpose of J_ij, zero for i = j.
        fields: h, ``(L, q)`` float32.
        alphabet: the q letters in the order of their categories.
    """

    couplings: np.ndarray
    fields: np.ndarray
    alphabet: str


def read_params(path: str | Path, alphabet: str | None = None) -> Parameters:
    """The model in a params.dat or params.dat.gz, read in parts.

    Args:
        path: the file.
        alphabet: the letters in the order of their categories; None takes the first of "-ACGU", "-ACGT" and
            "-ACDEFGHIKLMNPQRSTVWY" that has them all, else the order of the fields in the file.

    Raises:
        InputError: no such file, a damaged or empty one, a line that is no coupling or field, which is named.
    """
    path = existing(path, "file")
    records = list(_records(path))
    lengths = [int(places.max()) for places, _, _ in records if places.size]
    if not any(places.shape[1] == 1 for places, _, _ in records):
        raise InputError(f"file: {path} holds no fields, lines such as: h 0 A 0.1")
    found = _in_order([states for places, states, _ in records if places.shape[1] == 1])
    seen = set(found) | set(_in_order([states for _, states, _ in records]))
    letters = alphabet or next((known for known in STANDARD if seen <= set(known)), found)
    if not seen <= set(letters):
        strange = ", ".join(sorted(seen - set(letters)))
        raise InputError(f"file: {path} has letters that are not in the alphabet {letters}: {strange}")
    if len(letters) < 3:
        raise InputError(f"file: {path} has the letters {letters}; at least three are read")
    number = np.zeros(256, dtype=np.int64)
    number[[ord(letter) for letter in letters]] = np.arange(len(letters))
    num, size = max(lengths) + 1, len(letters)
    fields = np.zeros((num, size), dtype=np.float32)
    couplings = np.zeros((num, num, size, size), dtype=np.float32)
    for places, states, values in records:
        codes = number[states]
        if places.shape[1] == 1:
            fields[places[:, 0], codes[:, 0]] = values
        else:
            couplings[places[:, 0], places[:, 1], codes[:, 0], codes[:, 1]] = values
    site, category = np.arange(num)[:, None], np.arange(size)
    fields += couplings[site, site, category, category]  # a site with itself acts as a field
    couplings[np.arange(num), np.arange(num)] = 0
    for i in range(num):
        both = couplings[i, i:] + couplings[i:, i].transpose(0, 2, 1)
        couplings[i, i:], couplings[i:, i] = both, both.transpose(0, 2, 1)
    return Parameters(couplings, fields, letters)


def write_params(path: str | Path, parameters: Parameters) -> None:
    """Write couplings of i < j, then fields, in float32 with nine digits. Raises OSError where it cannot."""
    path = Path(path)
    couplings, fields, letters = parameters
    labels = [f" {a} {b} " for a in letters for b in letters]
    with replacing(path) as beside, _opened(beside, "wt", compressed=path.suffix == ".gz") as file:
        for i in range(len(fields)):
            lines = []
            for j in range(i + 1, len(fields)):
                start = f"J {i} {j}"
                values = couplings[i, j].astype(np.float32).ravel().tolist()
                lines += [f"{start}{label}{value:.9g}\n" for label, value in zip(labels, values, strict=True)]
            file.write("".join(lines))
        for i, row in enumerate(fields.astype(np.float32).tolist()):
            file.write("".join(f"h {i} {a} {value:.9g}\n" for a, value in zip(letters, row, strict=True)))


def _in_order(states: list[np.ndarray]) -> str:
    """The different letters, in the order in which they first occur."""
    found = ""
    for part in states:
        letters, first = np.unique(part, return_index=True)
        found += "".join(chr(letter) for letter in letters[np.argsort(first)] if chr(letter) not in found)
    return found


def is_params(path: Path) -> bool:
    """Whether a file is called as params.dat is."""
    return path.name.removesuffix(".gz").endswith(".dat")


def _opened(path: Path, mode: str, *, compressed: bool) -> Any:
    return gzip.open(path, mode, compresslevel=1) if compressed else open(path, mode)


def _records(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(sites, letters, values) of the couplings and of the fields of each part of the file."""
    before, first = b"", 1
    try:
        with _opened(path, "rb", compressed=path.suffix == ".gz") as file:
            while chunk := file.read(CHUNK):
                whole, _, rest = (before + chunk).rpartition(b"\n")
                yield from _of_lines(whole, path, first)
                first, before = first + whole.count(b"\n") + bool(whole), rest
        yield from _of_lines(before, path, first)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"file: {path} is damaged: {error}") from error


def _of_lines(text: bytes, path: Path, first: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    lines = text.split(b"\n")
    kinds = [(kind, [line for line in lines if line[:1] == kind]) for kind in WORDS]
    if sum(len(found) for _, found in kinds) < len(lines):
        strange = [n for n, line in enumerate(lines) if line.strip() and line[:1] not in (*WORDS, b"#")]
        if strange:
            raise _strange(lines[strange[0]], path, first + strange[0])
    for kind, found in kinds:
        if found:
            try:
                yield _parsed(found, WORDS[kind])
            except ValueError:
                number = next(n for n, line in enumerate(lines) if line[:1] == kind and not _is_good(line))
                raise _strange(lines[number], path, first + number) from None


def _parsed(lines: list[bytes], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sites ``(n, 2 or 1)``, bytes of letters likewise, values ``(n,)``. Raises ValueError for what does not fit."""
    words = b" ".join(lines).split()
    if len(words) != count * len(lines):
        raise ValueError
    num = (count - 2) // 2
    places = np.stack([np.array(words[1 + n :: count]).astype(np.int64) for n in range(num)], 1)
    states = np.stack([np.array(words[1 + num + n :: count]) for n in range(num)], 1)
    values = np.array(words[count - 1 :: count]).astype(np.float64)
    if states.dtype.itemsize != 1 or places.min() < 0 or not np.isfinite(values).all():
        raise ValueError
    return places, states.view(np.uint8).reshape(states.shape), values


def _is_good(line: bytes) -> bool:
    try:
        _parsed([line], WORDS[line[:1]])
    except ValueError:
        return False
    return True


def _strange(line: bytes, path: Path, number: int) -> InputError:
    shown = line[:60].decode(errors="replace")
    return InputError(f"file: {path}, line {number}: {shown!r} is none of 'J i j a b value' and 'h i a value'")
