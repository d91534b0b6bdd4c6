"""The Potts model with dense couplings, as used for protein families (Ekeberg et al., Physical Review E, 2013)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, PairWeights, rate_of_pairs
from gwg_dist.energies.upper import upper_form
from gwg_dist.spaces import Space
from gwg_dist.structure import DensePairs, symmetric


class PottsEnergy(Energy):
    """E(x) = -sum_{i<j} J_ij(x_i, x_j) - sum_i h_i(x_i), every pair of sites once.

    Where a site has fewer than K categories, J and h of the others begin at 0 and get no gradient. On a Binary space
    K = 1: x_i in {0, 1} takes the place of the one-hot vector.

    Args:
        space: any; D sites, K categories.
        scale: standard deviation of the initial couplings; 0 starts at independence.

    Raises:
        ValueError: a negative scale.
    """

    upper: Tensor

    learning_rate: ClassVar[float] = 3e-3
    weight_decay: ClassVar[float] = 0.1

    @classmethod
    def rate_on(cls, space: Space) -> float:
        return rate_of_pairs(cls.learning_rate, space)

    def __init__(self, space: Space, *, scale: float = 0.0) -> None:
        super().__init__(space)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        size = space.num_sites * space.width
        site = torch.arange(space.num_sites).repeat_interleave(space.width)
        self.register_buffer("upper", site[:, None] < site, persistent=False)
        exists = space.without_padding(torch.ones(space.num_sites, space.width), 0.0).flatten()
        self.pairs = nn.Parameter(scale * torch.randn(size, size) * self.upper * exists * exists[:, None])
        self.field = nn.Parameter(torch.zeros(size))

    @property
    def coupling(self) -> Tensor:
        """J, ``(D K, D K)``, symmetric with zero blocks on its diagonal; only i < j of ``pairs`` is used."""
        upper = self.pairs * self.upper
        return upper + upper.T

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)  # x^T J x / 2 needs one triangle, without its mirror image
        return -upper_form(x, self.pairs, self.space.width) - x @ self.field

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One product: ∇E = -(J x + h)."""
        flat = x.flatten(1)
        pull = flat @ self.coupling
        return -(flat * (pull / 2 + self.field)).sum(1), -(pull + self.field).view_as(x)

    def site_slopes(self, x: Tensor) -> Tensor:
        """-∇E(x) = J x + h, differentiable in the weights."""
        return (x.flatten(1) @ self.coupling + self.field).view_as(x)

    def pair_weights(self) -> PairWeights:
        return PairWeights(self.pairs, self.space.width)

    def structure(self) -> DensePairs:
        """f = x^T J x / 2 + h^T x."""
        rows = symmetric(self.pairs.detach(), self.space.width)
        return DensePairs(rows, self.field.detach().clone(), rows.new_zeros(()))
