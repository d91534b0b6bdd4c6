"""The contrastive divergence family: one loss, whatever the chains start from.

Not implemented: score and ratio matching, pseudo-likelihood, energy discrepancy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.energies import Energy
from gwg_dist.objectives.base import Objective, ObjectiveResult


class ContrastiveDivergence(Objective):
    """L = mean E(x+) - mean E(x-), plus penalties.

    Where x- is distributed as the model, ∇L is exactly minus the gradient of the mean log-likelihood (the reference is
    frozen). Hinton (2002) with chains from the data, Tieleman (2008) with persistent ones.

    Args:
        energy_l2: weight of mean E(x+)^2 + mean E(x-)^2 (Du and Mordatch, 2019).
        gradient_penalty: weight of mean |∇_x E(x+)|^2; costs a second backward pass.
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

    def __call__(self, energy: Energy, x_data: Tensor, x_model: Tensor) -> ObjectiveResult:
        if self.gradient_penalty > 0:
            x_data = x_data.detach().requires_grad_()
        energy_data, energy_model = energy(torch.cat([x_data, x_model])).split([len(x_data), len(x_model)])
        loss = energy_data.mean() - energy_model.mean()
        if self.energy_l2 > 0:
            loss = loss + self.energy_l2 * (energy_data.square().mean() + energy_model.square().mean())
        if self.gradient_penalty > 0:
            (grad,) = torch.autograd.grad(energy_data.sum(), x_data, create_graph=True)
            loss = loss + self.gradient_penalty * grad.flatten(1).square().sum(1).mean()
        if self.weight_l1 > 0:
            loss = loss + self.weight_l1 * sum(p.abs().sum() for p in energy.parameters())
        return ObjectiveResult(loss, energy_data.detach(), energy_model.detach())
