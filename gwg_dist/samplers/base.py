"""The interface of a Markov kernel: three pure functions, and beta in the state alone.

``init`` evaluates the target at the start, ``draw`` makes all the randomness of a step, ``step`` is deterministic
given that noise: no host synchronisation, fixed shapes, no gradient in the weights. So a step can be compiled,
captured, and enumerated: force the noise and read the acceptance probability.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, Self, TypeVar, cast

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

    # Of the class. Whether a step writes over the state that it takes: then it is neither compiled nor captured.
    in_place = False
    # Of the class. Whether a step evaluates many points in parts: compiling by itself would unroll them all.
    in_parts = False

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

    def finish(self, state: Any) -> Any:
        """What is left of the last state of a run that does not go on: ``x``, ``f`` and ``beta`` at least."""
        return self.release(state)


class Sampler(Kernel):
    """A kernel that a user picks: a frozen dataclass of settings.

    ``tunable`` names the one field, a positive number, that a run may tune in its warm-up; None where there is none.
    ``acceptance_rises`` says whether a larger value is accepted more often; it must be so, or the opposite, for all
    values. ``target_acceptance`` is the mean acceptance probability to reach: 0.574 for locally balanced proposals
    (Roberts and Rosenthal, 1998; Sun, Dai and Schuurmans, 2022), 0.234 for random walks (Roberts, Gelman and Gilks,
    1997). A kernel sets them without an annotation: ``tunable = "radius"``. ``per_site`` names a field with a positive
    factor of the tunable one for each site, a tuple or None. ``cyclical`` names four fields of a kernel that goes
    through cycles of step sizes: the largest, the smallest, the balance at the largest, and the number of steps. Where
    the first two are equal, every step has that step size and that balance.
    """

    # Of the class, and no fields. Not ClassVar: settings are parsed with the names of the subclass's module alone.
    tunable: str | None = None
    acceptance_rises: bool = False
    per_site: str | None = None
    cyclical: tuple[str, str, str, str] | None = None
    target_acceptance: float = 0.574
    # Whether p_beta is left invariant. Where it is not, checks of exactness and estimates of log Z refuse the kernel.
    exact: bool = True
    # Whether p_beta of x is invariant by itself. False where x comes together with further chains that the state holds
    # and that change places with it: such a step carries the weight of one chain to another, see ``annealed``.
    of_x_alone: bool = True

    def annealed(self) -> Sampler:
        """The kernel that estimates of log Z move chains by where this one is given; itself where it is of x alone."""
        return self

    def adapted(self, accept_prob: float, *, gain: float, target: float | None = None) -> Self:
        """This kernel after a step of Robbins and Monro (1951) on its tunable field; see ``shifted``.

        A value that the kernel refuses leaves it as it is.

        Args:
            accept_prob: mean acceptance probability with this kernel.
            gain: gain of the step; falls to 0 over a warm-up.
            target: acceptance to reach; ``target_acceptance`` where none is given.
        """
        if self.tunable is None:
            return self
        value = self.shifted(getattr(self, self.tunable), accept_prob, gain=gain, target=target)
        try:
            return self.tuned(value)
        except ValueError:
            return self

    def shifted(self, value: float, accept_prob: float, *, gain: float, target: float | None = None) -> float:
        """The value v of the tunable field after a step of Robbins and Monro (1951) on its logarithm.

        log v += ± gain (accept_prob - target), with + where the acceptance falls as v rises. A field of whole numbers
        has a real v beside it that is stepped, so that steps below one half add up.

        Args:
            value: v before the step.
            accept_prob: mean acceptance probability with it.
            gain: gain of the step; falls to 0 over a warm-up.
            target: acceptance to reach; ``target_acceptance`` where none is given.
        """
        error = accept_prob - (self.target_acceptance if target is None else target)
        return value * math.exp(-gain * error if self.acceptance_rises else gain * error)

    def tuned(self, value: float) -> Self:
        """This kernel with another value of its tunable field. Raises ValueError where the kernel refuses it.

        In a field of whole numbers it is rounded and stays at least 1.
        """
        name = cast(str, self.tunable)
        whole = isinstance(getattr(self, name), int)
        return dataclasses.replace(cast(Any, self), **{name: max(1, round(value)) if whole else value})

    def remark(self, num_steps: int) -> str | None:
        """Why runs of chains of ``num_steps`` steps each waste what this kernel is for, a sentence; None: they do not.

        A training run has one in every iteration.
        """
        del num_steps
        return None

    def retreat(self, accept_prob: float) -> Retreat | None:
        """The kernel to go on with where this one is accepted with ``accept_prob`` on average; None: with this one.

        None at 0 means that there is nowhere to retreat to.
        """
        del accept_prob
        return None


class Retreat(NamedTuple):
    """A kernel in place of one that is accepted too seldom.

    Args:
        sampler: the kernel to go on with.
        steps: number of its steps that replace one of the kernel given up.
        why: the reason and what follows, half a sentence to log.
    """

    sampler: Sampler
    steps: int
    why: str


def accept_probability(log_ratio: Tensor) -> Tensor:
    """min(1, exp(log_ratio)), the shape of ``log_ratio``; 0 where the ratio is not a number."""
    return log_ratio.clamp(max=0).exp().nan_to_num(nan=0.0)


def select(accepted: Tensor, new: T, old: T) -> T:
    """``new`` for the chains ``(B,)`` that accepted, ``old`` for the others; tuples of tensors go field by field."""
    if isinstance(new, Tensor):
        return torch.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, cast(Tensor, old))
    parts = [select(accepted, a, b) for a, b in zip(cast(tuple, new), cast(tuple, old), strict=True)]
    return cast(T, type(new)(*parts) if hasattr(new, "_fields") else tuple(parts))
