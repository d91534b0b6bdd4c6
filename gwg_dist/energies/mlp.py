"""A multilayer perceptron over the sites: an energy for points without geometry."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from gwg_dist.energies.base import Energy
from gwg_dist.spaces import Space


class MLPEnergy(Energy):
    """E(x) = w^T h_L + b with h_l = SiLU(W_l h_{l-1} + b_l) and h_0 the flattened x.

    Args:
        space: any.
        num_hidden: width of every hidden layer.
        num_layers: number of hidden layers, L.

    Raises:
        ValueError: a width or a depth below 1.
    """

    learning_rate: ClassVar[float] = 1e-3
    weight_decay: ClassVar[float] = 1.0

    def __init__(self, space: Space, *, num_hidden: int = 128, num_layers: int = 2) -> None:
        super().__init__(space)
        for name, value in (("num_hidden", num_hidden), ("num_layers", num_layers)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        inputs = space.num_sites * space.width
        widths = [inputs] + [num_hidden] * num_layers
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(num_hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))[:, 0]
