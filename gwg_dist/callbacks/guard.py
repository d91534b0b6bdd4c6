"""What happens to a run whose numbers lose their meaning: it goes back to a healthy state and on from there, slower."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from gwg_dist.callbacks.diagnosis import LAGGING, what_helps, where_not_finite
from gwg_dist.callbacks.kept import keep, put_back
from gwg_dist.module import LAG_EVERY, EBMModule
from gwg_dist.tools.distributed import all_sum, world_size
from gwg_dist.tools.errors import DivergedError
from gwg_dist.tools.terminal import say

SMOOTHING = 0.9
RUNAWAY = 100
KEEP_EVERY = 100  # iterations between two states that are kept
FLAT, FELL = 0.01, 0.01  # nats of spread; and part of the largest spread that there was
ON_DIVERGENCE = ("return", "stop")
ON_SYMPTOM = ("say", "return")


class Return(NamedTuple):
    """One return to a healthy state.

    Args:
        iteration: iteration after which it happened.
        to: iteration of the state.
        steps: factor of the number of steps from then on.
    """

    iteration: int
    to: int
    steps: int


class DivergenceGuard(Callback):
    """Goes back to the last healthy state, on all ranks at the same iteration, before weights are spoilt or saved.

    Two causes. The gradient is not finite. Or the energy gap, mean E of the chains minus mean E of the data, smoothed
    over some ten checks, is above max_gap or below -100 max_gap. For chains that follow their model the gap is
    E_data[log p - log ref] - KL(p | ref) <= -E_data[log ref] <= D log K, the last for a reference fitted to the data.
    There is no such bound below; a gap a hundred times as large there is taken as running away. Without chains there is
    no gap, and the gradient alone is looked at.

    Every hundred iterations the state is kept, where the gap lies within half of max_gap on either side. A return puts
    back weights, optimizer, averages, chains and generators; the iteration, and with it the data, goes on. From then on
    the learning rate is half of what it was; where chains lag more than 25 behind the model, steps are doubled as well.
    The kept state and the returns are in the checkpoint.

    Args:
        max_gap: nats; 0 takes D log K.
        check_every: iterations between two looks at the gap.
        max_returns: returns after which a run that diverges once more stops.
        on_divergence: "return", or "stop" at once, with DivergedError.
        on_symptom: "say", or "return": a run with a symptom that a lower learning rate mends, see ``Symptoms``, goes
            back as one that diverges does, and goes on all the same where no return is left.

    Raises:
        ValueError: a negative max_gap or max_returns, check_every below 1, an unknown on_divergence or on_symptom.
    """

    def __init__(
        self,
        *,
        max_gap: float = 0.0,
        check_every: int = 10,
        max_returns: int = 3,
        on_divergence: str = "return",
        on_symptom: str = "say",
    ) -> None:
        for name, value in (("max_gap", max_gap), ("max_returns", max_returns)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if check_every < 1:
            raise ValueError(f"check_every must be positive, got {check_every}")
        if on_divergence not in ON_DIVERGENCE:
            raise ValueError(f"on_divergence must be one of {', '.join(ON_DIVERGENCE)}, got {on_divergence!r}")
        if on_symptom not in ON_SYMPTOM:
            raise ValueError(f"on_symptom must be one of {', '.join(ON_SYMPTOM)}, got {on_symptom!r}")
        self.acts_on_symptoms = on_symptom == "return"
        self.max_gap = max_gap
        self.check_every = check_every
        self.max_returns = max_returns if on_divergence == "return" else 0
        self.returns: list[Return] = []
        self._gap = 0.0
        self._lag = 0.0
        self._kept: dict[str, Any] | None = None
        self._kept_gap = 0.0
        self._diverged = ""
        self._largest_spread = 0.0
        self._said_flat = False
        self._loaded: list[Return] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take as many steps as the returns of the checkpoint say; the schedule remembers the rate itself."""
        assert isinstance(pl_module, EBMModule)
        for back in self._loaded:
            pl_module.num_steps *= back.steps
        self._loaded = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The first state is healthy; only now there are chains to keep."""
        assert isinstance(pl_module, EBMModule)
        if self._kept is None and self.max_returns:
            self._keep(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Gradients have been averaged over ranks here, so every rank decides alike."""
        assert isinstance(pl_module, EBMModule)
        grads = [p.grad for p in pl_module.energy.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads))
        if math.isfinite(norm):
            return
        where = where_not_finite(pl_module)
        self._diverge(trainer.global_step + 1, f"the gradient is not finite (norm {norm}, {where})", pl_module)
        for parameter in pl_module.parameters():  # no update: an optimizer skips what has no gradient
            parameter.grad = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, EBMModule)
        if pl_module.stats is not None and pl_module.stats.lag is not None and trainer.global_step % LAG_EVERY == 0:
            self._lag = float(pl_module.stats.lag)
        if not self._diverged and trainer.global_step % self.check_every == 0:
            self._check_gap(trainer, pl_module)
        slower = [symptom for symptom in pl_module.symptoms if symptom.slower]
        if not self._diverged and self.acts_on_symptoms and slower and self._may_return():
            self._diverged = f"iteration {trainer.global_step}: {slower[0].sentence}"
        if self._diverged:
            self._go_back(trainer, pl_module)
            return
        half = self.limit(pl_module) / 2
        healthy = -half <= self._gap <= half and not slower
        if self.max_returns and trainer.global_step % KEEP_EVERY == 0 and healthy:
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, EBMModule)
        stats = pl_module.stats
        if stats is not None and stats.energy_spread is not None and float(stats.energy_spread) < FLAT:
            self._say_flat(trainer, float(stats.energy_spread))

    def state_dict(self) -> dict[str, Any]:
        """The returns and the kept state, in plain numbers and tensors."""
        return {
            "gap": self._gap,
            "lag": self._lag,
            "returns": [list(back) for back in self.returns],
            "kept": self._kept,
            "kept_gap": self._kept_gap,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._gap = state_dict["gap"]
        self._lag = state_dict.get("lag", 0.0)
        self.returns = self._loaded = [Return(*back) for back in state_dict.get("returns", ())]
        self._kept = state_dict.get("kept") if self.max_returns else None
        self._kept_gap = state_dict.get("kept_gap", 0.0)

    def limit(self, module: EBMModule) -> float:
        """The gap in nats above which the chains no longer follow the model."""
        return self.max_gap or module.space.log_num_states

    def _check_gap(self, trainer: Trainer, module: EBMModule) -> None:
        if module.stats is None:
            return
        self._check_spread(trainer, module.stats.energy_spread)
        if module.stats.energy_gap is None:
            return
        gap = float(all_sum(module.stats.energy_gap)) / world_size()
        self._gap = SMOOTHING * self._gap + (1 - SMOOTHING) * gap
        limit = self.limit(module)
        if not -RUNAWAY * limit <= self._gap <= limit:
            self._diverge(
                trainer.global_step,
                f"the energy gap between data and chains is {self._gap:.1f} nats, outside {-RUNAWAY * limit:.0f} to "
                f"{limit:.1f}: the chains no longer follow the model",
                module,
            )

    def _diverge(self, iteration: int, what: str, module: EBMModule) -> None:
        """Note it for the end of the iteration. Raises DivergedError where there is no return left."""
        message = f"iteration {iteration}: {what}; {what_helps(module)}"
        if not self._may_return():
            if self.returns:
                message += f"; after {len(self.returns)} returns to a healthy state, the last to {self.returns[-1].to}"
            raise DivergedError(message)
        self._diverged = message

    def _may_return(self) -> bool:
        return len(self.returns) < self.max_returns and self._kept is not None

    def _go_back(self, trainer: Trainer, module: EBMModule) -> None:
        assert self._kept is not None
        steps = 2 if self._lag > LAGGING else 1
        module.num_steps *= steps
        module.schedule.slow(0.5)
        put_back(self._kept, trainer, module)
        self._gap = self._kept_gap
        module.stats, module.symptoms = None, []
        self.returns.append(Return(trainer.global_step, self._kept["iteration"], steps))
        message, self._diverged = self._diverged, ""
        if trainer.is_global_zero:
            how = f"half the learning rate and {module.num_steps} steps" if steps > 1 else "half the learning rate"
            say(f"{message}. Going on from the state of iteration {self._kept['iteration']} with {how} "
                f"({len(self.returns)} of at most {self.max_returns} returns)")  # fmt: skip

    def _keep(self, trainer: Trainer, module: EBMModule) -> None:
        self._kept, self._kept_gap = keep(trainer, module), self._gap

    def _check_spread(self, trainer: Trainer, spread: torch.Tensor | None) -> None:
        """Say where the energies of data and chains were far apart, and are nearly the same now."""
        if spread is None:
            return
        now = float(spread)
        self._largest_spread = max(self._largest_spread, now)
        if now < FELL * self._largest_spread and now < FLAT:
            self._say_flat(trainer, now)

    def _say_flat(self, trainer: Trainer, spread: float) -> None:
        if trainer.is_global_zero and not self._said_flat:
            say(f"iteration {trainer.global_step}: the energy is nearly the same for all points (spread {spread:.2g} "
                "nats): the model is no more than its reference; a lower model.learning_rate, less model.weight_decay "
                "or weaker penalties of model.objective may help", "bold red")  # fmt: skip
        self._said_flat = True
