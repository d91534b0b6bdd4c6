"""Penalties on the couplings of a model of pairs."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from gwg_dist.energies.base import PairWeights
from gwg_dist.module import EBMModule
from gwg_dist.tools.errors import InputError


class Regularisation(Callback):
    """Adds l2 sum_{i<j} |J_ij|^2 + group_l1 sum_{i<j} |J_ij| to the loss, in nats.

    J_ij are the couplings of a pair of sites as the energy holds them, and |J_ij| is the Frobenius norm of its block.
    The l2 penalty goes into the gradient, so that with any optimizer the minimum is that of the penalised loss. The
    norms of groups are not smooth at zero, where they are meant to act. After each update every block is shrunk by

        J_ij <- max(0, 1 - rate_ij group_l1 / |J_ij|) J_ij

    which is proximal gradient descent: pairs that the data do not ask for end at exactly zero (Yuan and Lin, "Model
    selection and estimation in regression with grouped variables", Journal of the Royal Statistical Society B 68,
    2006). rate_ij is the learning rate; of Adam, which divides it by the root of v, the mean square of each number's
    gradient, it is that by the root of the block's mean v. So a penalty means about the same with Adam as with SGD.

    Args:
        l2: weight of the sum of squares of all couplings.
        group_l1: weight of the sum of the norms of the pairs.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(self, *, l2: float = 0.0, group_l1: float = 0.0) -> None:
        for name, value in (("l2", l2), ("group_l1", group_l1)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.l2 = l2
        self.group_l1 = group_l1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises InputError where there is a penalty, and the energy has no couplings to lay it on."""
        if self.l2 or self.group_l1:
            self._pairs(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the gradient of the l2 penalty."""
        if self.l2:
            add_l2(self._pairs(pl_module), self.l2)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Shrink the blocks, by the rate of this update."""
        if self.group_l1:
            pairs = self._pairs(pl_module)
            shrink(pairs, self.group_l1 * rates(pairs, trainer.optimizers[0]))

    def _pairs(self, module: LightningModule) -> PairWeights:
        assert isinstance(module, EBMModule)
        pairs = module.energy.pair_weights()
        if pairs is None:
            name = type(module.energy).__name__
            raise InputError(f"regularisation needs a model of pairs, such as PottsEnergy; {name} has no couplings")
        return pairs


@torch.no_grad()
def add_l2(pairs: PairWeights, weight: float) -> None:
    """Add the gradient of ``weight`` times the sum of squares to that of the parameter."""
    if pairs.parameter.grad is not None:
        pairs.parameter.grad.add_(pairs.parameter, alpha=2 * weight)


def rates(pairs: PairWeights, optimizer: Optimizer) -> Tensor:
    """How far the optimizer's last update moved a block for a gradient of one, the shape of ``pairs.norms()``."""
    group = next(g for g in optimizer.param_groups if any(p is pairs.parameter for p in g["params"]))
    state = optimizer.state.get(pairs.parameter, {})
    squares = state.get("exp_avg_sq")
    if squares is None:
        return torch.full_like(pairs.sums(pairs.parameter.detach()), group["lr"])
    unbiased = 1 - group["betas"][1] ** float(state["step"])
    size = pairs.parameter.numel() // pairs.sums(squares).numel()
    return group["lr"] / ((pairs.sums(squares) / (size * unbiased)).sqrt() + group["eps"])


@torch.no_grad()
def shrink(pairs: PairWeights, by: Tensor) -> None:
    """The proximal map of the sum of ``by`` times the norms of the blocks, in place."""
    pairs.scale((1 - by / pairs.norms()).clamp(min=0).nan_to_num(0.0))
