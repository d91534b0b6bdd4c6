"""A family of aligned sequences, protein or RNA: weighted by how alike they are, and held out by homology."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.aligned import LEAST, is_unknown, sites_of
from gwg_dist.data.alphabets import GAP, NO_CODE, Alphabet
from gwg_dist.data.base import DiscreteData, Splits, split_rows
from gwg_dist.data.clusters import whole_clusters
from gwg_dist.data.distances import matrix_size, read_distances
from gwg_dist.data.families import Family, Reading, holds_family, read_family
from gwg_dist.data.files import check_held_out
from gwg_dist.data.identity import compare
from gwg_dist.data.sequences import SUFFIXES, holds_sequences, read_sequences, write_fasta
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.errors import InputError

WEIGHTS, SPLITS, DUPLICATES = ("auto", "identity", "file", "none"), ("clusters", "rows"), ("keep", "merge")
HIGHER = (0.9, 0.95, 1.0)  # identities that are tried where the clusters of the given one are too large


class Alignment(DiscreteData):
    """Aligned sequences: FASTA, A2M, A3M or Stockholm, plain or .gz, or an .npz with arrays msa and alphabet.

    What a file is, is seen by its content. Insert columns of A2M and A3M are left out.

    Args:
        path: the file.
        batch_size: points in an iteration, on all ranks together.
        alphabet: "auto", "protein", "rna", "dna", or the letters in the order of their categories, such as "-ACGU".
        unknown: letters outside the alphabet: "gap" reads them as gaps, "drop" leaves out their sequences, "error"
            refuses them.
        max_gaps: largest share of gaps of a sequence that is kept.
        max_column_gaps: largest share of gaps of a column that is kept.
        duplicates: "keep" identical sequences, or "merge" them into one with the sum of their weights.
        weights: "identity", 1 / (number of sequences that are as alike as ``identity``); "file", those of the .npz;
            "none"; "auto", the file's where it has some, else "identity".
        identity: share of the sites at which two sequences that are near each other are equal, at the least.
        split: "clusters" holds out whole clusters of the sequences that hang together at ``cluster_identity``, "rows"
            sequences.
        cluster_identity: no sequence that is held out is as alike as this to one of another split. Where the clusters
            are too large to be held out, .9, .95 and 1.0 are tried in turn, then single sequences are held out.
        held_out: fraction for each of the two splits that are cut.
        reference: name of the record that structures are aligned to, or the first word of it; None takes the first
            record, or the ref of an .npz.
        distances: distances between sites in Å: an .npz, .npy or .csv of one for each pair of columns, or a structure
            as PDB or mmCIF. None takes those of an .npz of msa.
        chain: name of the structure's chain; None takes the one that is most like the reference.

    Raises:
        InputError: a file, record, letter or field that cannot be used.
    """

    sources: ClassVar[tuple[str, ...]] = tuple(f"{suffix}{more}" for more in ("", ".gz") for suffix in SUFFIXES)
    paths: ClassVar[tuple[str, ...]] = ("path", "distances")
    is_aligned: bool = True
    beside: str = ".fasta"

    @classmethod
    def reads(cls, path: Path) -> bool:
        return holds_sequences(path) or holds_family(path)

    def __init__(
        self,
        path: str,
        *,
        batch_size: int = 100,
        alphabet: str = "auto",
        unknown: str = "gap",
        max_gaps: float = 1.0,
        max_column_gaps: float = 1.0,
        duplicates: str = "keep",
        weights: str = "auto",
        identity: float = 0.8,
        split: str = "clusters",
        cluster_identity: float = 0.8,
        held_out: float = 0.1,
        reference: str | None = None,
        distances: str | None = None,
        chain: str | None = None,
    ) -> None:
        how = Reading(alphabet, unknown, max_gaps, max_column_gaps, reference)
        _check(duplicates, weights, identity, split, cluster_identity)
        self.held_out = check_held_out(held_out)
        self.identity, self.cluster_identity = identity, cluster_identity
        self.by_clusters, self.merges = split == "clusters", duplicates == "merge"
        self._family = read_family(path, how)
        if weights == "file" and self._family.weights is None:
            raise InputError(f"data.weights: {path} has no weights of its own")
        self._weighting = weights
        if weights == "auto":
            self._weighting = "identity" if self._family.weights is None else "file"
        self.path, self._unknown, self._split_names = path, unknown, {}
        num_sites, categories = self._family.codes.shape[1], len(self._family.alphabet.letters)
        super().__init__(
            Binary(num_sites) if categories == 2 else Categorical(num_sites, categories), batch_size=batch_size
        )
        self.notes = list(self._family.notes)
        if distances is None and holds_family(Path(path).expanduser()) and matrix_size(path) is not None:
            distances = path
        self._distances = None if distances is None else self._read_distances(distances, chain)

    def kept(self) -> dict[str, Any]:
        family = self._family
        known = {"letters": self.alphabet, "columns": family.columns.tolist(), "width": family.width}
        return {**super().kept(), **known, "reference": family.reference, "unknown": self._unknown}

    @classmethod
    def of_kept(cls, space: Space, kept: dict[str, Any]) -> DiscreteData:
        found = cls.__new__(cls)
        DiscreteData.__init__(found, space)
        found.take_kept(kept)
        columns, none = np.array(kept["columns"], dtype=np.int64), np.empty((0, space.num_sites), np.uint8)
        found._family = Family([], none, Alphabet(kept["letters"]), columns, kept["width"], kept["reference"], None, [])
        found._unknown, found._distances = kept["unknown"], None
        return found

    # -- what the field calls its data --------------------------------------------------------------------------------

    @property
    def alphabet(self) -> str:
        """The letters in the order of their categories."""
        return self._family.alphabet.letters

    @property
    def columns(self) -> Tensor:
        """Where each site was among the columns of the file, ``(L,)`` int64 from 0."""
        return torch.from_numpy(self._family.columns.astype(np.int64))

    @property
    def reference(self) -> str:
        """Letters and gaps of the reference at the sites."""
        return self._family.reference

    @property
    def distances(self) -> Tensor | None:
        """Distances between sites in Å, ``(L, L)`` float64, NaN where unknown; None where none were given."""
        return self._distances

    @property
    def names(self) -> dict[str, list[str]]:
        """The names of the points of each split."""
        _ = self.splits
        return self._split_names

    def codes_of(self, sequences: Sequence[str]) -> Tensor:
        """Codes of sequences ``(N, L)`` uint8, read as those of the file are.

        Each has a letter for every site, or for every column of the file; with or without inserts, as A3M has them.

        Raises:
            InputError: another length, or a letter that the file would not be read with; it names the sequence.
        """
        return self._codes(list(sequences), missing_as=None, where="sequences").to(self.space.code_dtype)

    def text_of(self, codes: Tensor) -> list[str]:
        """Letters and gaps of codes ``(N, L)``."""
        return self._family.alphabet.text_of(codes)

    def encode_file(self, path: str | Path, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
        """Codes ``(N, L)`` int64 of a file of sequences, and their names; a file of codes is read as well.

        Args:
            path: the file.
            missing_as: the code of a letter outside the alphabet, such as X; None reads it as the alignment does.

        Raises:
            InputError: a file or a sequence that cannot be used.
        """
        if not self.reads(Path(path).expanduser()) or holds_family(Path(path).expanduser()):
            return super().encode_file(path, missing_as=missing_as)
        found = read_sequences(path, "file")
        return self._codes(found.strings, missing_as=missing_as, where=f"file: {path}"), found.names

    @property
    def writes(self) -> tuple[str, ...]:
        return (*self.sources, *super().writes)

    def write_file(self, path: str | Path, codes: Tensor, names: Sequence[str]) -> None:
        """Write FASTA where the suffix is one of it, and codes otherwise."""
        if any(str(path).lower().endswith(suffix) for suffix in self.sources):
            write_fasta(path, names, self.text_of(codes))
        else:
            super().write_file(path, codes, names)

    def point_names(self, split: str) -> list[str]:
        return self.names[split]

    def site_names(self) -> list[str]:
        """The numbers of the columns of the file, from 1."""
        return [str(column + 1) for column in self._family.columns]

    def category_names(self) -> list[list[str]]:
        return [list(self.alphabet)] * self.space.num_sites

    # -- points -------------------------------------------------------------------------------------------------------

    def load(self) -> Splits:
        weights, clusters = self._weighed()
        codes = self._family.codes
        rows = np.arange(len(codes))
        if self.merges:
            _, rows, groups = np.unique(codes, axis=0, return_index=True, return_inverse=True)
            weights = np.bincount(groups.ravel(), np.ones(len(codes)) if weights is None else weights)
            rows, weights = np.sort(rows), weights[np.argsort(rows)]
        if len(rows) < LEAST:
            raise InputError(f"data.duplicates: {len(rows)} different sequences are left of {len(codes):,} in "
                             f"{self.path}, expected at least {LEAST}; see --data.duplicates=keep")  # fmt: skip
        points = torch.from_numpy(codes[rows])
        given = None if weights is None else torch.from_numpy(weights)
        parts = self._parts(codes[rows], clusters[rows])
        named = parts if given is None else [parts[0][given[parts[0]] > 0], *parts[1:]]  # the weightless are left out
        self._split_names = {
            name: [self._family.names[row] for row in rows[part.numpy()]]
            for name, part in zip(("train", "validation", "test"), named, strict=True)
        }
        return Splits(*(points[part] for part in parts), *(None if given is None else given[part] for part in parts))

    def _weighed(self) -> tuple[np.ndarray | None, np.ndarray]:
        """A weight for each sequence, None where all count once, and the number of its cluster."""
        near = self.identity if self._weighting == "identity" else None
        alike = compare(self._family.codes, near=near, linked=self.cluster_identity if self.by_clusters else None)
        if self._weighting == "none":
            return None, alike.clusters
        weights = 1 / alike.counts if self._weighting == "identity" else self._family.weights
        assert weights is not None, "the constructor has seen to it"
        how = "of the file" if self._weighting == "file" else f"at {self.identity:.0%} identity"
        self.notes.append(f"weights {how}: the effective number of sequences is {weights.sum():,.0f}")
        return weights, alike.clusters

    def _parts(self, codes: np.ndarray, clusters: np.ndarray) -> list[Tensor]:
        """The points of the three splits by number."""
        num = max(round(self.held_out * len(codes)), 1)
        rows = torch.arange(len(codes))
        if self.by_clusters:
            part = self._of_clusters(codes, clusters, num)
            if part is not None:
                return [rows[torch.from_numpy(part == number)] for number in (0, 2, 1)]
            self.notes.append("too few sequences differ to hold out clusters: single sequences are held out, which the "
                              "model may know from training")  # fmt: skip
        return [points[:, 0] for points in split_rows(rows[:, None], num, num)]

    def _of_clusters(self, codes: np.ndarray, clusters: np.ndarray, num: int) -> np.ndarray | None:
        """The part of each point, see ``whole_clusters``, at the first identity whose clusters are small enough."""
        for identity in (self.cluster_identity, *(higher for higher in HIGHER if higher > self.cluster_identity)):
            if identity != self.cluster_identity:
                clusters = compare(codes, near=None, linked=identity).clusters
            sizes = np.bincount(clusters)
            at = f"{np.count_nonzero(sizes):,} clusters at {identity:.0%} identity, the largest of {sizes.max():,}"
            part = whole_clusters(clusters, (num, num))
            if part is not None:
                self.notes.append(
                    f"held out by homology: {at} sequences (--data.split=rows holds out single sequences)"
                )
                return part
            self.notes.append(f"{at} of {len(codes):,} sequences: too large to be held out")
        return None

    # -- sequences and distances of other files -----------------------------------------------------------------------

    def _codes(self, strings: Sequence[str], missing_as: int | None, where: str) -> Tensor:
        """Codes ``(N, L)`` int64 of further sequences; letters outside the alphabet as ``missing_as``, or as gaps."""
        family = self._family
        sites = sites_of(strings, family.columns, family.width, family.alphabet.letters, where)
        codes = family.alphabet.coded(sites)
        outside = codes == NO_CODE
        refused = outside & ~is_unknown(sites)
        if missing_as is None and (self._unknown != "gap" or GAP not in self.alphabet):
            refused = outside
        if refused.any():
            row, site = (int(i) for i in np.argwhere(refused)[0])
            raise InputError(f"{where}: sequence {row + 1}, site {site + 1}: {chr(sites[row, site])!r} is not in the "
                             f"alphabet {self.alphabet}")  # fmt: skip
        found = codes.astype(np.int64)
        found[outside] = self.alphabet.find(GAP) if missing_as is None else missing_as
        return torch.from_numpy(found)

    def _read_distances(self, path: str, chain: str | None) -> Tensor:
        """Distances of the sites; a matrix may be one of the columns of the file as well."""
        family, name = self._family, "data.distances"
        num_sites = len(family.columns)
        if num_sites == family.width or matrix_size(path) != family.width:
            return read_distances(path, num_sites, chain=chain, sequence=family.reference, name=name)
        return read_distances(path, family.width, name=name)[self.columns][:, self.columns]


def _check(duplicates: str, weights: str, identity: float, split: str, cluster_identity: float) -> None:
    """Raise ValueError for a setting outside its range."""
    for name, value, known in (
        ("duplicates", duplicates, DUPLICATES),
        ("weights", weights, WEIGHTS),
        ("split", split, SPLITS),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    for name, share in (("identity", identity), ("cluster_identity", cluster_identity)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} must lie in (0, 1], got {share}")
