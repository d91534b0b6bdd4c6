"""An Ising model on any graph: lattices in any dimension, random graphs, given edges, cliques, independent sites."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, PairWeights, require_binary
from gwg_dist.energies.edges import Edges, initial_couplings, joined
from gwg_dist.graph import Graph
from gwg_dist.spaces import Space
from gwg_dist.structure import SparsePairs


class IsingGraphEnergy(Energy):
    """E(x) = -sum_(i,j) J_ij s_i s_j - sum_i b_i s_i over the edges of a graph, every edge once, s = 2x - 1.

    Args:
        space: Binary.
        edges: pairs of sites that see each other, or a rule: ``Lattice``, ``ErdosRenyi``, ``EdgeFile``. None joins
            every site to the next one, in a ring.
        coupling: J of every edge at first, 0.2 by default; where edges have weights a factor of them, 1 by default.
        bias: b of every site at first.
        scale: standard deviation of what is added to every J at first.

    Raises:
        ValueError: a space that is not Binary, edges that are no pairs of different sites of it or are there twice, a
            negative scale.
    """

    ends: Tensor

    def __init__(
        self,
        space: Space,
        *,
        edges: Edges | Sequence[Sequence[int]] | None = None,
        coupling: float | None = None,
        bias: float = 0.0,
        scale: float = 0.0,
    ) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        ends, weights = joined(edges, space.shape)
        self.graph = Graph(space.num_sites, ends)
        self.register_buffer("ends", ends.T, persistent=False)
        initial = initial_couplings(len(ends), weights, coupling, default=0.2)
        self.coupling = nn.Parameter(initial + scale * torch.randn(len(ends)) if scale else initial)
        self.bias = nn.Parameter(torch.full((space.num_sites,), float(bias)))

    def forward(self, x: Tensor) -> Tensor:
        s = 2 * x - 1
        return -(s[:, self.ends[0]] * s[:, self.ends[1]]) @ self.coupling - s @ self.bias

    def pair_weights(self) -> PairWeights:
        return PairWeights(self.coupling)

    def structure(self) -> SparsePairs:
        """f = sum_(i,j) J_ij s_i s_j + b^T s with s = 2x - 1."""
        coupling, bias = self.coupling.detach(), self.bias.detach()
        rows = self.graph.rows(4 * coupling)
        constant = coupling.sum(dtype=torch.float64) - bias.sum(dtype=torch.float64)
        return SparsePairs(self.graph, rows, 2 * bias - rows.sum(1) / 2, constant)
