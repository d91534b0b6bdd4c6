"""Character text in windows of one length."""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits
from gwg_dist.data.files import check_held_out, read_text
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import replacing

LETTERS, FOUND = "letters", "found"
LETTER_SYMBOLS = " " + ascii_lowercase
MISSING, LINE_BREAK, SHOWN_BREAK = "_", "\n", "↵"
MIN_LETTERS = 0.5  # of the characters; a text with fewer is hardly one of the letters a to z


class Text(DiscreteData):
    """A text of characters: a point is a window of ``length`` of them, a site a character.

    Windows do not overlap. The first part of the text is for training, the next for validation, the last for the test,
    so that no window shares a character with one of another split.

    Args:
        path: a .txt or .txt.gz in UTF-8; None takes the pages of help that come with Python (465,000 characters).
        batch_size: windows in an iteration, on all ranks together.
        length: characters of a window.
        alphabet: "letters", the space and a to z: capitals become small, accents go, and whatever else stands between
            letters is one space; "found", the characters that occur; or the symbols themselves, of which the text must
            consist.
        max_symbols: the most that may be "found".
        held_out: fraction for each of the two splits that are cut.

    Raises:
        ValueError: a setting outside its range.
        InputError: a file that cannot be used, naming it and the line; more symbols than fit.
    """

    sources: ClassVar[tuple[str, ...]] = (".txt", ".txt.gz")
    paths: ClassVar[tuple[str, ...]] = ("path",)
    has_lines = True

    def __init__(
        self,
        path: str | None = None,
        *,
        batch_size: int = 100,
        length: int = 64,
        alphabet: str = LETTERS,
        max_symbols: int = 100,
        held_out: float = 0.1,
    ) -> None:
        if length < 1:
            raise ValueError(f"length must be positive, got {length}")
        if max_symbols < 2:
            raise ValueError(f"max_symbols must be at least 2, got {max_symbols}")
        if alphabet not in (LETTERS, FOUND) and not 1 < len(alphabet) == len(set(alphabet)):
            raise ValueError(f"alphabet must be letters, found, or two and more different symbols, got {alphabet!r}")
        self.held_out = check_held_out(held_out)
        self._letters = alphabet == LETTERS
        where = "data.path: the help of Python" if path is None else f"data.path: {path}"
        text = _help_of_python() if path is None else read_text(path, "data.path")
        foreign = self._letters and sum(c.isascii() and c.isalpha() for c in text) < MIN_LETTERS * len(text)
        if self._letters:
            symbols, text = LETTER_SYMBOLS, " ".join(_small_letters(text).split())
        else:
            symbols = _found(text, max_symbols, where) if alphabet == FOUND else alphabet
        self.symbols = symbols
        self._codes = self._coded(text, where)
        windows = len(text) // length
        if windows < 3:
            few = f"{where} has {len(text)} characters, at least three windows of {length} are needed"
            letters = "; few are letters a to z: --data.alphabet=found takes those that occur, .csv is a table"
            raise InputError(few + (letters if foreign else ""))
        space = Binary(length) if len(symbols) == 2 else Categorical(length, len(symbols))
        super().__init__(space, batch_size=batch_size)
        shown = symbols.replace(LINE_BREAK, SHOWN_BREAK)
        self.notes = [f"text of {len(text):,} characters, {len(symbols)} symbols {shown!r}"]
        if foreign:
            self.notes.append("few characters are letters a to z: --data.alphabet=found takes those that occur")

    @property
    def _missing(self) -> str | None:
        return None if MISSING in self.symbols else MISSING

    def kept(self) -> dict[str, Any]:
        return {**super().kept(), "symbols": self.symbols, "letters": self._letters}

    @classmethod
    def of_kept(cls, space: Space, kept: dict[str, Any]) -> DiscreteData:
        found = cls.__new__(cls)
        DiscreteData.__init__(found, space)
        found.take_kept(kept)
        found.symbols, found._letters = kept["symbols"], kept["letters"]
        return found

    def load(self) -> Splits:
        length = self.space.num_sites
        windows = len(self._codes) // length
        held = max(round(self.held_out * windows), 1)
        points = self._codes[: windows * length].reshape(windows, length)
        return Splits(*points.split([windows - 2 * held, held, held]))

    def codes_of(self, text: str) -> Tensor:
        """Codes ``(N,)`` of N characters; of letters, capitals are taken as small and other characters as spaces.

        Raises:
            InputError: a character that is no symbol.
        """
        return self._coded(_letter_by_letter(text) if self._letters else text, "text")

    def text_of(self, codes: Tensor) -> list[str]:
        """The text of each point of ``(N, D)``."""
        symbols = np.array(list(self.symbols))
        return ["".join(row) for row in symbols[codes.cpu().numpy().astype(np.int64)]]

    def lines(self, codes: Tensor) -> list[str]:
        return [text.replace(LINE_BREAK, SHOWN_BREAK) for text in self.text_of(codes)]

    def category_names(self) -> list[list[str]]:
        return [list(self.symbols)] * self.space.num_sites

    def encode_file(self, path: str | Path, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
        """Windows of a .txt, a line each, in which ``_`` is a missing character; of other files, codes."""
        if not str(path).lower().endswith(self.sources):
            return super().encode_file(path, missing_as=missing_as)
        rows, names, length = [], [], self.space.num_sites
        for number, line in enumerate(read_text(path, "file").split(LINE_BREAK), 1):
            if not line:
                continue
            where = f"file: {path}, line {number}"
            if len(line) != length:
                raise InputError(f"{where} has {len(line)} characters, expected {length}")
            missing = torch.tensor([character == self._missing for character in line])
            if missing_as is None and missing.any():
                raise InputError(
                    f"{where}: character {line.index(MISSING) + 1} is missing; gwg_dist complete fills it in"
                )
            text = line.replace(SHOWN_BREAK, LINE_BREAK).replace(self._missing or SHOWN_BREAK, self.symbols[0])
            codes = self._coded(_letter_by_letter(text) if self._letters else text, where).long()
            rows.append(codes.masked_fill(missing, missing_as or 0))
            names.append(str(number))
        if not rows:
            raise InputError(f"file: {path} is empty")
        return torch.stack(rows), names

    @property
    def writes(self) -> tuple[str, ...]:
        return (*self.sources, *super().writes)

    def write_file(self, path: str | Path, codes: Tensor, names: Sequence[str]) -> None:
        """A .txt of a line a point; line breaks within a point are shown as ↵. Other suffixes: codes."""
        if not str(path).lower().endswith(self.sources):
            super().write_file(path, codes, names)
            return
        text = "".join(f"{line}\n" for line in self.lines(codes)).encode()
        with replacing(Path(path)) as beside:
            beside.write_bytes(gzip.compress(text, mtime=0) if str(path).lower().endswith(".gz") else text)

    def _coded(self, text: str, where: str) -> Tensor:
        """Codes ``(N,)``. Raises InputError, with the line, for a character that is no symbol."""
        order = np.argsort(symbols := _numbers(self.symbols))
        found, characters = symbols[order], _numbers(text)
        place = np.searchsorted(found, characters).clip(max=len(found) - 1)
        wrong = found[place] != characters
        if wrong.any():
            first = int(wrong.argmax())
            line = text.count(LINE_BREAK, 0, first) + 1
            raise InputError(f"{where}, line {line}: {text[first]!r} is not among the {len(found)} symbols")
        codes = torch.from_numpy(order[place])
        return codes.to(torch.uint8 if len(found) <= 2**8 else torch.int16)


def _help_of_python() -> str:
    from pydoc_data.topics import topics  # 700 kB of source: imported where it is read

    return LINE_BREAK.join(topics[name] for name in sorted(topics))


def _small_letters(text: str) -> str:
    """Small letters without accents, all else as spaces; a letter such as ß may become two."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c if c in LETTER_SYMBOLS else "" if unicodedata.combining(c) else " " for c in plain)


def _letter_by_letter(text: str) -> str:
    """The same, a character for each."""
    return "".join((_small_letters(character) or " ")[0] for character in text)


def _found(text: str, most: int, where: str) -> str:
    """The characters that occur, in order. Raises InputError where they are one, or more than ``most``."""
    symbols = "".join(sorted(set(text)))
    if not 2 <= len(symbols) <= most:
        expected = f"2 to {most}; --data.max_symbols allows more, --data.alphabet=letters takes a to z"
        raise InputError(f"{where} has {len(symbols)} different characters, expected {expected}")
    return symbols


def _numbers(text: str) -> np.ndarray:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
