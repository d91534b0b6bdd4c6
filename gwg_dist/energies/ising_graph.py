"""An Ising model on any graph: lattices with random signs, cliques, independent sites."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, require_binary
from gwg_dist.graph import Graph
from gwg_dist.spaces import Space
from gwg_dist.structure import SparsePairs


class IsingGraphEnergy(Energy):
    """E(x) = -sum_(i,j) J_ij s_i s_j - sum_i b_i s_i over the edges of a graph, every edge once, s = 2x - 1.

    Args:
        space: Binary.
        edges: pairs of sites that see each other; None joins every site to the next one, in a ring.
        coupling: J of every edge at first.
        bias: b of every site at first.

    Raises:
        ValueError: a space that is not Binary, edges that are no pairs of different sites of it or are there twice.
    """

    ends: Tensor

    def __init__(
        self,
        space: Space,
        *,
        edges: Sequence[Sequence[int]] | None = None,
        coupling: float = 0.2,
        bias: float = 0.0,
    ) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        num = space.num_sites
        if edges is None:
            edges = [(i, (i + 1) % num) for i in range(num if num > 2 else num - 1)]
        self.graph = Graph(num, torch.tensor(edges, dtype=torch.int64).reshape(-1, 2))
        self.register_buffer("ends", torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, persistent=False)
        self.coupling = nn.Parameter(torch.full((len(edges),), float(coupling)))
        self.bias = nn.Parameter(torch.full((num,), float(bias)))

    def forward(self, x: Tensor) -> Tensor:
        s = 2 * x - 1
        return -(s[:, self.ends[0]] * s[:, self.ends[1]]) @ self.coupling - s @ self.bias

    def structure(self) -> SparsePairs:
        """f = sum_(i,j) J_ij s_i s_j + b^T s with s = 2x - 1."""
        coupling, bias = self.coupling.detach(), self.bias.detach()
        rows = self.graph.rows(4 * coupling)
        constant = coupling.sum(dtype=torch.float64) - bias.sum(dtype=torch.float64)
        return SparsePairs(self.graph, rows, 2 * bias - rows.sum(1) / 2, constant)
