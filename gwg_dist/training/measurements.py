"""Measured effects of mutations, and how well a model orders them."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from gwg_dist.data.files import existing, read_text
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say

MUTATION = re.compile(r"(.)(\d+)(.)")
NAMES, VALUES = (
    ("mutation", "mutant", "mutations", "variant"),
    ("value", "score", "fitness", "dms_score", "measurement"),
)
SITE, FROM, TO = ("site", "position", "pos"), ("from", "wt", "wildtype"), ("to", "mut", "mutant_aa")
FEWEST = 3


class Changed(NamedTuple):
    """A site that is changed: its name, the category before and the one after, as a file calls them."""

    site: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}{self.site}{self.new}"


class Measurement(NamedTuple):
    """A measured point: its changes and the value, and the line that it is from."""

    changes: list[Changed]
    value: float
    line: int


def read_measurements(path: str | Path, column: str | None = None) -> list[Measurement]:
    """The mutations and values of a .csv with a header.

    A mutation is a cell such as A24G, several changes with ":" between; or it is in the columns site, from and to.
    Rows without a finite value are left out.

    Args:
        path: the file.
        column: name of the column of values; None takes value, score, fitness, DMS_score or measurement.

    Raises:
        InputError: no such file or column, no text, a cell that is no mutation or no number, naming the line.
    """
    path = existing(path, "measurements")
    with io.StringIO(read_text(path, "measurements"), newline="") as file:
        reader = csv.DictReader(file)
        header = {name.strip().lower(): name for name in reader.fieldnames or []}
        values = _column(header, (column.lower(),) if column else VALUES, path)
        whole = next((header[name] for name in NAMES if name in header), None)
        parts = [] if whole else [_column(header, names, path) for names in (SITE, FROM, TO)]
        found, left_out = [], 0
        for row in reader:
            where = f"measurements: {path}, line {reader.line_num}"
            if not (row[values] or "").strip():
                left_out += 1
                continue
            try:
                value = float(row[values])
            except ValueError:
                raise InputError(f"{where}: {row[values]!r} is no number") from None
            if not math.isfinite(value):
                left_out += 1
                continue
            cells = [(row[name] or "").strip() for name in parts]
            changes = _changes(row[whole] or "", where) if whole else [Changed(*cells)]
            found.append(Measurement(changes, value, reader.line_num))
    if len(found) < FEWEST:
        raise InputError(f"measurements: {path} holds {len(found)} measurements, expected {FEWEST} or more")
    if left_out:
        say(f"measurements: {left_out} rows of {path} without a finite value are left out")
    return found


def changed_points(
    reference: Tensor, measurements: list[Measurement], sites: list[str], categories: list[list[str]], offset: int = 0
) -> Tensor:
    """The measured points as codes ``(M, D)``.

    Args:
        reference: the point that is changed, ``(D,)`` codes.
        measurements: what was measured.
        sites: names of the sites.
        categories: names of the categories by site.
        offset: is taken from the numbers of sites in the measurements before they are looked up.

    Raises:
        InputError: a site or category that does not exist, a category that the reference does not have there.
    """
    place = {name: number for number, name in enumerate(sites)}
    points = reference.cpu().long().repeat(len(measurements), 1)
    for row, (changes, _, line) in enumerate(measurements):
        for change in changes:
            where = f"measurements, line {line}: {change}"
            name = str(int(change.site) - offset) if offset and change.site.isdecimal() else change.site
            if name not in place:
                raise InputError(f"{where}: there is no site {name}; they are {sites[0]} to {sites[-1]}")
            known, here = categories[place[name]], int(reference[place[name]])
            if change.new not in known:
                raise InputError(f"{where}: {change.new!r} is no category of site {name}: {', '.join(known[:30])}")
            if known[here] != change.old:
                raise InputError(f"{where}: the reference has {known[here]} at site {name} (--offset shifts numbers)")
            points[row, place[name]] = known.index(change.new)
    return points


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of two ``(M,)``; ties get their mean rank. NaN where one of them is constant."""
    if a.unique().numel() < 2 or b.unique().numel() < 2:
        return float("nan")
    return float(spearman_corrcoef(a.double(), b.double()))


def _column(header: dict[str, str], names: tuple[str, ...], path: Path) -> str:
    found = next((header[name] for name in names if name in header), None)
    if found is None:
        there = ", ".join(header.values()) or "none"
        raise InputError(f"measurements: {path} needs a column {' or '.join(names)}; it has {there}")
    return found


def _changes(cell: str, where: str) -> list[Changed]:
    found = [MUTATION.fullmatch(part.strip()) for part in cell.split(":")]
    if None in found:
        raise InputError(f"{where}: {cell!r} is no mutation such as A24G")
    return [Changed(match[2], match[1], match[3]) for match in found if match]
