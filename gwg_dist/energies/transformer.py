"""A small Transformer over the sites: an energy for sequences, tables and any other points.

Not implemented: masks of sites, positions of images in two axes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy
from gwg_dist.energies.embedding import Embedding
from gwg_dist.spaces import Space

POSITION_STD = 0.1
HEAD_STD = 0.02


class TransformerEnergy(Energy):
    """E(x) = sum_i w^T LN(h_i^L), every site i a token (Vaswani et al., 2017; LN first, Xiong et al., 2020).

    h^0_i = T^T x_i + b + p_i with a table T for all sites and a learned position p_i. A layer is
    h <- h + attention(LN(h)), then h <- h + W_2 GELU(W_1 LN(h) + b_1) + b_2; every site attends to all.

    The sum makes E extensive: what one site changes by itself does not shrink with the number of sites. w begins small,
    so that p begins near the reference.

    Args:
        space: any.
        width: numbers of a token.
        depth: layers, L.
        heads: of the attention, a divisor of ``width``.

    Raises:
        ValueError: a setting below 1, a width that ``heads`` does not divide.
    """

    learning_rate: ClassVar[float] = 1e-3
    cpu_chains_at_once = 25

    def __init__(self, space: Space, *, width: int = 64, depth: int = 2, heads: int = 4) -> None:
        super().__init__(space)
        for name, value in (("width", width), ("depth", depth), ("heads", heads)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if width % heads:
            raise ValueError(f"width must be a multiple of the {heads} heads, got {width}")
        self.embedding = Embedding(space.width, width)
        self.positions = nn.Parameter(POSITION_STD * torch.randn(space.num_sites, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Parameter(HEAD_STD * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        sites = x[:, :, None] if x.ndim == 2 else x
        h = self.layers(self.embedding(sites) + self.positions)
        return (self.norm(h) @ self.head).sum(1)


class Layer(nn.Module):
    """Attention of all tokens to all, then two products a token; both added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_products = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width)
        self.products = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.mix(self._attended(self.before_attention(h)))
        return h + self.products(self.before_products(h))

    def _attended(self, h: Tensor) -> Tensor:
        """softmax(Q K^T / sqrt(c)) V, c numbers a head; written out, because penalties on ∇E differentiate it twice."""
        together = self.queries_keys_values(h).unflatten(2, (3, self.heads, -1))  # (B, D, 3, heads, c)
        queries, keys, values = together.permute(2, 0, 3, 1, 4)
        weights = (queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3])).softmax(3)
        return (weights @ values).transpose(1, 2).flatten(2)
