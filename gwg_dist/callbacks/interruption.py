"""Ends a run at a step that all ranks agree on when it is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any, Self

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.distributed import any_rank
from gwg_dist.errors import Stopped
from gwg_dist.strategy import started_by_us

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interruption(Callback):
    """SIGINT, SIGTERM and SIGUSR1 end training after the iteration they arrive in; the checkpoint is written as usual.

    While the trainer trains, the handler sets a flag and nothing else: a handler that saves can meet ranks at different
    points and hang. All ranks look at their flags together, at the end of an iteration and every few temperatures of
    an estimate. Before and after training there is nothing to save: the handler raises Stopped there, and so does a
    second Ctrl-C anywhere. A process that leaves like this tells the processes it started, or the one that started it.

    A context: handlers are in place within it, in the main thread.
    """

    def __init__(self) -> None:
        self.received = 0
        self._training = False
        self._children: list[subprocess.Popen] = []
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

    def agreed(self) -> bool:
        """Whether any rank was told to stop. Called on all ranks at the same point."""
        self.received = any_rank(self.received, self._device)
        return self.received != 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._children = getattr(trainer.strategy.launcher, "procs", [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = pl_module.device
        self._training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.agreed():
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._training = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = number == self.received == signal.SIGINT
        first = self.received == 0
        self.received = self.received or number
        if again or (first and not self._training):
            self.tell_others()
            raise Stopped(number)

    def tell_others(self) -> None:
        """Pass it on to processes that would wait for this one in vain; those that know pay no heed."""
        for process in self._children:
            process.send_signal(signal.SIGTERM)
        if self._parent is not None and self._parent == os.getppid():
            os.kill(self._parent, signal.SIGTERM)
