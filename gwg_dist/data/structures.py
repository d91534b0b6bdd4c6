"""Distances in a solved structure, by the letters of a sequence that is aligned to one of its chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gwg_dist.data.alphabets import GAP
from gwg_dist.tools.errors import InputError

ATOMS = ("CB", "CA", "C1'")  # of a residue, the first that it has
FEW = 0.3  # share of the sites that must be equal for a chain to be the sequence's


class _Fit(NamedTuple):
    """How well a chain fits, and its residue at each site, None where it has none."""

    share: float
    chain: str
    residues: list[Any]


def structure_distances(path: Path, sequence: str, *, chain: str | None, kind: str, name: str) -> np.ndarray:
    """Distances of the sites of ``sequence`` in Å, ``(L, L)``; NaN where the structure lacks a residue or atom.

    Args:
        path: PDB or mmCIF, plain or compressed by gzip. The first model is taken.
        sequence: letters and gaps, ``L`` of them.
        chain: name of the chain; None takes the one with most equal letters.
        kind: "cb" between Cβ (Cα of glycine, C1' of nucleotides), "heavy" the smallest of all pairs of atoms but
            hydrogen.
        name: the setting that the path came from, for messages.

    Raises:
        InputError: a file that is no structure, a chain that it lacks or that is another sequence; no gemmi.
    """
    gemmi = _library(name)
    try:
        structure = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
        structure.setup_entities()
        structure.remove_alternative_conformations()
        polymers = [(part.name, part.get_polymer()) for part in structure[0]]
    except (ValueError, RuntimeError, IndexError, OSError) as error:
        raise InputError(f"{name}: {path} is no structure that can be read: {str(error).splitlines()[0]}") from error
    polymers = [(label, polymer) for label, polymer in polymers if len(polymer)]
    names = ", ".join(dict.fromkeys(label for label, _ in polymers)) or "none"
    fits = [_fit(gemmi, label, polymer, sequence) for label, polymer in polymers if chain in (None, label)]
    if not fits:
        raise InputError(f"{name}: {path} has no chain {chain!r} of residues; it has {names}")
    best = max(fits, key=lambda fit: fit.share)
    if best.share < FEW:
        raise InputError(f"{name}: chain {best.chain} of {path} is equal to the reference at {best.share:.0%} of its "
                         "letters: it is another sequence; see data.reference")  # fmt: skip
    return _heavy_distances(best.residues) if kind == "heavy" else _distances(_positions(best.residues))


def _library(name: str) -> Any:
    try:
        import gemmi
    except ImportError as error:
        raise InputError(f"{name}: structures are read by gemmi: pip install 'gwg_dist[structures]'") from error
    return gemmi


def _fit(gemmi: Any, label: str, polymer: Any, sequence: str) -> _Fit:
    """A chain's residues at the letters of a sequence, by a global alignment; nucleotides T and U are equal."""
    residues = list(polymer)
    own = [gemmi.find_tabulated_residue(residue.name).one_letter_code.upper() for residue in residues]
    sites = [site for site, letter in enumerate(sequence) if letter != GAP]
    wanted = [sequence[site].upper() for site in sites]
    is_protein = polymer.check_polymer_type() in (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD)
    if not is_protein:
        own, wanted = (["U" if letter == "T" else letter for letter in letters] for letters in (own, wanted))
    found = gemmi.align_string_sequences(wanted, own, [], gemmi.AlignmentScoring("b" if is_protein else "s"))
    places = [iter(range(len(wanted))), iter(range(len(own)))]
    fit: list[Any] = [None] * len(sequence)
    equal = 0
    rows = found.add_gaps("x" * len(wanted), 1), found.add_gaps("x" * len(own), 2)
    for marks in zip(*rows, strict=True):
        at = [next(place) if mark != "-" else None for mark, place in zip(marks, places, strict=True)]
        if at[0] is not None and at[1] is not None:
            fit[sites[at[0]]] = residues[at[1]]
            equal += wanted[at[0]] == own[at[1]]
    return _Fit(equal / max(len(sites), 1), label, fit)


def _positions(residues: list[Any]) -> np.ndarray:
    """Where the atom is that stands for each residue, ``(L, 3)`` Å; NaN where there is none."""
    found = np.full((len(residues), 3), np.nan)
    for site, residue in enumerate(residues):
        atoms = {} if residue is None else {atom.name: atom.pos.tolist() for atom in residue}
        found[site] = next((atoms[name] for name in ATOMS if name in atoms), np.nan)
    return found


def _distances(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[:, None] - positions, axis=-1)


def _heavy_distances(residues: list[Any]) -> np.ndarray:
    """The smallest distance between two atoms that are no hydrogen, of all pairs of residues."""
    atoms = [
        np.array([atom.pos.tolist() for atom in residue or () if not atom.is_hydrogen()]).reshape(-1, 3)
        for residue in residues
    ]
    found = np.full((len(atoms), len(atoms)), np.nan)
    for i, mine in enumerate(atoms):
        for j, other in enumerate(atoms[: i + 1]):
            if len(mine) and len(other):
                found[i, j] = found[j, i] = np.linalg.norm(mine[:, None] - other, axis=-1).min()
    return found
