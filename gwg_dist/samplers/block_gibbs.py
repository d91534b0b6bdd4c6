"""Block Gibbs sampling of sites that do not see each other: the checkerboard of a lattice.

For a binary energy with at most pairs of sites the conditional of a site is read off the gradient, which does not
depend on the site itself: logit p(x_i = 1 | rest) = β ∂_i f + ref_i. Sites of one colour are independent given the
others, so a sweep over all sites costs one update a colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.target import ColouredPairs, IncrementalTarget, Target


@dataclass
class BlockGibbsState:
    """``x`` ``(B, D)`` is moved in place. ``bias`` ``(D,)``: ∂f at x = 0."""

    x: Tensor
    bias: Tensor
    beta: Tensor
    target: IncrementalTarget

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


class BlockGibbsNoise(NamedTuple):
    """``uniform`` ``(B, D)`` in [0, 1)."""

    uniform: Tensor


@dataclass(frozen=True)
class BlockGibbs(Sampler):
    """A step is a sweep: every site is drawn once from its conditional, one colour after the other.

    Needs an energy whose ``increments`` are ``gwg_dist.target.ColouredPairs``; IsingTorusEnergy has them.

    Raises:
        ValueError: at the start of a run, another energy.
    """

    def refusal(self, target: Target) -> str | None:
        if has_colours(target.frozen()):
            return None
        name = type(target.energy).__name__
        return f"BlockGibbs needs an energy with coloured sites, such as IsingTorusEnergy; {name} has none"

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BlockGibbsState:
        target, pairs = coloured(target)
        bias = -pairs.start(torch.zeros_like(x[:1])).grad[0]
        return BlockGibbsState(x.clone(memory_format=torch.contiguous_format), bias, beta, target)

    def temper(self, target: Target, state: BlockGibbsState, beta: Tensor) -> BlockGibbsState:
        state.beta = beta
        return state

    def draw(self, state: BlockGibbsState, generator: torch.Generator) -> BlockGibbsNoise:
        x = state.x
        return BlockGibbsNoise(torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype))

    def step(self, target: Target, state: BlockGibbsState, noise: BlockGibbsNoise) -> tuple[BlockGibbsState, Info]:
        _, pairs = coloured(state.target)
        x, before = state.x, state.x.clone()
        for colour in pairs.colours:
            x[:, colour] = (noise.uniform[:, colour] < self.probability(state, colour)).to(x.dtype)
        return state, Info(torch.ones_like(x[:, 0]), target.space.hamming(x, before))

    def probability(self, state: BlockGibbsState, colour: Tensor) -> Tensor:
        """p(x_i = 1 | rest) at the sites of a colour, ``(B, sites)``."""
        (_, pairs), reference = coloured(state.target), state.target.reference
        slope = state.bias[colour] + (state.x[:, pairs.neighbours[colour]] * pairs.rows[colour]).sum(2)
        logit = state.beta.reshape(-1, 1) * slope
        return torch.sigmoid(logit if reference is None else logit + reference.weights[colour])


def coloured(target: Target) -> tuple[IncrementalTarget, ColouredPairs]:
    """The target by increments, and its coloured sites."""
    target = target.frozen()
    if not isinstance(target, IncrementalTarget) or not isinstance(target.increments, ColouredPairs):
        raise ValueError(f"{target.energy} has no coloured sites")
    return target, target.increments


def has_colours(target: Target) -> bool:
    """Whether a frozen target moves by coloured pairs."""
    return isinstance(target, IncrementalTarget) and isinstance(target.increments, ColouredPairs)
