"""Updates of the weights: the optimizer with its learning rate, and taking an update back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


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
