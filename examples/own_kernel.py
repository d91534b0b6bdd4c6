"""A kernel of your own, checked by enumeration, and the same kernel with a mistake, caught.

The kernel exchanges the values of two sites. That conserves the number of ones: the target stays invariant, and most
states are never reached. Mixed with flips of one site the kernel passes. Expect a line for each, some two seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers import Evaluation, Metropolis, MetropolisState, Move, Target
from gwg_dist.testing import CheckError, check_kernel


class Noise(NamedTuple):
    pair: Tensor
    accept: Tensor


@dataclass(frozen=True)
class Swap(Metropolis):
    """Exchanges sites i <= j; i = j flips site i where ``flips``, and else stays. q = 1 / (number of pairs)."""

    flips: bool = True

    def refusal(self, target: Target) -> str | None:
        return None if target.space.width == 1 else "Swap is for binary spaces"

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> tuple[()]:
        return ()

    def draw(self, state: MetropolisState, generator: torch.Generator) -> Noise:
        uniform = torch.rand(2, len(state.x), generator=generator, dtype=torch.float64)
        return Noise(uniform[0], uniform[1])

    def propose(self, target: Target, state: MetropolisState, noise: Noise) -> Move:
        i, j = torch.triu_indices(target.space.num_sites, target.space.num_sites)
        number = (noise.pair * len(i)).long()
        rows, i, j, x = torch.arange(len(state.x)), i[number], j[number], state.x.clone()
        x[rows, i], x[rows, j] = state.x[rows, j], state.x[rows, i]
        x[rows, i] = torch.where((i == j) & self.flips, 1 - x[rows, i], x[rows, i])
        return Move(state.x, x, aux=(number,))

    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        return torch.full_like(state.f, -math.log(math.comb(target.space.num_sites + 1, 2)))


if __name__ == "__main__":
    for kernel in (Swap(flips=False), Swap()):
        try:
            check_kernel(kernel)
        except CheckError as error:
            print(error)
        else:
            print(f"{kernel} passes")
