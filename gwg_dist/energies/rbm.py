"""The restricted Boltzmann machine with its binary hidden units summed out, on binary or categorical points."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies.base import Energy
from gwg_dist.spaces import Space
from gwg_dist.structure import HiddenUnits


class RBMEnergy(Energy):
    """E(x) = -b^T x - sum_h softplus(W x + c)_h with x flattened to N = D (binary) or D K (one-hot) numbers.

    On one-hot x the visible units are softmax units, one a site (Salakhutdinov, Mnih and Hinton, 2007).

    Args:
        space: any; D visible units.
        num_hidden: H.
        scale: standard deviation of the initial weights.

    Raises:
        ValueError: num_hidden below 1.
    """

    learning_rate: ClassVar[float] = 1e-2
    weight_decay: ClassVar[float] = 0.1

    def __init__(self, space: Space, *, num_hidden: int = 64, scale: float = 0.01) -> None:
        super().__init__(space)
        if num_hidden < 1:
            raise ValueError(f"num_hidden must be positive, got {num_hidden}")
        size = space.num_sites * space.width
        self.weight = nn.Parameter(scale * torch.randn(num_hidden, size))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        hidden = functional.linear(x, self.weight, self.hidden_bias)
        return -(x @ self.visible_bias) - functional.softplus(hidden).sum(1)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two products: ∇E = -b - W^T sigmoid(W x + c)."""
        flat = x.flatten(1)
        hidden = functional.linear(flat, self.weight, self.hidden_bias)
        energy = -(flat @ self.visible_bias) - functional.softplus(hidden).sum(1)
        return energy, (-self.visible_bias - torch.sigmoid(hidden) @ self.weight).view_as(x)

    def structure(self) -> HiddenUnits:
        """f = b^T x + sum_h softplus(W x + c)_h."""
        weight = self.weight.detach()
        return HiddenUnits(
            weight.clone(), weight.T.contiguous(), self.hidden_bias.detach().clone(), self.visible_bias.detach().clone()
        )
