"""Exponential moving averages of the weights, by Lightning's own callback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from gwg_dist.module import EBMModule


class AveragedWeights(WeightAveraging):
    """Averages the weights after every iteration; evaluation and ``state_dict`` of a checkpoint use the average.

    After t of them the old average weighs min(decay, (1 + t) / (10 + t)), so that a short run forgets how it began.
    Buffers, the fitted reference among them, are copied after every iteration and not averaged.

    Args:
        decay: largest weight of the old average, in [0, 1); 0 turns averaging off.

    Raises:
        ValueError: a decay outside [0, 1).
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        super().__init__(use_buffers=False, multi_avg_fn=partial(average_all, decay))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        assert isinstance(pl_module, EBMModule)
        pl_module.evaluated_weights = partial(self.in_place, trainer, pl_module)

    @contextmanager
    def in_place(self, trainer: Trainer, module: LightningModule) -> Iterator[None]:
        """Within it ``module`` holds the averaged weights, by the hooks that swap them for Lightning's validation."""
        self.on_validation_epoch_start(trainer, module)
        try:
            yield
        finally:
            self.on_validation_epoch_end(trainer, module)


def averaged(decay: float, average: Tensor, weights: Tensor, num: Tensor | int) -> Tensor:
    """The average with ``weights`` taken in, after ``num`` others; without waiting for a GPU."""
    return average.to(weights.dtype).lerp(weights, share_of_new(decay, torch.as_tensor(num), weights))


def average_all(decay: float, averages: Sequence[Tensor], weights: Sequence[Tensor], num: Tensor) -> None:
    """``averaged`` for tensors of one device, written over the averages; one share serves all.

    Averages may be less precise than the weights: they are made before a trainer converts these.
    """
    share = share_of_new(decay, num, weights[0])
    for average, new in zip(averages, weights, strict=True):
        average.copy_(average.to(new.dtype).lerp(new, share.to(new.dtype)))


def share_of_new(decay: float, num: Tensor, like: Tensor) -> Tensor:
    """1 - min(decay, (1 + t) / (10 + t)) after t = ``num``, 0-d, in the precision of ``like``."""
    num = num.to(like)
    return 1 - ((1 + num) / (10 + num)).clamp(max=decay)
