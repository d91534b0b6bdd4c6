"""Gibbs-With-Gradients (Grathwohl et al., "Oops I Took A Gradient", ICML 2021, algorithm 1).

Several draws a step: see multi_gwg.py. Not implemented: adapted τ, because the acceptance has its maximum near 2 and
falls on both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.draws import Softmax, inverse_cdf, softmax
from gwg_dist.samplers.balancing import balancing
from gwg_dist.samplers.metropolis import Metropolis, MetropolisState, Move
from gwg_dist.target import Evaluation, Target


class GWGNoise(NamedTuple):
    """Uniform numbers in [0, 1), each ``(B,)`` float64: one picks the move, one decides on it."""

    move: Tensor
    accept: Tensor


@dataclass(frozen=True)
class Informed(Metropolis):
    """Proposals in proportion to g(t) of the moves of one site, t = exp(d), d the first-order change of log p_beta.

    Args:
        temperature: τ > 0; weights are g(t^(2/τ)), so 2 is g itself and a larger τ is flatter.
        balancing: g, one of "sqrt", "barker", "min", "max" (see ``gwg_dist.samplers.balancing``).

    Raises:
        ValueError: a temperature that is not positive and finite, an unknown balancing function.
    """

    temperature: float = 2.0
    balancing: str = "sqrt"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        balancing(self.balancing)

    def log_weight(self, d: Tensor) -> Tensor:
        """log g(t^(2/τ)) for d = log t, elementwise. With "sqrt" it is d / τ."""
        return balancing(self.balancing)(d * (2 / self.temperature))

    def log_weights(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> Tensor:
        """``log_weight`` of all moves, ``(B, num_moves)``; -inf for setting a site to the category that it has."""
        d = target.space.first_order_differences(x, target.grad_log_prob(evaluation, beta))
        return self.log_weight(d)


@dataclass(frozen=True)
class GWG(Informed):
    """Proposes one move from q(·|x) ∝ g(exp(d(x))) and corrects by Metropolis-Hastings.

    With the defaults q = softmax(d(x) / 2), the paper's (equations 3 to 5 and section 4). A step costs one gradient
    evaluation.

    Args:
        temperature: τ > 0; weights are g(t^(2/τ)), so 2 is g itself and a larger τ is flatter.
        balancing: g, one of "sqrt", "barker", "min", "max" (see ``gwg_dist.samplers.balancing``).

    Raises:
        ValueError: a temperature that is not positive and finite, an unknown balancing function.
    """

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> Softmax:
        return softmax(self.log_weights(target, x, evaluation, beta))

    def draw(self, state: MetropolisState, generator: torch.Generator) -> GWGNoise:
        like = state.f
        uniform = torch.rand(2, len(like), generator=generator, device=like.device, dtype=torch.float64)
        return GWGNoise(uniform[0], uniform[1])

    def propose(self, target: Target, state: MetropolisState, noise: GWGNoise) -> Move:
        change = target.space.change(state.x, inverse_cdf(state.proposal.weights, noise.move))
        return Move(state.x, target.space.apply(state.x, change), change)

    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        d = target.first_order_difference(state.evaluation, move.only_change, state.beta)
        return self.log_weight(d) - state.proposal.log_norm
