"""Ising models: dense couplings, and the nearest-neighbour lattice on a torus in any dimension.

Spins are s = 2x - 1. As in Grathwohl et al. (2021, section 6), log p(x) = s^T J s + b^T s - log Z: every pair is
counted twice, so a lattice "of σ" has J = σA, and 2σ in the textbook convention (the critical point of the square
lattice is σ = 0.2203). Not implemented: sparse couplings other than the torus.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, PairWeights, rate_of_pairs, require_binary
from gwg_dist.energies.upper import upper_form
from gwg_dist.graph import Graph
from gwg_dist.spaces import Space
from gwg_dist.structure import DensePairs, SparsePairs, symmetric


class IsingEnergy(Energy):
    """E(x) = -s^T J s - b^T s with J symmetric and zero on its diagonal, s = 2x - 1.

    Args:
        space: Binary; D sites.
        scale: standard deviation of the initial couplings; 0 starts at independence.

    Raises:
        ValueError: a space that is not Binary, a negative scale.
    """

    learning_rate: ClassVar[float] = 3e-3
    weight_decay: ClassVar[float] = 0.1

    @classmethod
    def rate_on(cls, space: Space) -> float:
        return rate_of_pairs(cls.learning_rate, space)

    def __init__(self, space: Space, *, scale: float = 0.0) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        self.pairs = nn.Parameter(scale * torch.randn(space.num_sites, space.num_sites).triu(1))
        self.bias = nn.Parameter(torch.zeros(space.num_sites))

    @property
    def coupling(self) -> Tensor:
        """J, ``(D, D)``; only the upper triangle of ``pairs`` is used."""
        upper = self.pairs.triu(1)
        return upper + upper.T

    def forward(self, x: Tensor) -> Tensor:
        s = 2 * x - 1  # s^T J s needs one triangle, without its mirror image
        return -2 * upper_form(s, self.pairs) - s @ self.bias

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One product: ∇E = -2 (2 J s + b)."""
        s = 2 * x - 1
        field = s @ self.coupling
        return -(s * (field + self.bias)).sum(1), -2 * (2 * field + self.bias)

    def site_slopes(self, x: Tensor) -> Tensor:
        """-∇E(x) = 2 (2 J s + b), differentiable in the weights."""
        return 2 * (2 * ((2 * x - 1) @ self.coupling) + self.bias)

    def pair_weights(self) -> PairWeights:
        return PairWeights(self.pairs)

    def structure(self) -> DensePairs:
        """f = (2x - 1)^T J (2x - 1) + b^T (2x - 1)."""
        coupling = symmetric(self.pairs.detach())
        total = torch.cat([rows.sum(1, dtype=torch.float64) for rows in coupling.split(64)])  # in the cache
        bias = self.bias.detach()
        constant = total.sum() - bias.sum(dtype=torch.float64)
        return DensePairs(coupling.mul_(8), (2 * bias - 4 * total).to(bias.dtype), constant)


class IsingTorusEnergy(Energy):
    """E(x) = -2σ sum_(i~j) s_i s_j - b sum_i s_i over neighbours of a periodic lattice of ``space.shape``.

    Args:
        space: Binary; one axis a dimension, each of length 3 or more.
        sigma: σ; positive is ferromagnetic.
        bias: b, the same at every site.

    Raises:
        ValueError: a space that is not Binary, an axis shorter than 3 (it would count a pair twice).
    """

    sigma: Tensor
    bias: Tensor

    def __init__(self, space: Space, *, sigma: float = 0.1, bias: float = 0.0) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if min(space.shape) < 3:
            raise ValueError(f"every axis of a torus must be at least 3 long, got shape {space.shape}")
        self.sigma = nn.Parameter(torch.tensor(float(sigma)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        site = torch.arange(space.num_sites).reshape(space.shape)
        edges = [torch.stack([site.flatten(), site.roll(-1, axis).flatten()], 1) for axis in range(site.ndim)]
        self.graph = Graph(space.num_sites, torch.cat(edges))

    def forward(self, x: Tensor) -> Tensor:
        return self._energy(*self._spins_and_neighbours(x))

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """No product at all: ∇E = -2 (2σ sum over neighbours + b)."""
        s, neighbours = self._spins_and_neighbours(x)
        return self._energy(s, neighbours), -2 * (2 * self.sigma * neighbours + self.bias).flatten(1)

    @property
    def coupling(self) -> Tensor:
        """J = σA, ``(D, D)``."""
        adjacency = self.sigma.new_zeros(self.space.num_sites, self.space.num_sites)
        return self.sigma.detach() * adjacency.scatter_(1, self.graph.neighbours, 1)

    def structure(self) -> SparsePairs:
        """f = 2σ sum_(i~j) s_i s_j + b sum_i s_i with s = 2x - 1."""
        sigma, bias = self.sigma.detach(), self.bias.detach()
        num_edges, num_sites = self.graph.num_edges, self.space.num_sites
        rows = self.graph.rows((8 * sigma).expand(num_edges))
        constant = 2 * sigma.double() * num_edges - bias.double() * num_sites
        return SparsePairs(self.graph, rows, 2 * bias - rows.sum(1) / 2, constant)

    def _spins_and_neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s = (2 * x - 1).unflatten(1, self.space.shape)
        neighbours = torch.zeros_like(s)
        for axis in range(1, s.ndim):
            neighbours = neighbours + s.roll(1, axis) + s.roll(-1, axis)
        return s, neighbours

    def _energy(self, s: Tensor, neighbours: Tensor) -> Tensor:
        return -(s * (self.sigma * neighbours + self.bias)).flatten(1).sum(1)
