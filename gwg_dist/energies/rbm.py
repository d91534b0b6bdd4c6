"""The Bernoulli restricted Boltzmann machine with its hidden units summed out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies.base import Energy, require_binary
from gwg_dist.spaces import Change, Space
from gwg_dist.target import EnergyState


class RBMEnergy(Energy):
    """E(x) = -b^T x - sum_h softplus(W x + c)_h.

    Args:
        space: Binary; D visible units.
        num_hidden: H.
        scale: standard deviation of the initial weights.

    Raises:
        ValueError: a space that is not Binary, num_hidden below 1.
    """

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

    def increments(self) -> RBMIncrements:
        """The pre-activations follow a chain: a step is one product, (B, H) by (H, D)."""
        return RBMIncrements(
            self.weight.detach(),
            self.weight.detach().T.contiguous(),
            self.hidden_bias.detach(),
            self.visible_bias.detach(),
        )


class RBMIncrements(NamedTuple):
    """``columns`` is ``weight`` transposed, ``(D, H)``. The state carries W x + c, ``(B, H)``."""

    weight: Tensor
    columns: Tensor
    hidden_bias: Tensor
    visible_bias: Tensor

    def start(self, x: Tensor) -> EnergyState:
        return self._at(x, functional.linear(x, self.weight, self.hidden_bias))

    def move(self, state: EnergyState, x: Tensor, change: Change) -> EnergyState:
        (hidden,) = state.aux
        step = (change.new - change.old).to(x.dtype)[:, None]
        return self._at(x, hidden + step * self.columns[change.site])

    def _at(self, x: Tensor, hidden: Tensor) -> EnergyState:
        softplus, sigmoid = _softplus_sum_and_sigmoid(hidden)
        grad = torch.addmm(self.visible_bias, sigmoid, self.weight, beta=-1, alpha=-1)
        return EnergyState(-(x @ self.visible_bias) - softplus, grad, (hidden,))


def _softplus_sum_and_sigmoid(a: Tensor) -> tuple[Tensor, Tensor]:
    """``(B, H)`` to sum_h softplus ``(B,)`` and the sigmoid ``(B, H)``.

    softplus(a) = max(a, 0) + log(1 + exp(-|a|)), and 1 + exp(-|a|) <= 2: compiled, where passes are free and functions
    are not, one exponential serves both, and one logarithm the product of several factors.
    """
    if not torch.compiler.is_compiling():
        return functional.softplus(a).sum(1), a.sigmoid()
    tail = (-a.abs()).exp()
    factor = 1 + tail
    sigmoid = torch.where(a >= 0, 1.0, tail) / factor
    group = next(size for size in (20, 16, 10, 8, 5, 4, 2, 1) if a.shape[1] % size == 0)
    parts = factor.unflatten(1, (group, -1)).unbind(1)
    product = parts[0]
    for part in parts[1:]:
        product = product * part
    return a.relu().sum(1) + product.log().sum(1), sigmoid
