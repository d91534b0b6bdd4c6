"""A run that chains cannot follow is slowed down: a lower learning rate first, more steps an iteration then.

Not implemented: going faster again; fewer chains.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.module import LAG_EVERY, EBMModule
from gwg_dist.tools.terminal import say

SLOWER = 0.5**0.5  # of the learning rate, by one decision
SLOWEST = 1 / 16  # of the learning rate of the settings; then steps are doubled
MOST_STEPS = 8  # times those of the settings
LARGEST = 10  # limits that one measurement counts for at most: chains that stand still lag infinitely


class Decision(NamedTuple):
    """One change of the pace.

    Args:
        iteration: iteration after which the change was made.
        lag: mean lag that led to it.
        rate: factor of the learning rate from then on, 1 where it stays.
        steps: factor of the number of steps, 1 where it stays.
    """

    iteration: int
    lag: float
    rate: float
    steps: int


class Pace(Callback):
    """Slows a run down, alike on all ranks, while its chains lag further behind the model than ``limit``.

    The lag is that of ``chain_lag``, averaged over ``over`` iterations. Where the average is above the limit, the
    learning rate falls by a factor of 0.7, to a sixteenth at the lowest; where it is that low, steps an iteration are
    doubled, to eight times those of the settings. Then another average begins. Decisions are in the checkpoint: the
    learning rate's in the schedule, the others here.

    Args:
        limit: largest lag that is let go on; 0 turns it off.
        over: iterations that are averaged over.

    Raises:
        ValueError: a negative limit, ``over`` that is no positive multiple of 10.
    """

    def __init__(self, *, limit: float = 0.0, over: int = 100) -> None:
        if not 0 <= limit < math.inf:
            raise ValueError(f"limit must not be negative, got {limit}")
        if over < 1 or over % LAG_EVERY:
            raise ValueError(f"over must be a positive multiple of {LAG_EVERY}, got {over}")
        self.limit = limit
        self.over = over
        self.decisions: list[Decision] = []
        self._lags: list[float] = []
        self._loaded: list[Decision] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take as many steps as the checkpoint's decisions say; the schedule remembers the rate itself."""
        assert isinstance(pl_module, EBMModule)
        for decision in self._loaded:
            pl_module.num_steps *= decision.steps
        self._loaded = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, EBMModule)
        stats = pl_module.stats
        if not self.limit or trainer.global_step % LAG_EVERY or stats is None or stats.lag is None:
            return
        self._lags.append(min(float(stats.lag), LARGEST * self.limit))
        if len(self._lags) * LAG_EVERY < self.over:
            return
        lag, self._lags = sum(self._lags) / len(self._lags), []
        if not lag <= self.limit:
            self._slow(trainer, pl_module, lag)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: the decisions, and the measurements since the last average."""
        return {"decisions": [list(decision) for decision in self.decisions], "lags": list(self._lags)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.decisions = self._loaded = [Decision(*decision) for decision in state_dict["decisions"]]
        self._lags = list(state_dict["lags"])

    @property
    def steps(self) -> int:
        """Steps an iteration now, in units of those of the settings."""
        return math.prod(decision.steps for decision in self.decisions)

    def _slow(self, trainer: Trainer, module: EBMModule, lag: float) -> None:
        if module.schedule.slowed * SLOWER >= SLOWEST * (1 - 1e-9):
            decision = Decision(trainer.global_step, lag, SLOWER, 1)
            module.schedule.slow(SLOWER)
            what = f"the learning rate is {module.schedule.slowed:.2g} of what it would be"
        elif self.steps < MOST_STEPS:
            decision = Decision(trainer.global_step, lag, 1.0, 2)
            module.num_steps *= 2
            what = f"{module.num_steps} steps an iteration"
        else:
            return
        self.decisions.append(decision)
        if trainer.is_global_zero:
            say(f"iteration {trainer.global_step}: chains lag {lag:.0f} behind the model, more than "
                f"{self.limit:g}; from here on {what}")  # fmt: skip
