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
from gwg_dist.samplers.fast import native
from gwg_dist.target import ColouredPairs, IncrementalTarget, Target


@dataclass
class BlockGibbsState:
    """``x`` ``(B, D)`` is moved in place. ``bias`` ``(D,)``: ∂f at x = 0. ``tables``: for the kernel in C."""

    x: Tensor
    bias: Tensor
    target: IncrementalTarget
    tables: tuple[Tensor, ...]

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


class BlockGibbsNoise(NamedTuple):
    """One of two: ``uniform`` ``(B, D)`` in [0, 1), or a ``seed`` a chain ``(B,)`` int64 for the kernel in C."""

    uniform: Tensor | None
    seed: Tensor | None


@dataclass(frozen=True)
class BlockGibbs(Sampler):
    """A step is a sweep: every site is drawn once from its conditional, one colour after the other.

    Needs an energy whose ``increments`` are ``gwg_dist.target.ColouredPairs``; IsingTorusEnergy has them.

    Raises:
        ValueError: at the start of a run, another energy.
    """

    in_place = True

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BlockGibbsState:
        del beta
        target = target.frozen()
        if not isinstance(target, IncrementalTarget) or not isinstance(target.increments, ColouredPairs):
            raise ValueError(
                "BlockGibbs needs an energy with coloured sites, such as IsingTorusEnergy; "
                f"{type(target.energy).__name__} has none"
            )
        bias = -target.increments.start(torch.zeros_like(x[:1])).grad[0]
        tables = self.tables(target, bias) if _in_c(x) else ()
        return BlockGibbsState(x.clone(memory_format=torch.contiguous_format), bias, target, tables)

    def draw(self, state: BlockGibbsState, generator: torch.Generator) -> BlockGibbsNoise:
        x = state.x
        if state.tables:
            return BlockGibbsNoise(None, torch.randint(-(2**63), 2**63 - 1, (len(x),), generator=generator))
        return BlockGibbsNoise(torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype), None)

    def step(
        self, target: Target, state: BlockGibbsState, noise: BlockGibbsNoise, beta: Tensor
    ) -> tuple[BlockGibbsState, Info]:
        pairs, x = state.target.increments, state.x
        assert isinstance(pairs, ColouredPairs)
        always = torch.ones_like(x[:, 0])
        if noise.seed is not None:
            hops, scale = torch.empty_like(always), beta.to(x.dtype).expand(len(x)).contiguous()
            native.call(
                "colour_sweep", *x.shape, len(state.tables[2]), len(state.tables[0]), *state.tables, scale, noise.seed,
                torch.empty_like(state.bias), hops, x,
            )  # fmt: skip
            return state, Info(always, hops)
        assert noise.uniform is not None
        before = x.clone()
        for colour in pairs.colours:
            x[:, colour] = (noise.uniform[:, colour] < self.probability(state, colour, beta)).to(x.dtype)
        return state, Info(always, target.space.hamming(x, before))

    def probability(self, state: BlockGibbsState, colour: Tensor, beta: Tensor) -> Tensor:
        """p(x_i = 1 | rest) at the sites of a colour, ``(B, sites)``."""
        pairs, reference = state.target.increments, state.target.reference
        assert isinstance(pairs, ColouredPairs)
        slope = state.bias[colour] + (state.x[:, pairs.neighbours[colour]] * pairs.rows[colour]).sum(2)
        logit = beta.reshape(-1, 1) * slope
        return torch.sigmoid(logit if reference is None else logit + reference.weights[colour])

    def tables(self, target: IncrementalTarget, bias: Tensor) -> tuple[Tensor, ...]:
        """Where colours end, the sites by colour, and in that order their neighbours, couplings, biases, references."""
        pairs = target.increments
        assert isinstance(pairs, ColouredPairs)
        order = torch.cat(pairs.colours)
        ends = torch.tensor([len(colour) for colour in pairs.colours]).cumsum(0)
        reference = torch.zeros_like(bias) if target.reference is None else target.reference.weights
        neighbours, rows = (table[order].T.contiguous() for table in (pairs.neighbours, pairs.rows))
        return ends, order.int(), neighbours.int(), rows, bias[order], reference[order]


def _in_c(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and native.library() is not None
