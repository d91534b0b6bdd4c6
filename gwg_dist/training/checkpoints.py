"""Checkpoints of a run: writing, reading, and whether one fits.

``last.ckpt`` is the newest state, ``previous.ckpt`` the one before it, ``best.ckpt`` the one of the best validation
likelihood. All hold everything a run needs to go on. ``state_dict`` is the averaged model where weights are averaged
(evaluation reads that); the weights being trained are beside it. A run killed at any moment leaves a whole file, and a
full disk the one before. What a power loss tore nevertheless is found by the sums of its parts, and the state before it
is taken. Not implemented: sharded checkpoints.
"""

from __future__ import annotations

import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from gwg_dist.callbacks import kernel_of
from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import any_rank
from gwg_dist.tools.errors import InputError, LostError
from gwg_dist.tools.files import write_tensors
from gwg_dist.tools.seeding import STREAMS
from gwg_dist.training.folder import BEST, LAST, PREVIOUS

logger = logging.getLogger("gwg_dist")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes whole files; the ``last.ckpt`` that was there becomes ``previous.ckpt``.

    A file that cannot be written leaves what is there. It is no error here, because ranks that do not write would not
    hear of it: ``failure`` says what happened until a file has been written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure = ""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        del storage_options
        final = Path(path)
        try:
            write_tensors(final, checkpoint, keep_as=PREVIOUS if final.name == LAST else "")
        except (OSError, RuntimeError) as error:
            self.failure = f"{final} could not be written: {str(error).splitlines()[0]}"
        else:
            self.failure = ""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The tensors and numbers of a checkpoint, on the CPU; a file that holds anything else is refused.

    Raises:
        InputError: no such file, a truncated one, a file of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
        if damaged is not None:
            raise ValueError(f"the sum of {damaged} is wrong")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        first_line = str(error).splitlines()[0]
        raise InputError(f"{path} is truncated or no checkpoint: {type(error).__name__}: {first_line}") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def newest_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint at ``path``; where that is a damaged ``last.ckpt``, or one that is gone, the ``previous.ckpt``.

    Raises:
        InputError: neither can be read.
    """
    try:
        return path, read_checkpoint(path)
    except InputError as error:
        previous = path.with_name(PREVIOUS)
        if path.name != LAST or not previous.is_file():
            raise
        try:
            checkpoint = read_checkpoint(previous)
        except InputError as other:
            best = path.with_name(BEST)
            way = f"; {best} may be whole: go on with --ckpt_path={best}" if best.is_file() else ""
            raise InputError(f"{error}; {other}{way}") from other
        logger.warning("%s; going on with %s", error, previous)
        return previous, checkpoint


def what_is_left(folder: Path) -> str:
    """Which checkpoint the run in a folder leaves."""
    try:
        path, checkpoint = newest_checkpoint(folder / LAST)
    except InputError:
        return "no checkpoint was written yet"
    return f"{path.name} is of iteration {checkpoint['global_step']}"


def identity(module: EBMModule) -> dict[str, Any]:
    """What tells whether a checkpoint and a run fit: plain numbers and names, under "gwg_dist" in the checkpoint."""
    return {
        "energy": type(module.energy).__name__,
        "space": repr(module.space),
        "seed": module.seed,
        "streams": STREAMS,
        "smoothing": module.reference.smoothing,
        "optimizer": type(module.trainer.optimizers[0]).__name__,
        "kernel": kernel_of(module),
    }


class RunCheckpoints(Checkpoint):
    """Saves ``last.ckpt`` every so many iterations and at the end, ``best.ckpt`` when the likelihood improves.

    It is that of the validation data by the highest log Z of all ways, see ``Assessment.between``: what forward AIS
    alone finds better may be one that misses modes. An estimate whose weights have collapsed never counts as better.

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
        self._judge(trainer, pl_module)
        if trainer.global_step % self.every == 0:
            self._save_last(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Judge an evaluation that was made up for when training started; only now there are chains to save."""
        self._judge(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training stops here, for whatever reason but an error; before averaged weights replace the trained ones.

        Raises LostError where the last state cannot be kept.
        """
        self._save_last(trainer)
        if self._saved_step != trainer.global_step:
            raise LostError(f"the state of iteration {trainer.global_step} could not be kept")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, EBMModule)
        checkpoint["gwg_dist"] = identity(pl_module) | {"data": pl_module.data.kept()}

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step, "yardstick": self.yardstick}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["yardstick"] == self.yardstick and (self.folder / BEST).is_file():
            self.best_value = state_dict["best_value"]
            self.best_step = state_dict["best_step"]

    def _judge(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the weights if this iteration's likelihood is the best."""
        assert isinstance(module, EBMModule)
        step = trainer.global_step
        if module.assessment is None or module.assessment[0] != step:
            return
        assessment = module.assessment[1]
        if "val" not in assessment.likelihoods or assessment.collapsed:
            return
        value, _ = assessment.between("val")
        if value <= self.best_value:
            return
        before = self.best_value, self.best_step
        self.best_value, self.best_step = value, step
        if not self._save(trainer, BEST):
            self.best_value, self.best_step = before

    def _save_last(self, trainer: Trainer) -> None:
        if self._saved_step != trainer.global_step and self._save(trainer, LAST):
            self._saved_step = trainer.global_step

    def _save(self, trainer: Trainer, name: str) -> bool:
        """Whether it was written; rank 0 writes and says why not, all ranks know."""
        trainer.save_checkpoint(self.folder / name)
        failure = getattr(trainer.strategy.checkpoint_io, "failure", "")
        failed = any_rank(int(bool(failure)), trainer.strategy.root_device)
        if failure:
            logger.error("%s; training goes on, what was there is kept", failure)
        return not failed
