"""The search for a kernel's tunable field: what a warm-up does, in training and out of it.

A tuner is a deterministic function of what was seen of the chains. It holds plain numbers, so that a checkpoint can
hold it, and ranks that see the same sums tune alike. Nothing here runs while something is measured: a kernel is tuned,
then frozen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Sampler
from gwg_dist.samplers.run import ChainResult, run_chain
from gwg_dist.target import Target
from gwg_dist.tools.distributed import all_sum

MAX_TUNINGS = 64  # compiled steps and CUDA graphs are made anew for every kernel
STEPS_A_LOOK = 10
GAIN, DECAY = 3.0, 2 / 3  # the acceptance falls by about a third where a field grows by a factor e
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

    target_acceptance: float | None = None

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


TUNERS: dict[str, type[Tuner]] = {"acceptance": AcceptanceTuner, "jump": JumpTuner}


def check_objective(objective: str) -> None:
    """Raise ValueError for an objective of tuning that does not exist."""
    if objective not in TUNERS:
        raise ValueError(f"objective must be one of {', '.join(TUNERS)}, got {objective!r}")


def value_of(kernel: Sampler) -> float:
    """The value of the tunable field. Raises ValueError where the kernel has none."""
    if kernel.tunable is None:
        raise ValueError(f"{type(kernel).__name__} has nothing to tune")
    return getattr(kernel, kernel.tunable)


def allowed(kernel: Sampler, value: float, target: Target | None) -> Sampler | None:
    """``kernel`` with ``value`` in its tunable field; None where the kernel or the target refuses it."""
    try:
        tuned = kernel.tuned(value)
    except (ValueError, OverflowError):
        return None
    return tuned if target is None or tuned.refusal(target) is None else None


class Adapted(NamedTuple):
    """What a warm-up found.

    Args:
        kernel: the tuned kernel, to be kept.
        x: where the chains stand.
        values: value of the tunable field at every look, then the one that is kept; empty where there is none.
        accept_prob: mean acceptance probability over chains and steps of the last look.
    """

    kernel: Sampler
    x: Tensor
    values: tuple[float, ...]
    accept_prob: float


def adapt_kernel(
    kernel: Sampler,
    target: Target,
    x: Tensor,
    *,
    num_steps: int,
    generator: torch.Generator,
    objective: str = "acceptance",
    target_acceptance: float | None = None,
    beta: float = 1.0,
    backend: str = "auto",
) -> Adapted:
    """Run chains in a warm-up that tunes the kernel; called on every rank, and all get the same kernel.

    The steps are spread over at most 64 looks of at least ten; a look costs one evaluation more than its steps. A
    kernel with nothing to tune runs its steps and comes back as it was.

    Args:
        kernel: where the search starts.
        target: what the chains leave invariant; its weights do not change meanwhile.
        x: this rank's chains, floats ``(B, D)`` or ``(B, D, K)``; not changed.
        num_steps: kernel transitions of the warm-up.
        generator: this rank's own, on the device of ``x``.
        objective: "acceptance" (see ``AcceptanceTuner``) or "jump" (see ``JumpTuner``).
        target_acceptance: acceptance to reach; the kernel's own where none is given.
        beta: inverse temperature of the target.
        backend: see ``run_chain``.

    Raises:
        ValueError: an unknown objective, fewer than one step, a target_acceptance outside (0, 1).
    """
    check_objective(objective)
    if num_steps < 1:
        raise ValueError(f"num_steps must be positive, got {num_steps}")
    check_target_acceptance(target_acceptance)
    tunable = kernel.tunable is not None
    tuner, base = TUNERS[objective](target_acceptance), kernel
    looks, values, accept_prob = min(MAX_TUNINGS, max(1, num_steps // STEPS_A_LOOK)), [], math.nan
    for look in range(looks):
        steps = num_steps * (look + 1) // looks - num_steps * look // looks
        chain = run_chain(kernel, target, x, num_steps=steps, generator=generator, beta=beta, backend=backend)
        x, seen = chain.x, seen_of(chain)
        accept_prob = seen.accept_prob
        if tunable:
            values.append(value_of(kernel))
            if math.isfinite(accept_prob):
                tuner.observe(base, seen, target)
                kernel = tuner.kernel(base, target)
    if tunable:
        kernel = tuner.frozen(base)
        values.append(value_of(kernel))
    return Adapted(kernel, x, tuple(values), accept_prob)


def seen_of(chain: ChainResult) -> Seen:
    """The means over the chains of all ranks; called on every rank."""
    sums = torch.stack([chain.accept_prob.sum(), chain.hops.sum(), torch.ones_like(chain.hops).sum()])
    accept_prob, hops, num = all_sum(sums).tolist()
    return Seen(accept_prob / num, hops / num)


def check_target_acceptance(value: float | None) -> None:
    """Raise ValueError for an acceptance probability that cannot be aimed at."""
    if value is not None and not 0 < value < 1:
        raise ValueError(f"target_acceptance must lie in (0, 1), got {value}")
