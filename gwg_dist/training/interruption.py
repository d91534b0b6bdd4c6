"""Ends a run at an iteration that all ranks agree on when it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.tools.distributed import any_rank
from gwg_dist.tools.errors import Stopped
from gwg_dist.training.processes import started_by_us

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interruption(Callback):
    """SIGINT, SIGTERM and SIGUSR1 end training after the iteration they arrive in; the checkpoint is written as usual.

    From the first iteration on the handler sets a flag and nothing else: a handler that saves can meet ranks at
    different points and hang. All ranks look at their flags together, at the end of an iteration and every few
    temperatures of an estimate. Before, there is nothing to save: the handler raises Stopped, and so does a second
    Ctrl-C anywhere. A process that leaves like this tells the processes it started, or the one that started it.

    A context: handlers are in place within it, in the main thread.

    Args:
        device: where ranks tell each other, for a verb without a trainer.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = device
        self.received = 0
        self.only_note = False
        self.trainer: Trainer | None = None
        self._parent: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._parent = os.getppid() if started_by_us() else None
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():  # a process that leaves is not to be told by the others again
            signal.signal(number, signal.SIG_IGN if self.received else handler)
        self._previous = {}

    @property
    def is_child(self) -> bool:
        """Whether rank 0 of this run, and not a launcher, started this process."""
        return self._parent is not None

    def agreed(self) -> bool:
        """Whether any rank was told to stop. Called on all ranks at the same point."""
        self.only_note = True
        device = self.trainer.strategy.root_device if self.trainer is not None else self.device
        agreed = any_rank(self.received, device or "cpu")
        self.received = self.received or agreed  # a signal that came meanwhile is for the next time
        return agreed != 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.only_note = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.agreed():
            trainer.should_stop = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.only_note = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = number == self.received == signal.SIGINT
        first = self.received == 0
        self.received = self.received or number
        if again or (first and not self.only_note):
            self.tell_others()
            raise Stopped(number)

    def tell_others(self) -> None:
        """Pass it on to processes that would wait for this one in vain; a process that knows already ignores it."""
        launcher = self.trainer.strategy.launcher if self.trainer is not None else None
        for process in getattr(launcher, "procs", []):
            process.send_signal(signal.SIGTERM)
        if self._parent is not None and self._parent == os.getppid():
            os.kill(self._parent, signal.SIGTERM)
