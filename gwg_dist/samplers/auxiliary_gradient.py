"""The auxiliary-variable gradient sampler (Rhodes and Gutmann, "Enhanced gradient-based MCMC", 2022).

A continuous variable z = x + δ ξ, ξ standard normal, ties the sites of x loosely to where they are. With the joint law
p_β(x) N(z; x, δ²) the conditional of x given z has one term that is not a sum over sites, log p_β. Taken to first order
at the current x, g = ∇log p_β(x), it leaves

    q(x'|z, x) ∝ exp(g^T x' - |z - x'|² / 2δ²),    a product over sites,

and the Metropolis-Hastings step on x with z held fixed keeps p_β(x) N(z; x, δ²) invariant, so its marginal p_β as well.
Where log p_β is linear in x, q is the conditional itself and nothing is refused.

Not implemented: momentum (discrete Hamiltonian-assisted sampling), preconditioning by a second-order term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler, accept_probability, select
from gwg_dist.target import Evaluation, Target


class AVGState(NamedTuple):
    """The evaluation at ``x`` is kept, so that a step costs one gradient, at the proposal."""

    x: Tensor
    evaluation: Evaluation
    beta: Tensor

    @property
    def f(self) -> Tensor:
        return self.evaluation.f


class AVGNoise(NamedTuple):
    """Float64 numbers.

    Args:
        normal: ξ, standard normal, the shape of x.
        sites: ``(B, D)``, uniform in [0, 1), one for each site of the proposal.
        accept: ``(B,)``, uniform in [0, 1), the decision.
    """

    normal: Tensor
    sites: Tensor
    accept: Tensor


@dataclass(frozen=True)
class AVG(Sampler):
    """Draws z = x + δ ξ, then every site at once from q(x'|z, x) ∝ exp(∇log p(x)^T x' - |z - x'|² / 2δ²).

    The move is made with probability

        min(1, p(x') N(z; x', δ²) q(x|z, x') / (p(x) N(z; x, δ²) q(x'|z, x))),

    with the same z both ways (Rhodes and Gutmann, 2022). A step costs one gradient evaluation and is never refused
    where log p is linear in x. On a binary site with no slope the log odds of flipping are (2 δ ξ' - 1) / 2δ², ξ'
    standard normal.

    Args:
        delta: δ > 0, the standard deviation of z around x. A larger one changes more sites at once.

    Raises:
        ValueError: a δ that is not positive and finite.
    """

    delta: float = 0.3

    tunable = "delta"

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ValueError(f"delta must be positive and finite, got {self.delta}")

    def init(self, target: Target, x: Tensor, beta: Tensor) -> AVGState:
        return AVGState(x, target.evaluate(x), beta)

    def temper(self, target: Target, state: AVGState, beta: Tensor) -> AVGState:
        return state._replace(beta=beta)

    def draw(self, state: AVGState, generator: torch.Generator) -> AVGNoise:
        x = state.x
        normal = torch.randn(x.shape, generator=generator, device=x.device, dtype=torch.float64)
        size = (len(x), 1 + x.shape[1])
        uniform = torch.rand(size, generator=generator, device=x.device, dtype=torch.float64)
        return AVGNoise(normal, uniform[:, 1:], uniform[:, 0])

    def step(self, target: Target, state: AVGState, noise: AVGNoise) -> tuple[AVGState, Info]:
        z = state.x + self.delta * noise.normal
        x_new = target.space.draw_sites(state.x, self.logits(target, state, z), noise.sites)
        return self.decide(target, state, z, x_new, noise.accept)

    def decide(
        self, target: Target, state: AVGState, z: Tensor, x_new: Tensor, uniform: Tensor
    ) -> tuple[AVGState, Info]:
        """Move to ``x_new`` the chains whose ``uniform`` number lies below the probability of acceptance, given ``z``.

        log N(z; x', δ²) - log N(z; x, δ²) = (z - 1/2)^T (x' - x) / δ², because |x|² is the sum of the entries of x.
        """
        space, x = target.space, state.x
        there = AVGState(x_new, target.move(state.evaluation, x_new), state.beta)
        log_ratio = target.log_ratio(x_new, there.f, x, state.f, beta=state.beta)
        log_normal = (self.towards(z) * (x_new - x)).flatten(1).sum(1)
        log_q = space.log_prob_sites(x, self.logits(target, state, z), x_new)
        log_q_back = space.log_prob_sites(x_new, self.logits(target, there, z), x)
        accept_prob = accept_probability(log_ratio + log_normal + log_q_back - log_q)
        accepted = uniform < accept_prob
        new, evaluation = select(accepted, there[:2], state[:2])
        return AVGState(new, evaluation, state.beta), Info(accept_prob, space.hamming(x, x_new) * accepted)

    def logits(self, target: Target, state: AVGState, z: Tensor) -> Tensor:
        """Of q(·|z, x), in the form of ``Space.draw_sites``, float64."""
        slope = target.grad_log_prob(state.evaluation, state.beta) + self.towards(z)
        return target.space.site_differences(state.x, slope)

    def towards(self, z: Tensor) -> Tensor:
        """The gradient in x' of -|z - x'|² / 2δ² for entries 0 and 1, where |x'|² is their sum: (z - 1/2) / δ²."""
        return (z - 0.5) / self.delta**2
