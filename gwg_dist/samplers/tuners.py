"""What a warm-up looks for: the settings of a kernel, by what was seen of the chains.

A tuner is a deterministic function of what was seen. It holds plain numbers, so that a checkpoint can hold it, and
ranks that see the same sums tune alike.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

from gwg_dist.samplers.base import Sampler
from gwg_dist.target import Target

GAIN, DECAY = 3.0, 2 / 3  # the acceptance falls by about a third where a field grows by a factor e
BALANCES = (0.55, 0.75, 0.95)
WIDEST, NARROWEST = math.log(4), math.log(4) / 8


class Seen(NamedTuple):
    """What chains did with a kernel, over all ranks, chains and steps.

    Args:
        accept_prob: mean acceptance probability.
        hops: mean number of changed sites a step, 0 for a refused proposal.
    """

    accept_prob: float
    hops: float


@dataclass
class Tuner(ABC):
    """Looks for the settings of a kernel; its fields are its state, plain numbers.

    The kernel to look at is a function of that state and of the base, the kernel that the search began with.

    Args:
        target_acceptance: acceptance probability to reach; the kernel's own where none is given.
    """

    aims_at_acceptance: ClassVar[bool] = True
    """Whether ``target_acceptance`` has an effect."""

    target_acceptance: float | None = None

    def refusal(self, base: Sampler) -> str | None:
        """Why this tuner has no use for ``base``, which has a tunable field, in a sentence; None where it has."""
        return None

    @abstractmethod
    def observe(self, base: Sampler, seen: Seen, target: Target | None) -> None:
        """Take in what ``kernel(base, target)`` did."""

    @abstractmethod
    def kernel(self, base: Sampler, target: Target | None) -> Sampler:
        """The kernel to look at now; ``base`` before the first look."""

    @abstractmethod
    def frozen(self, base: Sampler) -> Sampler:
        """The kernel to keep, after the last look."""

    def state(self) -> dict[str, Any]:
        """Plain numbers; the tuner made with them goes on as this one would."""
        return asdict(self)


@dataclass
class AcceptanceTuner(Tuner):
    """Brings the acceptance a to its target a*: log v += ± g (a - a*) at every look, see ``Sampler.shifted``.

    The gain g = 3 t^(-2/3) falls with the number t of looks (Robbins and Monro, 1951; Andrieu and Thoms, 2008, section
    4). v is a real number; a field of whole numbers is v rounded, so that many small errors of one sign move it.

    Args:
        target_acceptance: a*; the kernel's own where none is given.
        value: v; None before the first look.
        looks: t.
    """

    value: float | None = None
    looks: int = 0

    def observe(self, base: Sampler, seen: Seen, target: Target | None) -> None:
        self.looks += 1
        value = value_of(base) if self.value is None else self.value
        gain = GAIN / self.looks**DECAY
        value = base.shifted(value, seen.accept_prob, gain=gain, target=self.target_acceptance)
        if isinstance(value_of(base), int):
            value = max(value, 1.0)
        if allowed(base, value, target) is not None:
            self.value = value

    def kernel(self, base: Sampler, target: Target | None) -> Sampler:
        return base if self.value is None else base.tuned(self.value)

    def frozen(self, base: Sampler) -> Sampler:
        return self.kernel(base, None)


@dataclass
class JumpTuner(Tuner):
    """Maximises the expected jump distance E[a h]: a the acceptance, h the sites that a proposal changes.

    The mean of the sites that did change has this expectation. A pattern search on log v (Hooke and Jeeves, 1961):
    three looks, at v, v s and v / s, and v becomes the best of them; where it was the best already, s becomes its
    square root. s falls from 4 to 4^(1/8) and not below, so that the search follows a model that changes. The three
    looks of a round follow each other; where two values are as good, noise decides, and it costs little.

    Args:
        target_acceptance: has no effect.
        value: v, the best so far; None before the first look.
        spacing: log s.
        hops: mean number of changed sites of the looks of this round.
    """

    aims_at_acceptance: ClassVar[bool] = False

    value: float | None = None
    spacing: float = WIDEST
    hops: list[float] = field(default_factory=list)

    def observe(self, base: Sampler, seen: Seen, target: Target | None) -> None:
        candidates = self._candidates(base, target)
        self.hops.append(seen.hops if math.isfinite(seen.hops) else -1.0)
        if len(self.hops) < len(candidates):
            return
        best = max(range(len(candidates)), key=lambda i: self.hops[i])
        if best == 0:
            self.spacing = max(self.spacing / 2, NARROWEST)
        self.value = value_of(candidates[best])
        self.hops = []

    def kernel(self, base: Sampler, target: Target | None) -> Sampler:
        return self._candidates(base, target)[len(self.hops)]

    def frozen(self, base: Sampler) -> Sampler:
        return base if self.value is None else base.tuned(self.value)

    def _candidates(self, base: Sampler, target: Target | None) -> list[Sampler]:
        """The kernels of a round that the model takes: with v first."""
        here = self.frozen(base)
        value = value_of(here)
        up, down = value * math.exp(self.spacing), value / math.exp(self.spacing)
        if isinstance(value, int):
            up, down = max(up, value + 1), min(down, value - 1)
        others = (allowed(base, other, target) for other in (up, down))
        return [here, *(other for other in others if other is not None and other != here)]


@dataclass
class CyclicalTuner(Tuner):
    """Tunes a kernel that goes through cycles of step sizes, from the largest to the smallest (Pynadath et al., 2024).

    The largest step size α_max is brought to the target acceptance by looks at a kernel that has it and its balance at
    every step, and the smallest likewise with a balance of 1/2; each by the rule of ``AcceptanceTuner``. The balance at
    α_max is the one of 0.55, 0.75 and 0.95 whose cycles were accepted most often when last looked at. Five looks are a
    round: two at each step size, turn by turn, and one at a balance. Unlike the paper's tuner, it sets one balance and
    not one for each step of a cycle.

    Args:
        target_acceptance: acceptance to reach at both ends; the kernel's own where none is given.
        largest: α_max as far as it is known; None before the first look at it.
        smallest: α_min likewise.
        cycles: newest acceptance of whole cycles with each balance; None for one not looked at.
        looks: number of looks.
    """

    largest: float | None = None
    smallest: float | None = None
    cycles: list[float | None] = field(default_factory=lambda: [None] * len(BALANCES))
    looks: int = 0

    def refusal(self, base: Sampler) -> str | None:
        if base.cyclical is not None:
            return None
        return f"objective cyclical needs a kernel that goes through cycles of step sizes, such as ACS, got {base}"

    def observe(self, base: Sampler, seen: Seen, target: Target | None) -> None:
        rounds, part = divmod(self.looks, 5)
        self.looks += 1
        if part == 4:
            self.cycles[rounds % len(BALANCES)] = seen.accept_prob
            return
        gain = GAIN / (1 + 2 * rounds + part // 2) ** DECAY
        value = base.shifted(self._ends(base)[part % 2], seen.accept_prob, gain=gain, target=self.target_acceptance)
        if part % 2 == 0:
            self.largest = value
        else:
            self.smallest = value

    def kernel(self, base: Sampler, target: Target | None) -> Sampler:
        rounds, part = divmod(self.looks, 5)
        if part == 4:
            return self._cycle(base, BALANCES[rounds % len(BALANCES)])
        step_size, balance = self._ends(base)[part % 2], 0.5 if part % 2 else self._balance(base)
        return cyclical(base, step_size, step_size, balance)

    def frozen(self, base: Sampler) -> Sampler:
        return self._cycle(base, self._balance(base))

    def _balance(self, base: Sampler) -> float:
        seen = [(a, b) for a, b in zip(self.cycles, BALANCES, strict=True) if a is not None]
        return max(seen)[1] if seen else getattr(base, names(base)[2])

    def _ends(self, base: Sampler) -> tuple[float, float]:
        """α_max and α_min as far as they are known."""
        largest, smallest, _ = (getattr(base, name) for name in names(base))
        return self.largest or largest, self.smallest or smallest

    def _cycle(self, base: Sampler, balance: float) -> Sampler:
        ends = self._ends(base)
        return cyclical(base, max(ends), min(ends), balance)


def names(base: Sampler) -> tuple[str, str, str]:
    """The fields of the largest step size, of the smallest, and of the balance at the largest."""
    assert base.cyclical is not None
    return base.cyclical[:3]


def period(kernel: Sampler) -> int:
    """The number of steps after which the kernel is the same again: 1, or that of a cycle."""
    return 1 if kernel.cyclical is None else getattr(kernel, kernel.cyclical[3])


def cyclical(base: Sampler, largest: float, smallest: float, balance: float) -> Sampler:
    """``base`` with other ends of its cycles."""
    return dataclasses.replace(cast(Any, base), **dict(zip(names(base), (largest, smallest, balance), strict=True)))


TUNERS: dict[str, type[Tuner]] = {"acceptance": AcceptanceTuner, "jump": JumpTuner, "cyclical": CyclicalTuner}


def check_objective(objective: str) -> None:
    """Raise ValueError for an objective of tuning that does not exist."""
    if objective not in TUNERS:
        raise ValueError(f"objective must be one of {', '.join(TUNERS)}, got {objective!r}")


def value_of(kernel: Sampler) -> float:
    """The value of the tunable field. Raises ValueError where the kernel has none."""
    if kernel.tunable is None:
        raise ValueError(f"{type(kernel).__name__} has nothing to tune")
    return getattr(kernel, kernel.tunable)


def origin(sampler: Sampler) -> dict[str, Any]:
    """Class and value of the tunable field, in plain values: whether what a file holds was found with this kernel."""
    return {"sampler": f"{type(sampler).__module__}.{type(sampler).__qualname__}", "value": tunable_value(sampler)}


def tunable_value(sampler: Sampler) -> float | None:
    """The value of the tunable field; None where there is none."""
    return None if sampler.tunable is None else getattr(sampler, sampler.tunable)


def allowed(kernel: Sampler, value: float, target: Target | None) -> Sampler | None:
    """``kernel`` with ``value`` in its tunable field; None where the kernel or the target refuses it."""
    try:
        tuned = kernel.tuned(value)
    except (ValueError, OverflowError):
        return None
    return tuned if target is None or tuned.refusal(target) is None else None


def check_target_acceptance(value: float | None) -> None:
    """Raise ValueError for an acceptance probability that cannot be aimed at."""
    if value is not None and not 0 < value < 1:
        raise ValueError(f"target_acceptance must lie in (0, 1), got {value}")
