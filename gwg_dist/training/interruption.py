"""Ends a run at an iteration that all ranks agree on when it is told to stop, or alone where the others hang."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.tools.commands import code_of_signal
from gwg_dist.tools.distributed import any_rank, rank, world_size
from gwg_dist.tools.errors import Stopped
from gwg_dist.tools.streams import in_main_thread, surviving_streams
from gwg_dist.tools.terminal import say_error
from gwg_dist.training.checkpoints import what_is_left
from gwg_dist.training.processes import follow_starter, started_by_us

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
FORGETS = 0.9  # weight of what an iteration took before the last one
SLOWER = 3  # an iteration may take so many times as long as usual before others count as hung


class Interruption(Callback):
    """SIGINT, SIGTERM, SIGUSR1 and SIGHUP end training after the iteration they arrive in; it is saved as usual.

    From the first iteration on the handler sets a flag and nothing else: a handler that saves can meet ranks at
    different points and hang. All ranks look at their flags together, at the end of an iteration and every few
    temperatures of an estimate. Before, there is nothing to save: the handler raises Stopped, and so does a second
    Ctrl-C anywhere. A process that leaves like this tells the processes it started, or the one that started it.

    Output that nobody reads any more counts as SIGHUP, which ``nohup`` ignores. Where ranks that hang keep this one
    from looking at its flag, it leaves without them, with the last checkpoint.

    A context: handlers are in place within it, in the main thread.

    Args:
        device: where ranks tell each other, for a verb without a trainer.
        patience: seconds after a signal in which other ranks must answer; three times as long as an iteration usually
            takes, where that is more.
    """

    def __init__(self, device: torch.device | str | None = None, *, patience: float = 30) -> None:
        self.device = device
        self.patience = patience
        self.received = 0
        self.only_note = False
        self.trainer: Trainer | None = None
        self._parent: int | None = None
        self._previous: dict[int, Any] = {}
        self._within = contextlib.ExitStack()
        self._met = time.monotonic()  # when ranks last agreed
        self._usual = 0.0  # seconds between two agreements
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._parent = os.getppid() if started_by_us() else None
        follow_starter()
        if in_main_thread():
            heard = [number for number in SIGNALS if not (number == signal.SIGHUP and _is_ignored(number))]
            self._previous = {number: signal.signal(number, self._note) for number in heard}
            self._within.enter_context(surviving_streams(self._lost_output))
            if world_size() > 1:
                self._watch()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._within.close()
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
        now = time.monotonic()
        self._usual = max(now - self._met, FORGETS * self._usual)
        self._met = now
        return agreed != 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size > 1 and self._previous:
            self._watch()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.only_note = True
        self._met = time.monotonic()

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
        for process in self._started():
            process.send_signal(signal.SIGTERM)
        if self._parent is not None and self._parent == os.getppid():
            os.kill(self._parent, signal.SIGTERM)

    def _started(self) -> list[Any]:
        """The processes that this one started."""
        launcher = self.trainer.strategy.launcher if self.trainer is not None else None
        return getattr(launcher, "procs", [])

    def _lost_output(self) -> None:
        if signal.SIGHUP in self._previous:
            os.kill(os.getpid(), signal.SIGHUP)

    def _watch(self) -> None:
        """Hear of signals in a thread as well: the handler waits for the collective in which this process may be."""
        heard, tells = os.pipe()
        os.set_blocking(tells, False)
        before = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
        self._within.callback(signal.set_wakeup_fd, before)
        threading.Thread(target=self._wait_for_others, args=(heard,), name="interruption", daemon=True).start()

    def _wait_for_others(self, heard: int) -> None:
        number = 0
        while number not in SIGNALS:
            number = os.read(heard, 1)[0]
        told = time.monotonic()
        while not self._ended.wait(0.1):
            allowed = max(self.patience, SLOWER * self._usual)
            if time.monotonic() - max(told, self._met) > allowed:
                self._leave_alone(number, allowed)

    def _leave_alone(self, number: int, waited: float) -> None:
        """End this process and those it started, without a word to ranks that would not hear it."""
        left = ""
        if self.trainer is not None:
            left = f"; {what_is_left(Path(self.trainer.default_root_dir))}"
        say_error(f"rank {rank()}: told to stop, and other processes have not answered for {waited:.0f} s{left}")
        for process in self._started():
            process.kill()
        os._exit(code_of_signal(number))


def _is_ignored(number: signal.Signals) -> bool:
    """Whether this process was started with the signal ignored, as nohup does."""
    return signal.getsignal(number) is signal.SIG_IGN
