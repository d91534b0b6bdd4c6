"""Distances between the sites of a protein or RNA family, out of a structure that was solved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.files import existing, read_arrays
from gwg_dist.data.structures import structure_distances
from gwg_dist.tools.errors import InputError

KINDS = ("cb", "heavy")
ARRAYS, TABLES = (".npz", ".npy"), {".csv": ",", ".tsv": "\t", ".txt": None}


def read_distances(
    path: str | Path,
    num_sites: int,
    *,
    chain: str | None = None,
    sequence: str | None = None,
    kind: str = "cb",
    name: str = "distances",
) -> Tensor:
    """Distances between sites in Å, ``(L, L)`` float64, symmetric; NaN where unknown.

    Args:
        path: an .npz with an array dist_cb or dist_heavy or of one array alone, an .npy, a .csv of L lines of L
            numbers, or a structure as PDB or mmCIF, plain or compressed by gzip.
        num_sites: L.
        chain: name of the structure's chain; None takes the one that is most like ``sequence``.
        sequence: the family's member of L letters and gaps that the chain is aligned to; a structure needs it.
        kind: "cb", between Cβ (Cα of glycine, C1' of nucleotides), or "heavy", the smallest between two atoms that are
            no hydrogen.
        name: the setting that the path came from, for messages.

    Raises:
        ValueError: another kind.
        InputError: a file that cannot be used, or of another size than L.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    found = existing(path, name)
    suffix = found.suffix.lower()
    if suffix in ARRAYS:
        matrix = _of_arrays(found, kind, name)
    elif suffix in TABLES:
        matrix = _of_table(found, name)
    elif sequence is None:
        raise InputError(f"{name}: {found} is read as a structure, which needs a sequence to align its chain to")
    else:
        matrix = structure_distances(found, sequence, chain=chain, kind=kind, name=name)
    return _checked(matrix, num_sites, f"{name}: {found}")


def matrix_size(path: str | Path) -> int | None:
    """L of a file of arrays or of a table that holds distances; None of a structure, or of a file without them."""
    found = Path(path).expanduser()
    try:
        if found.suffix.lower() in ARRAYS:
            shape = _of_arrays(found, KINDS[0], "distances").shape
            return shape[0] if shape else None
        return len(_of_table(found, "distances")) if found.suffix.lower() in TABLES else None
    except InputError:
        return None


def _of_arrays(path: Path, kind: str, name: str) -> np.ndarray:
    arrays = read_arrays(path, name)
    if not arrays:
        raise InputError(f"{name}: {path} holds no array")
    wanted = f"dist_{kind}"
    if wanted not in arrays and len(arrays) > 1:
        raise InputError(f"{name}: {path} has no array {wanted!r}; it has {', '.join(sorted(arrays))}")
    return arrays.get(wanted, next(iter(arrays.values())))


def _of_table(path: Path, name: str) -> np.ndarray:
    delimiter = TABLES[path.suffix.lower()]
    try:
        return np.loadtxt(path, delimiter=delimiter, ndmin=2, comments="#")
    except (ValueError, OSError) as error:
        raise InputError(f"{name}: {path} is no table of numbers: {error}") from error


def _checked(matrix: np.ndarray, num_sites: int, where: str) -> Tensor:
    """``matrix`` as float64. Raises InputError unless it is a table of L x L distances."""
    if matrix.shape != (num_sites, num_sites):
        shape, wanted = ("x".join(map(str, sizes or (1,))) for sizes in (matrix.shape, (num_sites, num_sites)))
        raise InputError(f"{where} must hold {wanted} distances, one for each pair of sites, got {shape}")
    if matrix.dtype.kind not in "iuf":
        raise InputError(f"{where} must hold numbers, got {matrix.dtype}")
    matrix = matrix.astype(np.float64)
    matrix[np.isinf(matrix)] = np.nan
    if np.nanmin(matrix, initial=0) < 0:
        raise InputError(f"{where} holds a negative distance")
    if not np.allclose(matrix, matrix.T, rtol=1e-3, atol=1e-2, equal_nan=True):
        i, j = np.argwhere(~np.isclose(matrix, matrix.T, rtol=1e-3, atol=1e-2, equal_nan=True))[0]
        raise InputError(f"{where} must be symmetric, but {matrix[i, j]:g} and {matrix[j, i]:g} are between sites "
                         f"{i} and {j}")  # fmt: skip
    return torch.from_numpy(matrix)
