"""The interface of a sampler: a frozen dataclass of settings with three pure functions.

``init`` evaluates the target at the start, ``draw`` makes all the randomness of a step, ``step`` is deterministic
given that noise: no host synchronisation, fixed shapes, no gradient in the weights. So a step can be compiled,
captured, and enumerated: force the noise and read the acceptance probability.

Not implemented: adaptation of settings during a run.
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

    in_place = False
    """Whether a step writes over the state that it takes: then it is run as it is, never compiled or captured."""

    @abstractmethod
    def init(self, target: Target, x: Tensor, beta: Tensor) -> Any:
        """The state of chains that stand at ``x``, ready for a step at ``beta``."""

    @abstractmethod
    def draw(self, state: Any, generator: torch.Generator) -> Any:
        """The noise of one step, drawn on the generator's device."""

    @abstractmethod
    def step(self, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
        """One transition at ``beta``, 0-d or ``(B,)``: that of ``init``, of the step before, or of ``temper``."""

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        """The same chains, ready for a step at another ``beta``."""
        del target, beta
        return state

    def refresh(self, target: Target, state: Any, beta: Tensor) -> Any:
        """The same chains with what the state has accumulated made from scratch, to stop the drift of rounding."""
        return self.init(target, state.x, beta)

    def specialised(self, target: Target, x: Tensor, *, annealed: bool) -> Sampler:
        """A faster implementation of the very same kernel for this target and chains like ``x``, or the sampler itself.

        ``annealed``: beta changes from step to step.
        """
        del target, x, annealed
        return self


def select(accepted: Tensor, new: T, old: T) -> T:
    """``new`` for the chains ``(B,)`` that accepted, ``old`` for the others; tuples of tensors go field by field."""
    if isinstance(new, Tensor):
        return torch.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, cast(Tensor, old))
    parts = [select(accepted, a, b) for a, b in zip(cast(tuple, new), cast(tuple, old), strict=True)]
    return cast(T, type(new)(*parts) if hasattr(new, "_fields") else tuple(parts))
