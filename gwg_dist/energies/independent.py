"""Independent sites: the product of Bernoulli or categorical distributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy
from gwg_dist.graph import Graph
from gwg_dist.reference import Reference
from gwg_dist.spaces import Space
from gwg_dist.structure import SparseCategoricalPairs, SparsePairs


class IndependentEnergy(Energy):
    """E(x) = -sum_i h_i(x_i); on a Binary space x_i in {0, 1} takes the place of the one-hot vector, as h_i x_i.

    With a factorised reference the model is factorised as well: p(x_i = k) ∝ ref_i(k) exp(h_i(k)), and log Z is a sum
    over sites.

    Args:
        space: any.
        scale: standard deviation of the initial h.

    Raises:
        ValueError: a negative scale.
    """

    def __init__(self, space: Space, *, scale: float = 0.0) -> None:
        super().__init__(space)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        self.field = nn.Parameter(scale * torch.randn(space.num_sites, space.width).squeeze(1))
        self.graph = Graph(space.num_sites, torch.zeros(0, 2, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return -(x * self.field).flatten(1).sum(1)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """∇E = -h everywhere."""
        return self(x), -self.field.expand_as(x)

    def structure(self) -> SparsePairs | SparseCategoricalPairs:
        """f = h^T x, pairs on a graph without edges."""
        field = self.field.detach().clone()
        if field.ndim == 1:
            return SparsePairs(self.graph, field.new_zeros(len(field), 0), field, field.new_zeros(()))
        num_sites, width = field.shape
        return SparseCategoricalPairs(
            self.graph, field.new_zeros(num_sites, 0, width, width), field, field.new_zeros(())
        )

    def log_z(self, reference: Reference | None = None) -> Tensor:
        """log sum_x ref(x) exp(-E(x)), 0-d float64 nats, against the uniform reference where none is given."""
        field = self.field.double()
        if field.ndim == 1:
            field = torch.stack([torch.zeros_like(field), field], 1)
        probs = (Reference(self.space).to(field.device) if reference is None else reference).probs
        return (field + probs.double().log()).logsumexp(1).sum()
