"""Gibbs-With-Gradients (Grathwohl et al., "Oops I Took A Gradient", ICML 2021, algorithm 1).

Not implemented: several sites a step, adapted τ, balancing functions other than the square root (τ = 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler, select
from gwg_dist.samplers.draws import inverse_cdf
from gwg_dist.target import Evaluation, Target


class GWGState(NamedTuple):
    x: Tensor
    evaluation: Evaluation

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

    def init(self, target: Target, x: Tensor) -> GWGState:
        return GWGState(x, target.evaluate(x))

    def draw(self, state: GWGState, generator: torch.Generator) -> GWGNoise:
        like = state.evaluation.f
        uniform = torch.rand(2, len(like), generator=generator, device=like.device, dtype=torch.float64)
        return GWGNoise(uniform[0], uniform[1])

    def step(self, target: Target, state: GWGState, noise: GWGNoise, beta: Tensor) -> tuple[GWGState, Info]:
        space = target.space
        x, here = state

        log_q = self.log_proposal(target, x, here, beta)
        move = inverse_cdf(log_q, noise.move)
        change = space.change(x, move)
        x_new = space.apply(x, change)
        there = target.move(here, x_new, change)
        log_q_back = self.log_proposal(target, x_new, there, beta)

        log_accept = (
            target.log_ratio(x_new, there.f, x, here.f, beta=beta)
            + _at(log_q_back, space.reverse_move(change))
            - _at(log_q, move)
        )
        accept_prob = log_accept.clamp(max=0).exp()
        accepted = noise.accept < accept_prob

        evaluation = Evaluation(
            f=torch.where(accepted, there.f, here.f),
            grad=select(accepted, there.grad, here.grad),
            aux=tuple(select(accepted, new, old) for new, old in zip(there.aux, here.aux, strict=True)),
        )
        return GWGState(select(accepted, x_new, x), evaluation), Info(accept_prob, accepted.to(accept_prob.dtype))

    def log_proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> Tensor:
        """log q(·|x), normalised, ``(B, num_moves)``."""
        d = target.space.first_order_differences(x, target.grad_log_prob(evaluation, beta))
        return torch.log_softmax(d / self.temperature, dim=1)


def _at(log_q: Tensor, move: Tensor) -> Tensor:
    return log_q.gather(1, move[:, None])[:, 0]
