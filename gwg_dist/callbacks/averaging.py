"""Exponential moving averages of the weights, by Lightning's own callback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

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
        super().__init__(use_buffers=False)
        self.decay = decay
        self._pairs: Pairs | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        assert isinstance(pl_module, EBMModule)
        pl_module.evaluated_weights = partial(self.in_place, trainer, pl_module)
        self._pairs = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take an iteration's weights in, once; the first are taken as they are."""
        if trainer.global_step <= self._latest_update_step:
            return
        assert self._average_model is not None
        num = self._average_model.n_averaged
        if self._pairs is None:
            self._pairs = Pairs.of(self._average_model.module, pl_module)
        with torch.no_grad():
            if num > 0:
                average_all(self.decay, self._pairs.averages, self._pairs.weights, num)
            else:
                copy_all(self._pairs.averages, self._pairs.weights)
            copy_all(self._pairs.buffers, self._pairs.new_buffers)
            num += 1
        self._latest_update_step = trainer.global_step

    @contextmanager
    def in_place(self, trainer: Trainer, module: LightningModule) -> Iterator[None]:
        """Within it ``module`` holds the averaged weights, by the hooks that swap them for Lightning's validation."""
        self.on_validation_epoch_start(trainer, module)
        try:
            yield
        finally:
            self.on_validation_epoch_end(trainer, module)


class Pairs(NamedTuple):
    """Tensors of an averaged model beside those of the model. To find them takes longer than to average them.

    Args:
        averages: parameters of the averaged model.
        weights: those of the model, in the same order.
        buffers: buffers of the averaged model.
        new_buffers: those of the model.
    """

    averages: Sequence[Tensor]
    weights: Sequence[Tensor]
    buffers: Sequence[Tensor]
    new_buffers: Sequence[Tensor]

    @classmethod
    def of(cls, average: nn.Module, model: nn.Module) -> Pairs:
        """Pairs of two models of one shape; ``average`` comes to the device of ``model``.

        Lightning makes the average before a strategy moves the model.
        """
        average.to(next(model.parameters()).device)
        return cls(list(average.parameters()), list(model.parameters()), list(average.buffers()), list(model.buffers()))


def averaged(decay: float, average: Tensor, weights: Tensor, num: Tensor | int) -> Tensor:
    """The average with ``weights`` taken in, after ``num`` others; without waiting for a GPU."""
    return average.to(weights.dtype).lerp(weights, share_of_new(decay, torch.as_tensor(num), weights))


def average_all(decay: float, averages: Sequence[Tensor], weights: Sequence[Tensor], num: Tensor) -> None:
    """``averaged`` written over the averages; one share serves all weights of a precision.

    Averages may be less precise than the weights: they are made before a trainer converts these.
    """
    shares: dict[torch.dtype, Tensor] = {}
    for average, new in zip(averages, weights, strict=True):
        if new.dtype not in shares:
            shares[new.dtype] = share_of_new(decay, num, new)
        if average.dtype == new.dtype:
            average.lerp_(new, shares[new.dtype])
        else:
            average.copy_(average.to(new.dtype).lerp(new, shares[new.dtype]))


def copy_all(to: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write ``values`` over ``to``."""
    for tensor, value in zip(to, values, strict=True):
        tensor.copy_(value)


def share_of_new(decay: float, num: Tensor, like: Tensor) -> Tensor:
    """1 - min(decay, (1 + t) / (10 + t)) after t = ``num``, 0-d, in the precision of ``like``."""
    num = num.to(like)
    return 1 - ((1 + num) / (10 + num)).clamp(max=decay)
