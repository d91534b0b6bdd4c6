"""The interface of a sampler: a frozen dataclass of settings with three pure functions.

``init`` evaluates the target at the start, ``draw`` makes all the randomness of a step, ``step`` is deterministic
given that noise: no host synchronisation, fixed shapes, no gradient in the weights. So a step can be compiled,
captured, and enumerated: force the noise and read the acceptance probability.

Not implemented: adaptation of settings during a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gwg_dist.target import Target


class State(Protocol):
    """What every kernel's state offers to those who do not know the kernel."""

    @property
    def x(self) -> Tensor:
        """The chains, ``(B, D)`` or ``(B, D, K)``."""
        ...

    @property
    def f(self) -> Tensor:
        """-E(x), untempered, ``(B,)`` nats."""
        ...


class Info(NamedTuple):
    """What a step did, each ``(B,)``.

    Args:
        accept_prob: probability with which the proposal was accepted (1 for Gibbs).
        hops: number of sites that changed.
    """

    accept_prob: Tensor
    hops: Tensor


class Sampler(ABC):
    """A Markov kernel that leaves p_beta invariant. States and noise are named tuples of the kernel's own."""

    @abstractmethod
    def init(self, target: Target, x: Tensor) -> Any:
        """The state of chains that stand at ``x``."""

    @abstractmethod
    def draw(self, state: Any, generator: torch.Generator) -> Any:
        """The noise of one step, drawn on the generator's device."""

    @abstractmethod
    def step(self, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
        """One transition at ``beta``, 0-d or ``(B,)``."""


def select(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` for the chains ``(B,)`` that accepted, ``old`` for the others."""
    return torch.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old)
