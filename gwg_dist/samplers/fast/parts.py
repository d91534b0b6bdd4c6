"""Chains on many categories, a part of them at a time: what a step holds on the way is held for a part alone.

A step of a categorical kernel makes about ten arrays of the size of x on its way. Chains do not know each other, so
that a part of them can be moved after the other. Between two steps a chain keeps its codes and its gradient, one array
of the size of x in all: one-hot points and proposals are functions of these, and are made again when the part is moved.
It is the same kernel; random numbers are drawn part by part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.metropolis import Metropolis, MetropolisState
from gwg_dist.spaces import Space
from gwg_dist.target import Target
from gwg_dist.tools.memory import check_room

COPIES = 2  # of x: the gradient, and the chains in one piece at the end
LARGE = 2**25  # numbers in x, 134 MB in float32: below it nothing is parted
PART = 2**22  # numbers in x of a part


class Packed(NamedTuple):
    """A part of the chains of a Metropolis kernel between two steps.

    Args:
        codes: ``(B, D)``.
        outline: the kernel's state, of x and of what is as large in the proposal the shapes alone.
    """

    codes: Tensor
    outline: MetropolisState


@dataclass
class PartsState:
    """The parts, replaced one after the other; ``beta`` is that of all chains."""

    parts: list[Any]
    beta: Tensor
    space: Space

    @property
    def x(self) -> Tensor:
        return torch.cat([points(part, self.space) for part in self.parts])

    @property
    def f(self) -> Tensor:
        return torch.cat([outline(part).f for part in self.parts])


class Ends(NamedTuple):
    """What is left of chains when a run is over."""

    x: Tensor
    f: Tensor
    beta: Tensor


@dataclass(frozen=True)
class InParts(Kernel):
    """``kernel``, on at most ``size`` chains at a time."""

    kernel: Kernel
    size: int

    in_place = True

    def __str__(self) -> str:
        return f"{self.kernel}, {self.size} chains at a time"

    def refusal(self, target: Target) -> str | None:
        return self.kernel.refusal(target)

    def init(self, target: Target, x: Tensor, beta: Tensor) -> PartsState:
        some = x.split(self.size)
        begun = [self._pack(target, self.kernel.init(target, *both)) for both in self._with_beta(some, beta)]
        return PartsState(begun, beta, target.space)

    def draw(self, state: PartsState, generator: torch.Generator) -> list[Any]:
        return [self.kernel.draw(outline(part), generator) for part in state.parts]

    def step(self, target: Target, state: PartsState, noise: list[Any]) -> tuple[PartsState, Info]:
        infos = []
        for i, part_noise in enumerate(noise):
            part, info = self.kernel.step(target, self._unpack(target, state.parts[i]), part_noise)
            state.parts[i] = self._pack(target, part)
            infos.append(info)
        return state, Info(*map(torch.cat, zip(*infos, strict=True)))

    def temper(self, target: Target, state: PartsState, beta: Tensor) -> PartsState:
        for i, (part, part_beta) in enumerate(self._with_beta(state.parts, beta)):
            if isinstance(part, Packed):
                state.parts[i] = part._replace(outline=part.outline._replace(beta=part_beta))
            else:
                state.parts[i] = self.kernel.temper(target, part, part_beta)
        state.beta = beta
        return state

    def refresh(self, target: Target, state: PartsState) -> PartsState:
        for i, part in enumerate(state.parts):
            state.parts[i] = self._pack(target, self.kernel.refresh(target, self._unpack(target, part)))
        return state

    def finish(self, state: PartsState) -> Ends:
        """A part's gradient goes before its chains come."""
        f, num = state.f, 0
        x = torch.empty(0)
        for i, part in enumerate(state.parts):
            state.parts[i] = None
            there = points(part, state.space)
            x = there.new_empty(len(f), *there.shape[1:]) if i == 0 else x
            x[num : num + len(there)] = there
            num += len(there)
        return Ends(x, f, state.beta)

    def _pack(self, target: Target, state: Any) -> Any:
        if not isinstance(state, MetropolisState) or not isinstance(self.kernel, Metropolis):
            return state
        size = state.x.numel()
        hollow = state._replace(x=outlined(state.x, size), proposal=outlined(state.proposal, size))
        return Packed(target.space.decode(state.x), hollow)

    def _unpack(self, target: Target, part: Any) -> Any:
        """The state as it was: ``temper`` makes the proposal of a Metropolis kernel from x, ∇f and beta."""
        if not isinstance(part, Packed):
            return part
        state = part.outline._replace(x=points(part, target.space))
        return self.kernel.temper(target, state, state.beta)

    def _with_beta(self, parts: Any, beta: Tensor) -> list[tuple[Any, Tensor]]:
        """Every part with the beta of its chains."""
        betas = beta.split(self.size) if beta.ndim else [beta] * len(parts)
        return list(zip(parts, betas, strict=True))


def points(part: Any, space: Space) -> Tensor:
    """x of a part."""
    return space.encode(part.codes, part.outline.x.dtype) if isinstance(part, Packed) else part.x


def outline(part: Any) -> Any:
    """A part's state, of which f and the shapes can be read."""
    return part.outline if isinstance(part, Packed) else part


def outlined(tree: Any, size: int) -> Any:
    """Nested tuples with tensors of ``size`` numbers and more replaced by one number in memory, of the same shape."""
    if isinstance(tree, Tensor):
        return tree.new_empty(()).expand(tree.shape) if tree.numel() >= size else tree
    if isinstance(tree, tuple):
        some = [outlined(part, size) for part in tree]
        return type(tree)(*some) if hasattr(tree, "_fields") else tuple(some)
    return tree


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Parts of equal size where one-hot chains are many numbers. Raises InputError where they do not fit at all."""
    if x.ndim < 3 or x.numel() < LARGE or kernel.in_place:
        return None
    if x.is_cpu:
        check_room(COPIES * x.nbytes, f"{len(x)} chains on {target.space}", "fewer chains, or fewer categories")
    num_parts = -(-len(x) // max(PART * len(x) // x.numel(), 1))
    return InParts(kernel, -(-len(x) // num_parts)) if num_parts > 1 else None
