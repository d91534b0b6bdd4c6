"""The Potts model on any graph: lattices in any dimension, random graphs, given edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, PairWeights
from gwg_dist.energies.edges import Edges, Lattice, initial_couplings, joined
from gwg_dist.graph import Graph
from gwg_dist.spaces import Categorical, Space
from gwg_dist.structure import SparseCategoricalPairs


class PottsGraphEnergy(Energy):
    """E(x) = -sum_(i,j) J_ij(x_i, x_j) - sum_i h_i(x_i) over the edges of a graph, every edge once.

    It begins as the Potts model of one coupling (Potts, 1952), J_ij(k, l) = coupling [k = l] and h = 0, on the square
    lattice critical at log(1 + sqrt(K)); every entry of J and h is a parameter.

    Args:
        space: Categorical; K categories.
        edges: pairs of sites that see each other, or a rule: ``Lattice``, ``ErdosRenyi``, ``EdgeFile``. None is the
            periodic lattice of the space's shape.
        coupling: J_ij(k, k) of every edge at first, 0.5 by default; where edges have weights a factor of them, 1 by
            default.
        scale: standard deviation of what is added to every entry of J at first.

    Raises:
        ValueError: a space that is not Categorical, edges that are no pairs of different sites of it or are there
            twice, a negative scale.
    """

    ends: Tensor

    def __init__(
        self,
        space: Space,
        *,
        edges: Edges | Sequence[Sequence[int]] | None = None,
        coupling: float | None = None,
        scale: float = 0.0,
    ) -> None:
        super().__init__(space)
        if not isinstance(space, Categorical):
            raise ValueError(f"PottsGraphEnergy is for Categorical spaces, got {space}; IsingGraphEnergy is for binary")
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        ends, weights = joined(Lattice() if edges is None else edges, space.shape)
        self.graph = Graph(space.num_sites, ends)
        self.register_buffer("ends", ends.T, persistent=False)
        alike = initial_couplings(len(ends), weights, coupling, default=0.5)
        pairs = alike[:, None, None] * torch.eye(space.num_categories)
        self.pairs = nn.Parameter(pairs + scale * torch.randn(pairs.shape) if scale else pairs)
        self.field = nn.Parameter(torch.zeros(space.num_sites, space.num_categories))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, self.ends[0]], x[:, self.ends[1]]
        together = torch.einsum("bmk,mkl,bml->b", first, self.pairs, second)
        return -together - (x * self.field).sum((1, 2))

    def pair_weights(self) -> PairWeights:
        return PairWeights(self.pairs)

    def structure(self) -> SparseCategoricalPairs:
        """f = sum_(i,j) x_i^T J_ij x_j + sum_i h_i^T x_i."""
        rows = self.graph.rows(self.pairs.detach())
        return SparseCategoricalPairs(self.graph, rows, self.field.detach().clone(), rows.new_zeros(()))
