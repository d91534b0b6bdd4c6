"""Gibbs-With-Gradients (Grathwohl et al., "Oops I Took A Gradient", ICML 2021, algorithm 1).

Not implemented: several sites a step, adapted τ, balancing functions other than the square root (τ = 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler, accept_probability, select
from gwg_dist.samplers.draws import Softmax, inverse_cdf, softmax
from gwg_dist.target import Evaluation, Target


class GWGState(NamedTuple):
    """``proposal`` is q(·|x) at ``beta``, kept so that it is made once a point and not once a step."""

    x: Tensor
    evaluation: Evaluation
    proposal: Softmax
    beta: Tensor

    @property
    def f(self) -> Tensor:
        return self.evaluation.f


class GWGNoise(NamedTuple):
    """Uniform numbers in [0, 1), each ``(B,)`` float64: one picks the move, one decides on it."""

    move: Tensor
    accept: Tensor


@dataclass(frozen=True)
class GWG(Sampler):
    """Proposes one move from q(·|x) = softmax(d(x) / τ) and corrects by Metropolis-Hastings.

    d(x) is the first-order difference of log p_beta by every move; a step costs one gradient evaluation, at the
    proposal, because the state keeps that of x. Accepted with min(1, p(x') q(x|x') / (p(x) q(x'|x))).

    Args:
        temperature: τ; 2 is the locally balanced choice g(t) = sqrt(t) (Grathwohl et al., 2021, section 4).

    Raises:
        ValueError: a temperature that is not positive.
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def init(self, target: Target, x: Tensor, beta: Tensor) -> GWGState:
        evaluation = target.evaluate(x)
        return GWGState(x, evaluation, self.proposal(target, x, evaluation, beta), beta)

    def temper(self, target: Target, state: GWGState, beta: Tensor) -> GWGState:
        return state._replace(proposal=self.proposal(target, state.x, state.evaluation, beta), beta=beta)

    def draw(self, state: GWGState, generator: torch.Generator) -> GWGNoise:
        like = state.evaluation.f
        uniform = torch.rand(2, len(like), generator=generator, device=like.device, dtype=torch.float64)
        return GWGNoise(uniform[0], uniform[1])

    def step(self, target: Target, state: GWGState, noise: GWGNoise) -> tuple[GWGState, Info]:
        x, here, forward, beta = state
        move = inverse_cdf(forward.weights, noise.move)
        change = target.space.change(x, move)
        x_new = target.space.apply(x, change)
        there = target.move(here, x_new, change)
        backward = self.proposal(target, x_new, there, beta)

        log_q = target.first_order_difference(here, change, beta) / self.temperature - forward.log_norm
        log_q_back = (
            target.first_order_difference(there, change.reversed(), beta) / self.temperature - backward.log_norm
        )
        log_accept = target.log_ratio_of(change, there.f, here.f, beta=beta) + log_q_back - log_q
        accept_prob = accept_probability(log_accept)
        accepted = noise.accept < accept_prob

        made = change._replace(new=torch.where(accepted, change.new, change.old))
        evaluation, proposal = select(accepted, (there, backward), (here, forward))
        state = GWGState(target.space.apply(x, made), evaluation, proposal, beta)
        return state, Info(accept_prob, accepted.to(x.dtype))

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> Softmax:
        """q(·|x) over all moves."""
        d = target.space.first_order_differences(x, target.grad_log_prob(evaluation, beta))
        return softmax(d * (1 / self.temperature))
