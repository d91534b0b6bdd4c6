"""Checkpoints of a run: ``last.ckpt`` is the newest state, ``best.ckpt`` the one of the best validation likelihood.

Both hold everything a run needs to go on. ``state_dict`` is the averaged model where weights are averaged (that is what
evaluation reads); the weights being trained are beside it. Files are written aside, flushed to disk and renamed: a run
killed at any moment leaves a whole file. Not implemented: sharded checkpoints.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from gwg_dist.callbacks import AISLikelihood, Report
from gwg_dist.errors import InputError

LAST, BEST = "last.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, syncs, renames."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        del storage_options
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        beside = final.with_name(f"{final.name}.tmp")
        with open(beside, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, final)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The tensors and numbers of a checkpoint, on the CPU; a file that holds anything else is refused.

    Raises:
        InputError: no such file, a truncated one, a file of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        first_line = str(error).splitlines()[0]
        raise InputError(f"{path} is truncated or no checkpoint: {type(error).__name__}: {first_line}") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


class RunCheckpoints(Checkpoint):
    """Saves ``last.ckpt`` every so many iterations and at the end, ``best.ckpt`` when the likelihood improves.

    An estimate whose weights have collapsed never counts as better.

    Args:
        folder: where the files go.
        every: iterations between two ``last.ckpt``.
        yardstick: names what likelihoods are measured on and how. A resumed run with another yardstick, or in a folder
            without a best.ckpt, forgets the best value.

    Raises:
        ValueError: ``every`` below 1.
    """

    def __init__(self, folder: str | Path, *, every: int = 500, yardstick: str = "") -> None:
        if every < 1:
            raise ValueError(f"every must be positive, got {every}")
        self.folder = Path(folder)
        self.every = every
        self.yardstick = yardstick
        self.best_value = -math.inf
        self.best_step = 0
        self._saved_step = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, AISLikelihood) and callback.latest is not None and callback.latest[0] == step:
                self._judge(trainer, callback.latest[1])
        if step % self.every == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training stops here, for whatever reason but an error; before averaged weights replace the trained ones."""
        self._save_last(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step, "yardstick": self.yardstick}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["yardstick"] == self.yardstick and (self.folder / BEST).is_file():
            self.best_value = state_dict["best_value"]
            self.best_step = state_dict["best_step"]

    def _judge(self, trainer: Trainer, report: Report) -> None:
        validation = report.likelihoods.get("val")
        if validation is None or report.estimate.collapsed or validation.mean <= self.best_value:
            return
        self.best_value, self.best_step = validation.mean, trainer.global_step
        trainer.save_checkpoint(self.folder / BEST)

    def _save_last(self, trainer: Trainer) -> None:
        if self._saved_step != trainer.global_step:
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(self.folder / LAST)
