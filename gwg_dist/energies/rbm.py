"""The Bernoulli restricted Boltzmann machine with its hidden units summed out."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies.base import Energy, require_binary
from gwg_dist.spaces import Space
from gwg_dist.structure import HiddenUnits


class RBMEnergy(Energy):
    """E(x) = -b^T x - sum_h softplus(W x + c)_h.

    Args:
        space: Binary; D visible units.
        num_hidden: H.
        scale: standard deviation of the initial weights.

    Raises:
        ValueError: a space that is not Binary, num_hidden below 1.
    """

    learning_rate: ClassVar[float] = 1e-2
    weight_decay: ClassVar[float] = 0.1

    def __init__(self, space: Space, *, num_hidden: int = 64, scale: float = 0.01) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if num_hidden < 1:
            raise ValueError(f"num_hidden must be positive, got {num_hidden}")
        self.weight = nn.Parameter(scale * torch.randn(num_hidden, space.num_sites))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(space.num_sites))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.linear(x, self.weight, self.hidden_bias)
        return -(x @ self.visible_bias) - functional.softplus(hidden).sum(1)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two products: ∇E = -b - W^T sigmoid(W x + c)."""
        hidden = functional.linear(x, self.weight, self.hidden_bias)
        energy = -(x @ self.visible_bias) - functional.softplus(hidden).sum(1)
        return energy, -self.visible_bias - torch.sigmoid(hidden) @ self.weight

    def structure(self) -> HiddenUnits:
        """f = b^T x + sum_h softplus(W x + c)_h."""
        weight = self.weight.detach()
        return HiddenUnits(
            weight.clone(), weight.T.contiguous(), self.hidden_bias.detach().clone(), self.visible_bias.detach().clone()
        )
