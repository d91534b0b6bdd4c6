"""Stops a run whose numbers have lost their meaning, while the last good checkpoint is still there."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import all_sum, world_size
from gwg_dist.tools.errors import DivergedError

ADVICE = "more steps an iteration, a lower learning rate, SiLU in place of ReLU, or chains that restart usually help"
SMOOTHING = 0.9
RUNAWAY = 100


class DivergenceGuard(Callback):
    """Raises DivergedError, on all ranks at the same iteration, before the weights are spoilt or saved.

    Two causes. The gradient is not finite. Or the energy gap, mean E of the chains minus mean E of the data, smoothed
    over some ten checks, is above max_gap or below -100 max_gap. For chains that follow their model the gap is
    E_data[log p - log ref] - KL(p | ref) <= -E_data[log ref] <= D log K, the last for a reference fitted to the data.
    There is no such bound below; a gap a hundred times as large there is taken as running away. Without chains there is
    no gap, and the gradient alone is looked at.

    Args:
        max_gap: nats; 0 takes D log K.
        check_every: iterations between two looks at the gap.

    Raises:
        ValueError: a negative max_gap, check_every below 1.
    """

    def __init__(self, *, max_gap: float = 0.0, check_every: int = 10) -> None:
        if not max_gap >= 0:
            raise ValueError(f"max_gap must not be negative, got {max_gap}")
        if check_every < 1:
            raise ValueError(f"check_every must be positive, got {check_every}")
        self.max_gap = max_gap
        self.check_every = check_every
        self._gap = 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Gradients have been averaged over ranks here, so every rank decides alike."""
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if not torch.isfinite(norm):
            raise DivergedError(
                f"iteration {trainer.global_step + 1}: the gradient is not finite (norm {float(norm)}); {ADVICE}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.check_every:
            return
        assert isinstance(pl_module, EBMModule)
        if pl_module.stats is None or pl_module.stats.energy_gap is None:
            return
        gap = float(all_sum(pl_module.stats.energy_gap)) / world_size()
        self._gap = SMOOTHING * self._gap + (1 - SMOOTHING) * gap
        space = pl_module.space
        limit = self.max_gap or space.num_sites * math.log(space.num_categories)
        if not -RUNAWAY * limit <= self._gap <= limit:
            raise DivergedError(
                f"iteration {trainer.global_step}: the energy gap between data and chains is {self._gap:.1f} nats, "
                f"outside {-RUNAWAY * limit:.0f} to {limit:.1f}: the chains no longer follow the model; {ADVICE}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"gap": self._gap}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._gap = state_dict["gap"]
