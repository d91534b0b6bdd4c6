"""Random-walk Metropolis: sites picked blindly (Metropolis et al., 1953). The yardstick of kernels that look first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.metropolis import Metropolis, MetropolisState, Move
from gwg_dist.structure import Network
from gwg_dist.target import Evaluation, StructuredTarget, Target


class WalkNoise(NamedTuple):
    """Uniform float64 numbers in [0, 1).

    Args:
        num_sites: ``(B,)``, how many sites change.
        order: ``(B, D)``, the sites with the smallest change.
        shift: ``(B, D)``, to which other category.
        accept: ``(B,)``, the decision.
    """

    num_sites: Tensor
    order: Tensor
    shift: Tensor
    accept: Tensor


@dataclass(frozen=True)
class RandomWalk(Metropolis):
    """Proposes other, uniformly drawn categories at n different, uniformly drawn sites, n uniform on 1, ..., radius.

    q is symmetric: q(x'|x) = 1 / (radius C(D, n) ∏ (K_i - 1)) over the n sites i that change, so that a move is made
    with probability min(1, p(x') / p(x)). A step costs one evaluation without a gradient.

    Args:
        radius: the largest number of sites that change at once.

    Raises:
        ValueError: a radius below 1; at the start of a run, one beyond the number of sites.
    """

    radius: int = 1

    tunable = "radius"
    target_acceptance = 0.234

    def __post_init__(self) -> None:
        if self.radius < 1:
            raise ValueError(f"radius must be positive, got {self.radius}")

    def refusal(self, target: Target) -> str | None:
        num_sites = target.space.num_sites
        return None if self.radius <= num_sites else f"radius must be at most the {num_sites} sites, got {self.radius}"

    def evaluate(self, target: Target, x: Tensor) -> Evaluation:
        if isinstance(target, StructuredTarget) and not isinstance(target.structure, Network):
            return target.evaluate(x)
        return Evaluation(target.f(x), x.new_empty(len(x), 0))

    def follow(self, target: Target, here: Evaluation, move: Move) -> Evaluation:
        return self.evaluate(target, move.x_new)

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> tuple[()]:
        return ()

    def draw(self, state: MetropolisState, generator: torch.Generator) -> WalkNoise:
        num, num_sites = state.x.shape[:2]
        size = (num, 2 + 2 * num_sites)
        uniform = torch.rand(size, generator=generator, device=state.x.device, dtype=torch.float64)
        accept, count, order, shift = uniform.split([1, 1, num_sites, num_sites], 1)
        return WalkNoise(count[:, 0], order, shift, accept[:, 0])

    def propose(self, target: Target, state: MetropolisState, noise: WalkNoise) -> Move:
        first = noise.order.topk(self.radius, 1, largest=False).indices
        used = torch.arange(self.radius, device=first.device) <= (noise.num_sites * self.radius).long()[:, None]
        chosen = torch.zeros_like(noise.order).scatter(1, first, used.double()) > 0
        return Move(state.x, target.space.change_sites(state.x, None, chosen, noise.shift))

    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        space, n = target.space, target.space.hamming(move.x, move.x_new).double()
        sites = torch.tensor(float(space.num_sites), dtype=torch.float64, device=n.device)
        log_choices = (sites + 1).lgamma() - (n + 1).lgamma() - (sites - n + 1).lgamma()
        return -math.log(self.radius) - log_choices + space.log_prob_changes(move.x, None, move.x_new)
