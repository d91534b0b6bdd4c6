"""A multilayer perceptron over the sites: an energy for points without geometry."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies.base import Energy
from gwg_dist.energies.embedding import Embedding, require_categories, table_of
from gwg_dist.energies.silu import silu_backward
from gwg_dist.spaces import Change, Space
from gwg_dist.structure import Evaluation, product_after


class MLPEnergy(Energy):
    """E(x) = w^T h_L + b with h_l = SiLU(W_l h_{l-1} + b_l) and h_0 the flattened x, or its embedded sites in a row.

    Args:
        space: any.
        num_hidden: width of every hidden layer.
        num_layers: number of hidden layers, L.
        num_embedding: numbers that a site of a categorical point becomes, by one table for all sites, in place of K;
            None leaves the K numbers of its one-hot form.

    Raises:
        ValueError: a width or a depth below 1; an embedding of binary sites.
    """

    learning_rate: ClassVar[float] = 1e-3
    weight_decay: ClassVar[float] = 1.0

    def __init__(
        self, space: Space, *, num_hidden: int = 128, num_layers: int = 2, num_embedding: int | None = None
    ) -> None:
        super().__init__(space)
        for name, value in (
            ("num_hidden", num_hidden), ("num_layers", num_layers), ("num_embedding", num_embedding)
        ):  # fmt: skip
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self.embedding: Embedding | None = None
        if num_embedding is not None:
            require_categories(type(self).__name__, space)
            self.embedding = Embedding(space.width, num_embedding)
        widths = [space.num_sites * (num_embedding or space.width)] + [num_hidden] * num_layers
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(num_hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        sites = x if self.embedding is None else self.embedding(x)
        return self.layers(sites.flatten(1))[:, 0]

    def structure(self) -> Perceptron:
        """The layers, the first of them followed through moves."""
        first, *others, head = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        weights = tuple(layer.weight.detach().clone() for layer in (first, *others))
        biases = tuple(layer.bias.detach().clone() for layer in (first, *others))
        columns = weights[0].T.contiguous()
        table = table_of(self.embedding)
        return Perceptron(weights, biases, columns, -head.weight[0], -head.bias[0], weights, table)


class Perceptron(NamedTuple):
    """f = -E of an ``MLPEnergy`` and ∇f, by a forward and a backward pass written out.

    The evaluation carries W_1 h_0 + b_1, ``(B, H)``, as its one ``aux``. A move adds a column of W_1, or the difference
    of two, to it; of embedded sites, the columns of one site times the change of its numbers.

    Args:
        weights: W_l, ``(H, N)`` and ``(H, H)``, of the forward pass.
        biases: b_l, ``(H,)``.
        columns: the transpose of W_1, ``(N, H)``, contiguous.
        head: -w, ``(H,)``.
        constant: -b, 0-d.
        back: W_l of the backward pass, the same, perhaps in bfloat16.
        embedding: table ``(K, C)`` and bias ``(C,)`` of the sites; empty where x is read as it is.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    columns: Tensor
    head: Tensor
    constant: Tensor
    back: tuple[Tensor, ...]
    embedding: tuple[Tensor, ...] = ()

    @property
    def in_bfloat16(self) -> bool:
        return self.back[0].dtype == torch.bfloat16

    @property
    def backward_products(self) -> int:
        return sum(weight.numel() for weight in self.back)

    def mixed(self) -> Perceptron:
        return self._replace(back=tuple(weight.bfloat16() for weight in self.weights))

    def f(self, x: Tensor) -> Tensor:
        return self._forward(self._first(x))[0]

    def start(self, x: Tensor) -> Evaluation:
        return self._at(x, self._first(x))

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        (first,) = here.aux
        if not self.embedding:
            return self._at(x, product_after(first, self.columns, x, change))
        table, _ = self.embedding
        columns = self.columns.unflatten(0, (-1, table.shape[1]))[change.site]  # (B, C, H)
        step = table[change.new] - table[change.old]
        return self._at(x, first + torch.einsum("bc,bch->bh", step, columns))

    def _first(self, x: Tensor) -> Tensor:
        if self.embedding:
            table, bias = self.embedding
            x = functional.linear(x, table.T, bias)
        return functional.linear(x.flatten(1), self.weights[0], self.biases[0])

    def _forward(self, first: Tensor) -> tuple[Tensor, list[Tensor]]:
        """f, and the inputs of the SiLUs."""
        inputs = [first]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            inputs.append(functional.linear(functional.silu(inputs[-1]), weight, bias))
        return functional.silu(inputs[-1]) @ self.head + self.constant, inputs

    def _at(self, x: Tensor, first: Tensor) -> Evaluation:
        f, inputs = self._forward(first)
        grad = self.head.to(self.back[0].dtype).expand_as(first)
        for a, weight in zip(reversed(inputs), reversed(self.back), strict=True):
            grad = silu_backward(grad, a.to(grad.dtype)) @ weight
        return Evaluation(f, self._in_points(grad.to(x.dtype), x), (first,))

    def _in_points(self, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient in x from that in h_0."""
        if not self.embedding:
            return grad.view_as(x)
        table, _ = self.embedding
        return grad.unflatten(1, (-1, table.shape[1])) @ table.T
