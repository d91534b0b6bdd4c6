"""Looking at a run: pictures of the chains, recovered couplings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from gwg_dist.module import EBMModule
from gwg_dist.pictures import save_grid
from gwg_dist.tools.files import surviving


class SamplePictures(Callback):
    """Writes chains of the buffer to samples.png, to samples/ITERATION.png and to TensorBoard, on rank 0.

    Args:
        folder: the run's.
        every: iterations between two pictures; 0 turns it off.
        num: chains shown.

    Raises:
        ValueError: a negative ``every``, ``num`` below 1.
    """

    def __init__(self, folder: str | Path, *, every: int = 1000, num: int = 64) -> None:
        if every < 0:
            raise ValueError(f"every must not be negative, got {every}")
        if num < 1:
            raise ValueError(f"num must be positive, got {num}")
        self.folder = Path(folder)
        self.every = every
        self.num = num

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = self.every and (step % self.every == 0 or step == trainer.max_steps)
        assert isinstance(pl_module, EBMModule)
        codes = pl_module.chains.first_codes(self.num) if due and trainer.is_global_zero else None
        if codes is None:
            return
        with surviving("a picture of the chains"):
            path = self.folder / "samples" / f"{step:07d}.png"
            if save_grid(codes, pl_module.space, path):
                save_grid(codes, pl_module.space, self.folder / "samples.png")
                show_picture(trainer, path, step)


def show_picture(trainer: Trainer, path: Path, step: int) -> None:
    """Give the picture of an iteration to TensorBoard, where the trainer logs to it."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            with Image.open(path) as image:
                logger.experiment.add_image("chains", np.asarray(image)[None], step)


class CouplingError(Callback):
    """Logs ising/coupling_rmse where both the data and the energy have couplings J: sqrt(mean (J - J_true)^2).

    The mean is over all D^2 entries, as in the score -log RMSE of Grathwohl et al. (2021, section 6.3).

    Args:
        every: iterations between two logs, the trainer's ``log_every_n_steps``; 0 turns it off.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.every or trainer.global_step % self.every:
            return
        assert isinstance(pl_module, EBMModule)
        true, learned = getattr(pl_module.data, "coupling", None), getattr(pl_module.energy, "coupling", None)
        if not isinstance(true, torch.Tensor) or not isinstance(learned, torch.Tensor):
            return
        if true.shape == learned.shape:
            error = learned.detach() - true.to(learned.device)
            pl_module.log("ising/coupling_rmse", error.square().mean().sqrt())
