"""Updates of the weights: the optimizer, its learning rate over the iterations, and taking an update back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def make_optimizer(
    make: Callable[[Iterable], Optimizer] | None,
    parameters: Iterable[Tensor],
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
) -> Optimizer:
    """The optimizer of a run; where ``make`` is None that is Adam, or AdamW where weights decay.

    An optimizer whose learning rate is its class's own default was given none, and takes ``learning_rate``.
    """
    if make is None and weight_decay:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if make is None:
        return torch.optim.Adam(parameters, lr=learning_rate)
    optimizer = make(parameters)
    default = inspect.signature(type(optimizer)).parameters.get("lr")
    for group in optimizer.param_groups:
        if default is not None and group["lr"] == default.default:
            group["lr"] = learning_rate
    return optimizer


class Schedule(LRScheduler):
    """The learning rate of iteration t = 0, 1, ...

        rate(t) = base rate * min(1, (t + 1) / warmup) * min(1, (length - t) / (cooldown length)) * slowed

    The base rate is that of the optimizer. A run that chains cannot follow is slowed while it goes on. A resumed run
    takes everything from its settings except ``slowed``, which is in the checkpoint.

    Args:
        optimizer: optimizer with the base rates.
        warmup: iterations over which the rate rises linearly; 0 for none.
        cooldown: last fraction of the iterations, over which the rate falls linearly; 0 for none.
        length: iterations of the whole run; of no matter without a cooldown.
    """

    def __init__(self, optimizer: Optimizer, *, warmup: int = 0, cooldown: float = 0.0, length: int = 0) -> None:
        self.warmup = warmup
        self.falling = cooldown * length
        self.length = length
        self.slowed = 1.0
        super().__init__(optimizer)

    def factor(self, iteration: int) -> float:
        """rate(t) / base rate."""
        rise = min(1.0, (iteration + 1) / max(self.warmup, 1))
        fall = max(0.0, min(1.0, (self.length - iteration) / self.falling)) if self.falling else 1.0
        return rise * fall * self.slowed

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group in the present iteration."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def slow(self, factor: float) -> None:
        """Multiply the rate by ``factor``, from the next update on."""
        self.slowed *= factor
        self.apply()

    def apply(self) -> None:
        """Give the optimizer the rates of the present iteration, whatever it holds."""
        for group, base, rate in zip(self.optimizer.param_groups, self.base_lrs, self.get_lr(), strict=True):
            group["initial_lr"], group["lr"] = base, rate

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and how far the run has been slowed."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "slowed": self.slowed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the iteration of a checkpoint; called after the optimizer has loaded its own state."""
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        self.slowed = state_dict.get("slowed", 1.0)
        self.apply()


class BeforeUpdate:
    """What an update is about to change: the parameters and the optimizer's state, copied."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.parameters = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
        self.state = copy.deepcopy(optimizer.state_dict())

    def put_back(self) -> None:
        """Undo what has happened since."""
        live = [p for group in self.optimizer.param_groups for p in group["params"]]
        with torch.no_grad():
            for parameter, before in zip(live, self.parameters, strict=True):
                parameter.copy_(before)
        self.optimizer.load_state_dict(self.state)
