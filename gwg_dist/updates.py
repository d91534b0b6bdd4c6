"""Updates of the weights: the optimizer, its learning rate over the iterations, and taking an update back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def make_optimizer(
    make: Callable[[Iterable], Optimizer] | None, parameters: Iterable[Tensor], learning_rate: float
) -> Optimizer:
    """The optimizer of a run; Adam where ``make`` is None.

    An optimizer whose learning rate is its class's own default was given none, and takes ``learning_rate``.
    """
    if make is None:
        return torch.optim.Adam(parameters, lr=learning_rate)
    optimizer = make(parameters)
    default = inspect.signature(type(optimizer)).parameters.get("lr")
    for group in optimizer.param_groups:
        if default is not None and group["lr"] == default.default:
            group["lr"] = learning_rate
    return optimizer


class WarmUp(LambdaLR):
    """The learning rate of iteration t = 0, 1, ... is min(1, (t + 1) / iterations) times that of the optimizer.

    A resumed run goes on with the learning rate of its settings, not with that of its checkpoint.

    Args:
        optimizer: optimizer with the learning rates of after the warm-up.
        iterations: length of the warm-up; 0 for none.
    """

    def __init__(self, optimizer: Optimizer, iterations: int) -> None:
        super().__init__(optimizer, lambda iteration: min(1.0, (iteration + 1) / max(iterations, 1)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the iteration of a checkpoint; called after the optimizer has loaded its own state."""
        super().load_state_dict(state_dict | {"base_lrs": self.base_lrs})
        factor = self.lr_lambdas[0](self.last_epoch)
        for group, rate in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * factor


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
