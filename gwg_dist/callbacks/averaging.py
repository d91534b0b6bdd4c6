"""Exponential moving averages of the weights, by Lightning's own callback."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class AveragedWeights(EMAWeightAveraging):
    """Averages the weights after every iteration; evaluation and ``state_dict`` of a checkpoint use the average.

    Buffers are copied, not averaged: the reference is fitted before the copy is made, and stays normalised.

    Args:
        decay: of the average, in [0, 1); 0 turns averaging off.

    Raises:
        ValueError: a decay outside [0, 1).
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        super().__init__(use_buffers=False, decay=decay)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.setup(stage)  # callbacks come before the module, and the copy must hold the fitted reference
        super().setup(trainer, pl_module, stage)
