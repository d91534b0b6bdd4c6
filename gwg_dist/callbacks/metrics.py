"""Logs what is known of an iteration: means over all ranks, by torchmetrics."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torchmetrics import MeanMetric

from gwg_dist.batch import Batch
from gwg_dist.module import EBMModule


class TrainingMetrics(Callback):
    """Logs train/loss, train/energy_data, train/energy_gap (nats), train/accept_prob, train/hops,
    train/energy_spread (nats), train/lag, and train/swap_prob where chains swap betas.

    Means over all ranks, each weighted by its number of points. Not of every iteration, because logging takes longer
    than a step of a small model.

    Args:
        every: iterations between two logs, the trainer's ``log_every_n_steps``; 0 turns it off.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, EBMModule)
        if not self.every or trainer.global_step % self.every or pl_module.stats is None:
            return
        means = {}
        for name, value in pl_module.stats.known().items():
            mean = MeanMetric().to(value.device)
            mean.update(value, weight=len(batch.codes))
            means[f"train/{name}"] = mean.compute()
        pl_module.log_dict(means)
