"""Progress of training: a live bar on a terminal; elsewhere (a log file, a batch job) a line every ten seconds."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import Progress

from gwg_dist.module import EBMModule
from gwg_dist.tools.terminal import REFRESH_SECONDS, console, make_progress

LINE_SECONDS = 10.0
SHOWN = {
    "loss": "loss {:+.2f}",
    "energy_gap": "gap {:+.2f}",
    "accept_prob": "accept {:.2f}",
    "hops": "hops {:.2f}",
    "lag": "lag {:.1f}",
}


class TrainingProgress(ProgressBar):
    """Iterations with loss, energy gap (nats), acceptance, hops a step, lag, MCMC steps a second, time left.

    Without chains: the loss, iterations a second, time left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress: Progress | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (self._enabled and trainer.is_global_zero):
            return
        self.progress = make_progress()
        self.progress.start()
        self._task = self.progress.add_task("training", total=trainer.max_steps, completed=trainer.global_step, text="")
        self._shown = self._line = time.monotonic()
        self._last = (trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self.progress is None or now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        step, since = self._last
        rate = (trainer.global_step - step) / max(now - since, 1e-9)
        text = self._text(pl_module, rate)
        self.progress.update(self._task, completed=trainer.global_step, text=text)
        if now - self._line >= LINE_SECONDS:
            self._line, self._last = now, (trainer.global_step, now)
            if not console.is_terminal:
                console.print(f"iteration {trainer.global_step}/{trainer.max_steps}  {text}", soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is not None:
            self.progress.update(self._task, completed=trainer.global_step)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        console.print(*args)

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _text(self, module: LightningModule, rate: float) -> str:
        if not isinstance(module, EBMModule) or module.stats is None:
            return ""
        stats = module.stats.known()
        parts = [form.format(float(stats[name])) for name, form in SHOWN.items() if name in stats]
        steps = (
            f"{rate * module.num_steps:.0f} steps/s" if module.objective.needs_chains else f"{rate:.1f} iterations/s"
        )
        return "  ".join([*parts, steps])


def progress_of(trainer: Trainer) -> Progress | None:
    """The live display of this trainer, if it has one on this rank."""
    bar = trainer.progress_bar_callback
    return bar.progress if isinstance(bar, TrainingProgress) else None
