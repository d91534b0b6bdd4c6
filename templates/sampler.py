"""A sampler to copy. ``python templates/sampler.py`` checks it by enumeration.

This one proposes one site and another category for it, both drawn uniformly. Replace the proposal by yours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers import Evaluation, Metropolis, MetropolisState, Move, Target
from gwg_dist.spaces import Change


class MyNoise(NamedTuple):
    """Uniform numbers in [0, 1), each ``(B,)`` float64: one picks the move, one decides on it."""

    move: Tensor
    accept: Tensor


@dataclass(frozen=True)
class MySampler(Metropolis):
    """q(x'|x) = 1 / (D (K_i - 1)): one site i set to one of its other categories, both drawn uniformly."""

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> tuple[()]:
        """What q(·|x) needs. An informed proposal makes its weights here, from ``evaluation.grad``."""
        return ()

    def draw(self, state: MetropolisState, generator: torch.Generator) -> MyNoise:
        """All the randomness of a step; the field ``accept`` is there in every kernel."""
        uniform = torch.rand(2, len(state.x), generator=generator, device=state.x.device, dtype=torch.float64)
        return MyNoise(uniform[0], uniform[1])

    def propose(self, target: Target, state: MetropolisState, noise: MyNoise) -> Move:
        """A move from ``state.x``: a function of the noise and of nothing else that is random."""
        space, place = target.space, noise.move * target.space.num_sites
        site = place.long()
        others = self.others(target, site)
        shift = ((place - site) * others).long() + 1
        old = space.category_at(state.x, site)
        change = Change(site, old, (old + shift) % (others + 1))
        return Move(state.x, space.apply(state.x, change), change)

    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        """log q(move|x) in nats, ``(B,)``. The way back is asked for at the new state by the same method."""
        assert move.change is not None, "propose gives it"
        return -math.log(target.space.num_sites) - self.others(target, move.change.site).to(state.f).log()

    def others(self, target: Target, site: Tensor) -> Tensor:
        """K_i - 1, ``(B,)`` int64: sites of a table may have different numbers of categories."""
        return torch.tensor(target.space.sizes, device=site.device)[site] - 1


if __name__ == "__main__":
    from gwg_dist.testing import check_kernel

    check_kernel(MySampler())
    print("MySampler leaves its target invariant")
