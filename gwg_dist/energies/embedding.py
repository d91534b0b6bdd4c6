"""One-hot sites as a few numbers each, by one table for all sites: how networks read categorical points."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.spaces import Binary, Space


class Embedding(nn.Module):
    """h_i = T^T x_i + b: ``(..., N)`` one-hot to ``(..., C)``, the same T ``(N, C)`` and b ``(C,)`` at every site.

    A product and not a look-up, so that the gradient in x is there: ∂E/∂x_i = T ∂E/∂h_i.
    The weights have the shape of a 1x1 convolution, ``(C, N, 1, 1)``, and begin as those of one.

    Args:
        num_inputs: N, the numbers of a site; K, or K for each of several channels of an image.
        num_outputs: C.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(num_inputs)
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs, 1, 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.flatten(1), self.bias)


def table_of(embedding: Embedding | None) -> tuple[Tensor, ...]:
    """Copies of T ``(N, C)`` and b ``(C,)``; nothing for none."""
    if embedding is None:
        return ()
    table = embedding.weight.detach().flatten(1).T.clone(memory_format=torch.contiguous_format)
    return table, embedding.bias.detach().clone()


def require_categories(energy: str, space: Space) -> None:
    """Raise ValueError, naming both, where an embedding is asked for on a space that has no categories to embed."""
    if isinstance(space, Binary):
        raise ValueError(f"num_embedding of {energy} is for Categorical spaces, got {space}")
