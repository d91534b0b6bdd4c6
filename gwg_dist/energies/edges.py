"""Which sites of a model on a graph see each other: lattices, random graphs, a file's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator


class Found(NamedTuple):
    """The edges of a graph.

    Args:
        ends: ``(M, 2)`` int64, every pair of sites once.
        weights: ``(M,)`` float32; None where edges have none.
    """

    ends: Tensor
    weights: Tensor | None = None


class Edges(ABC):
    """A rule that joins sites."""

    @abstractmethod
    def join(self, shape: tuple[int, ...]) -> Found:
        """The edges between the sites of ``shape``, numbered with the last axis changing fastest.

        Raises:
            ValueError: a shape that it is not for.
        """


class Lattice(Edges):
    """Every site and the next one along each axis of the space's shape.

    Args:
        periodic: whether the last one along an axis of 3 or more sees the first; shorter axes are not closed, since
            this would join a pair twice.
    """

    def __init__(self, *, periodic: bool = True) -> None:
        self.periodic = periodic

    def join(self, shape: tuple[int, ...]) -> Found:
        site = torch.arange(math.prod(shape)).reshape(shape)
        ends = []
        for axis, length in enumerate(shape):
            joined = length if self.periodic and length > 2 else length - 1
            here, there = (part.narrow(axis, 0, joined).flatten() for part in (site, site.roll(-1, axis)))
            ends.append(torch.stack([here, there], 1))
        return Found(torch.cat(ends))


class ErdosRenyi(Edges):
    """Every pair of the D sites with the same probability, degree / (D - 1) (Erdős and Rényi, 1959).

    Args:
        degree: mean number of neighbours of a site.
        seed: seed of the graph.

    Raises:
        ValueError: a degree that is negative; when joined, one above D - 1.
    """

    def __init__(self, *, degree: float = 2.0, seed: int = 0) -> None:
        if not degree >= 0:
            raise ValueError(f"degree must not be negative, got {degree}")
        self.degree = degree
        self.seed = seed

    def join(self, shape: tuple[int, ...]) -> Found:
        num = math.prod(shape)
        if self.degree > num - 1:
            raise ValueError(f"degree must be at most {num - 1} for {num} sites, got {self.degree}")
        ends = torch.triu_indices(num, num, 1).T
        generator = make_generator(self.seed, "random graph")
        kept = torch.rand(len(ends), generator=generator, dtype=torch.float64) * (num - 1) < self.degree
        return Found(ends[kept].contiguous())


class EdgeFile(Edges):
    """The edges of a file, their weights where it has some. Sites count from 0.

    A .npy file holds a matrix of weights ``(D, D)``, symmetric and zero on its diagonal; zeros join nothing. Any other
    file is text with an edge a line, "i j" or "i j weight", by spaces or commas; lines that begin with # are comments.
    A line in the other direction may repeat an edge with the same weight.

    Args:
        path: the file.

    Raises:
        InputError: when joined, a file that cannot be read, a self-loop, weights that are not symmetric or not finite,
            an edge that is there twice, sites that the space does not have; the line or entry is named.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def join(self, shape: tuple[int, ...]) -> Found:
        num, path = math.prod(shape), Path(self.path)
        try:
            return _of_matrix(path, num) if path.suffix == ".npy" else _of_lines(path, num)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"edges {path}: cannot be read, {getattr(error, 'strerror', None) or error}") from error


def joined(edges: Edges | Sequence[Sequence[int]] | None, shape: tuple[int, ...]) -> Found:
    """Edges as an energy takes them: a rule, pairs of sites, or None for a ring.

    Raises:
        ValueError: what the rule refuses, pairs that are none.
    """
    if isinstance(edges, Edges):
        return edges.join(shape)
    if edges is None:
        return Lattice().join((math.prod(shape),))
    if any(len(pair) != 2 for pair in edges):
        raise ValueError(f"edges must be pairs of sites, got {next(pair for pair in edges if len(pair) != 2)}")
    return Found(torch.tensor([list(pair) for pair in edges], dtype=torch.int64).reshape(-1, 2))


def initial_couplings(num: int, weights: Tensor | None, coupling: float | None, *, default: float) -> Tensor:
    """A coupling an edge, ``(num,)``: ``coupling`` or the default; where there are weights, a factor of these."""
    if weights is not None:
        return weights * (1.0 if coupling is None else coupling)
    return torch.full((num,), float(default if coupling is None else coupling))


def _of_matrix(path: Path, num: int) -> Found:
    try:
        matrix = torch.from_numpy(np.load(path, allow_pickle=False)).double()
    except (ValueError, TypeError) as error:
        raise InputError(f"edges {path}: expected a matrix of numbers, {error}") from error
    if tuple(matrix.shape) != (num, num):
        raise InputError(f"edges {path}: expected a matrix of shape ({num}, {num}), got {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise InputError(f"edges {path}: weights must be finite, entry {_first(~matrix.isfinite())} is not")
    if matrix.diagonal().any():
        raise InputError(f"edges {path}: no site sees itself, entry {_first(matrix.diag().diag() != 0)} is not 0")
    if not torch.equal(matrix, matrix.T):
        i, j = _first(matrix != matrix.T)
        pair = f"{matrix[i, j]:g} at ({i}, {j}) and {matrix[j, i]:g} at ({j}, {i})"
        raise InputError(f"edges {path}: weights must be symmetric, got {pair}")
    ends = matrix.triu(1).nonzero()
    return Found(ends, matrix[ends[:, 0], ends[:, 1]].float())


def _of_lines(path: Path, num: int) -> Found:
    rows: dict[tuple[int, int], tuple[float | None, int, bool]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields, where = line.replace(",", " ").split(), f"edges {path}, line {number}"
        if not fields or fields[0].startswith("#"):
            continue
        i, j, weight = _edge(fields, where, num)
        key, turned = (min(i, j), max(i, j)), i > j
        before = rows.setdefault(key, (weight, number, turned))
        if before[1] == number:
            continue
        if before[2] == turned:
            raise InputError(f"{where}: the edge {i} {j} is on line {before[1]} already")
        if before[0] != weight:
            raise InputError(f"{where}: weights must be symmetric, got {weight} and, on line {before[1]}, {before[0]}")
    if len({weight is None for weight, _, _ in rows.values()}) > 1:
        raise InputError(f"edges {path}: some lines have a weight and others have none")
    ends = torch.tensor(list(rows), dtype=torch.int64).reshape(-1, 2)
    weights = [weight for weight, _, _ in rows.values() if weight is not None]
    return Found(ends, torch.tensor(weights) if weights else None)


def _edge(fields: list[str], where: str, num: int) -> tuple[int, int, float | None]:
    try:
        i, j = int(fields[0]), int(fields[1])
        weight = float(fields[2]) if len(fields) > 2 else None
    except (ValueError, IndexError) as error:
        raise InputError(f"{where}: expected 'i j' or 'i j weight', got {' '.join(fields)!r}") from error
    if len(fields) > 3 or (weight is not None and not math.isfinite(weight)):
        raise InputError(f"{where}: expected 'i j' or 'i j weight' with a finite weight, got {' '.join(fields)!r}")
    if not (0 <= i < num and 0 <= j < num):
        raise InputError(f"{where}: sites must lie in 0..{num - 1}, got {i} and {j}")
    if i == j:
        raise InputError(f"{where}: no site sees itself, got {i} {j}")
    return i, j, weight


def _first(where: Tensor) -> tuple[int, int]:
    i, j = where.nonzero()[0].tolist()
    return i, j
