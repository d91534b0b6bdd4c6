"""Files of sequences: FASTA, A2M, A3M and Stockholm, plain or compressed by gzip, told apart by what is in them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gwg_dist.data.files import existing, read_text
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, replacing

GZIP, FASTA, STOCKHOLM = b"\x1f\x8b", ">", "# STOCKHOLM"
SUFFIXES = (".fasta", ".fa", ".faa", ".fna", ".afa", ".a2m", ".a3m", ".sto", ".stk", ".stockholm", ".aln")
HEAD = 2**12  # bytes that tell what a file is


class Sequences(NamedTuple):
    """Named sequences in the order of their file.

    Args:
        names: a name each; of FASTA the whole line after ">".
        strings: a sequence each, as the file has it, without white space.
    """

    names: list[str]
    strings: list[str]


def read_sequences(path: str | Path, name: str = "path") -> Sequences:
    """The sequences of a FASTA, A2M, A3M or Stockholm file, of any lengths; of several Stockholm alignments the first.

    Args:
        path: the file, plain or compressed by gzip.
        name: the setting it came from, for messages.

    Raises:
        InputError: no such file, an empty or damaged one, one of another kind, a record without a sequence.
    """
    path = existing(path, name)
    text = read_text(path, name)
    start = text.lstrip()
    if start.startswith(STOCKHOLM):
        return _stockholm(text, f"{name}: {path}")
    if start.startswith((FASTA, ";")):
        return _fasta(text, f"{name}: {path}")
    first = start.splitlines()[0][:40]
    raise InputError(f"{name}: {path} is neither FASTA (its first line begins with '>') nor Stockholm, got {first!r}")


def write_fasta(path: str | Path, names: Sequence[str], strings: Sequence[str]) -> None:
    """Write a FASTA file, a line a sequence; compressed where the path ends in .gz.

    Args:
        path: the file, written whole or not at all.
        names: a name each.
        strings: a sequence each.

    Raises:
        ValueError: another number of names than of sequences.
        InputError: a folder that cannot be made.
    """
    path = Path(path)
    text = "".join(f">{name}\n{string}\n" for name, string in zip(names, strings, strict=True))
    make_folder(path.parent, name="out")
    content = text.encode()
    with replacing(path) as beside:
        beside.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def holds_sequences(path: Path) -> bool:
    """Whether a file begins as FASTA or Stockholm does, plain or compressed."""
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == GZIP
        with gzip.open(path) if compressed else open(path, "rb") as file:
            head = file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return False
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((FASTA.encode(), STOCKHOLM.encode()))


def _fasta(text: str, where: str) -> Sequences:
    """Records of a line that begins with ">" and the lines below it; lines that begin with ";" are remarks."""
    names: list[str] = []
    parts: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(FASTA):
            names.append(line[1:].strip())
            parts.append([])
            lines.append(number)
        elif parts and not line.startswith(";"):
            parts[-1].append(line)
    strings = ["".join("".join(part).split()) for part in parts]
    for number, name, string in zip(lines, names, strings, strict=True):
        if not string:
            raise InputError(f"{where}, line {number}: record {name!r} has no sequence")
    return Sequences(names, strings)


def _stockholm(text: str, where: str) -> Sequences:
    """Lines of a name and a part of its sequence, up to "//"; those that begin with "#" are remarks."""
    parts: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("//"):
            break
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split()
        if len(cells) != 2:
            raise InputError(f"{where}, line {number}: expected a name and a sequence, got {line.strip()[:40]!r}")
        parts.setdefault(cells[0], []).append(cells[1])
    if not parts:
        raise InputError(f"{where} holds no sequences")
    return Sequences(list(parts), ["".join(part) for part in parts.values()])
