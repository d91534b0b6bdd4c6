"""Chains on many categories, a part of them at a time: what a step holds on the way is held for a part alone.

A step of a categorical kernel makes about ten arrays of the size of x on its way. Chains do not know each other, so
that a part of them can be moved after the other: between steps a chain keeps x, the gradient and its proposal, and
nothing else is larger than a part. It is the same kernel; random numbers are drawn part by part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.target import Target
from gwg_dist.tools.memory import check_room

COPIES = 3  # of x: the chains where they are, the gradient, the proposal
LARGE = 2**25  # numbers in x, 134 MB in float32: below it nothing is parted
PART = 2**22  # numbers in x of a part


@dataclass
class PartsState:
    """The states of the parts, replaced one after the other; ``beta`` is that of all chains."""

    parts: list[Any]
    beta: Tensor

    @property
    def x(self) -> Tensor:
        return torch.cat([part.x for part in self.parts])

    @property
    def f(self) -> Tensor:
        return torch.cat([part.f for part in self.parts])


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
        parts = x.split(self.size)
        return PartsState([self.kernel.init(target, *both) for both in self._with_beta(parts, beta)], beta)

    def draw(self, state: PartsState, generator: torch.Generator) -> list[Any]:
        return [self.kernel.draw(part, generator) for part in state.parts]

    def step(self, target: Target, state: PartsState, noise: list[Any]) -> tuple[PartsState, Info]:
        infos = []
        for i, part_noise in enumerate(noise):
            state.parts[i], info = self.kernel.step(target, state.parts[i], part_noise)
            infos.append(info)
        return state, Info(*map(torch.cat, zip(*infos, strict=True)))

    def temper(self, target: Target, state: PartsState, beta: Tensor) -> PartsState:
        for i, (part, part_beta) in enumerate(self._with_beta(state.parts, beta)):
            state.parts[i] = self.kernel.temper(target, part, part_beta)
        state.beta = beta
        return state

    def refresh(self, target: Target, state: PartsState) -> PartsState:
        for i, part in enumerate(state.parts):
            state.parts[i] = self.kernel.refresh(target, part)
        return state

    def _with_beta(self, parts: Any, beta: Tensor) -> list[tuple[Any, Tensor]]:
        """Every part with the beta of its chains."""
        betas = beta.split(self.size) if beta.ndim else [beta] * len(parts)
        return list(zip(parts, betas, strict=True))


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Parts of equal size where one-hot chains are many numbers. Raises InputError where they do not fit at all."""
    if x.ndim < 3 or x.numel() < LARGE or kernel.in_place:
        return None
    if x.is_cpu:
        check_room(COPIES * x.nbytes, f"{len(x)} chains on {target.space}", "fewer chains, or fewer categories")
    num_parts = -(-len(x) // max(PART * len(x) // x.numel(), 1))
    return InParts(kernel, -(-len(x) // num_parts)) if num_parts > 1 else None
