"""The contrastive divergence family: one loss, whatever the chains start from.

Not implemented: a loss with gradients through the chains.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.objectives.base import Objective, ObjectiveResult
from gwg_dist.target import Target


class ContrastiveDivergence(Objective):
    """L = mean_w E(x+) - mean E(x-), plus penalties, in nats. mean_w counts the points of the data by their weights.

    Where x- is distributed as the model, ∇L is exactly minus the gradient of the weighted mean log-likelihood (the
    reference is frozen). Hinton (2002) with chains from the data, Tieleman (2008) with persistent ones.

    Args:
        energy_l2: weight of mean_w E(x+)^2 + mean E(x-)^2 (Du and Mordatch, 2019).
        gradient_penalty: weight of mean_w |∇_x E(x+)|^2; costs a second backward pass.
        weight_l1: weight of the sum of |θ| over all parameters, for sparse couplings.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(self, *, energy_l2: float = 0.0, gradient_penalty: float = 0.0, weight_l1: float = 0.0) -> None:
        weights = {"energy_l2": energy_l2, "gradient_penalty": gradient_penalty, "weight_l1": weight_l1}
        for name, value in weights.items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.energy_l2 = energy_l2
        self.gradient_penalty = gradient_penalty
        self.weight_l1 = weight_l1

    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        """Data and chains go through one forward. Raises ValueError where there are no chains."""
        del generator
        if x_model is None:
            raise ValueError("contrastive divergence needs points of the model's chains, got x_model=None")
        x_data = target.encode(batch.codes)
        weights = batch.weights.to(x_data.dtype)
        if self.gradient_penalty > 0:
            x_data.requires_grad_()
        energy_data, energy_model = target.energy(torch.cat([x_data, x_model])).split([len(x_data), len(x_model)])
        loss = (weights * energy_data).mean() - energy_model.mean()
        if self.energy_l2 > 0:
            loss = loss + self.energy_l2 * ((weights * energy_data.square()).mean() + energy_model.square().mean())
        if self.gradient_penalty > 0:
            (grad,) = torch.autograd.grad(energy_data.sum(), x_data, create_graph=True)
            loss = loss + self.gradient_penalty * (weights * grad.flatten(1).square().sum(1)).mean()
        if self.weight_l1 > 0:
            loss = loss + self.weight_l1 * l1_norm(target.energy)
        return ObjectiveResult(loss, energy_data.detach(), energy_model.detach())


def l1_norm(energy: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum of |θ| over all parameters, 0-d. Raises ValueError for an energy that is no module."""
    if not isinstance(energy, torch.nn.Module):
        raise ValueError(f"weight_l1 needs an energy that is a torch module, got {type(energy).__name__}")
    return sum((p.abs().sum() for p in energy.parameters()), start=torch.zeros(()))
