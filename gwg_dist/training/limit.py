"""The time that one start of a run may train for, and what is left to train when it is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer

from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say


class TimeLimit(Timer):
    """Ends training on all ranks after some time, counted from this start of the run: earlier starts do not count.

    Args:
        duration: DD:HH:MM:SS, a timedelta, or its arguments by name.
        options: what follows the command that goes on with the run.

    Raises:
        InputError: a duration that is none, or not positive.
    """

    def __init__(self, duration: str | timedelta | dict[str, int], options: str = "") -> None:
        self.options = options
        try:
            super().__init__(duration, verbose=False)
        except (MisconfigurationException, TypeError) as error:
            raise InputError(f"trainer.max_time must be like 00:08:00:00 (DD:HH:MM:SS), got {duration}") from error
        if (self._duration or 0) <= 0:
            raise InputError(f"trainer.max_time must be positive, got {duration}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        left = trainer.max_steps - trainer.global_step
        if left > 0 and (self.time_remaining() or 0) <= 0 and trainer.is_global_zero:
            say(
                f"the time is over (trainer.max_time) at iteration {trainer.global_step} of {trainer.max_steps}, "
                f"{left} are left to train: python -m gwg_dist.fit --resume {trainer.default_root_dir}{self.options}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing of an earlier start counts."""


def time_limit(duration: str | timedelta | dict[str, int] | None, options: str) -> list[Callback]:
    """The callback that keeps to ``trainer.max_time``, where it is given; see ``TimeLimit``."""
    return [] if duration is None else [TimeLimit(duration, options)]


def nothing_left(start: int, max_steps: int) -> str | None:
    """A line that says that a run which goes on from iteration ``start`` is through; None where it is not."""
    if start < max_steps:
        return None
    return (
        f"nothing is left to train: the run is at iteration {start}, and trainer.max_steps is {max_steps}; "
        f"--trainer.max_steps={2 * start} would go on"
    )
