"""The interface of a Markov kernel: three pure functions, and beta in the state alone.

``init`` evaluates the target at the start, ``draw`` makes all the randomness of a step, ``step`` is deterministic
given that noise: no host synchronisation, fixed shapes, no gradient in the weights. So a step can be compiled,
captured, and enumerated: force the noise and read the acceptance probability.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from gwg_dist.target import Target

T = TypeVar("T")


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

    @property
    def beta(self) -> Tensor:
        """The beta of the next step, 0-d or one a chain, ``(B,)``."""
        ...


class Info(NamedTuple):
    """What a step did, each ``(B,)``.

    Args:
        accept_prob: probability with which the proposal was accepted (1 for Gibbs).
        hops: number of sites that changed.
    """

    accept_prob: Tensor
    hops: Tensor


class Kernel(ABC):
    """A Markov kernel that leaves p_beta invariant. States and noise are tuples of the kernel's own.

    A step may write over the state that it takes: go on with the state that it returns.
    """

    def refusal(self, target: Target) -> str | None:
        """Why this kernel cannot run on ``target``, in a sentence that names what it needs; None where it can."""
        return None

    @abstractmethod
    def init(self, target: Target, x: Tensor, beta: Tensor) -> Any:
        """The state of chains that stand at ``x``, ready for a step at ``beta``, 0-d or ``(B,)``."""

    @abstractmethod
    def draw(self, state: Any, generator: torch.Generator) -> Any:
        """The noise of one step, drawn on the generator's device."""

    @abstractmethod
    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Info]:
        """One transition at the beta of the state."""

    @abstractmethod
    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        """The same chains, ready for a step at another ``beta`` of the same shape."""

    def refresh(self, target: Target, state: Any) -> Any:
        """The same chains with what the state has accumulated made from scratch, to stop the drift of rounding."""
        return self.init(target, state.x, state.beta)

    def release(self, state: Any) -> Any:
        """The last state of a run, in memory that no later run writes over."""
        return state


class Sampler(Kernel):
    """A kernel that a user picks: a frozen dataclass of settings."""


def accept_probability(log_ratio: Tensor) -> Tensor:
    """min(1, exp(log_ratio)), the shape of ``log_ratio``; 0 where the ratio is not a number."""
    return log_ratio.clamp(max=0).exp().nan_to_num(nan=0.0)


def select(accepted: Tensor, new: T, old: T) -> T:
    """``new`` for the chains ``(B,)`` that accepted, ``old`` for the others; tuples of tensors go field by field."""
    if isinstance(new, Tensor):
        return torch.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, cast(Tensor, old))
    parts = [select(accepted, a, b) for a, b in zip(cast(tuple, new), cast(tuple, old), strict=True)]
    return cast(T, type(new)(*parts) if hasattr(new, "_fields") else tuple(parts))
