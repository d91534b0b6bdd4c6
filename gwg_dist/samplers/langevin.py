"""Discrete Langevin proposals: every site moves at once, on its own (Zhang, Liu and Liu, ICML 2022, equation 4).

With d the first-order change of log p_beta, a step of Langevin dynamics from x, read as a distribution over the points
of the space, is a product over sites:

    q_i(x'_i | x) ∝ exp(b d_i(x'_i) - |x'_i - x_i|² / (2 α_i)),     b = 1/2.

On binary sites that is a flip with probability σ(b d_i - 1 / (2 α_i)). A b above 1/2 suits a large α: both are then
nearer to Gibbs sampling of a linear log p (Sun, Dai, Sutton, Schuurmans and Dai, ICLR 2023). Not implemented: the
second-order term of that paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.samplers.metropolis import Metropolis, MetropolisState, Move
from gwg_dist.target import Evaluation, Target


class LangevinProposal(NamedTuple):
    """``logits``: log odds of flipping, ``(B, D)``, or of every category, ``(B, D, K)``, 0 for the one that it has."""

    logits: Tensor


class LangevinNoise(NamedTuple):
    """Uniform float64 numbers in [0, 1): ``sites`` ``(B, D)`` move them, ``accept`` ``(B,)`` decides."""

    sites: Tensor
    accept: Tensor


class Langevin(Metropolis):
    """Moves every site on its own; a subclass says with which ``logits``, a field of its ``proposal``."""

    def draw(self, state: MetropolisState, generator: torch.Generator) -> LangevinNoise:
        num, num_sites = state.x.shape[:2]
        size = (num, 1 + num_sites)
        uniform = torch.rand(size, generator=generator, device=state.x.device, dtype=torch.float64)
        return LangevinNoise(uniform[:, 1:], uniform[:, 0])

    def propose(self, target: Target, state: MetropolisState, noise: LangevinNoise) -> Move:
        return Move(state.x, target.space.draw_sites(state.x, state.proposal.logits, noise.sites))

    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        return target.space.log_prob_sites(move.x, state.proposal.logits, move.x_new)


@dataclass(frozen=True)
class DMALA(Langevin):
    """Proposes all sites at once from q_i ∝ exp(b d_i - |x'_i - x_i|² / (2 α_i)) and corrects by Metropolis-Hastings.

    d is the first-order change of log p_beta. The squared distance of a change is 1 on a binary site and 2 on a
    one-hot one. A step costs one gradient evaluation, whatever the number of sites that change (Zhang, Liu and Liu,
    2022, algorithm 1).

    Args:
        step_size: α > 0; a larger one changes more sites and is accepted less often.
        balance: b in [0.5, 1]; above 0.5 for large α (Sun et al., 2023).
        scales: a positive factor of α for each site, α_i = step_size * scales_i; None is one for all.

    Raises:
        ValueError: a setting outside its range; at the start of a run, another number of scales than of sites.
    """

    step_size: float = 0.2
    balance: float = 0.5
    scales: tuple[float, ...] | None = field(default=None, repr=False)

    tunable = "step_size"
    per_site = "scales"

    def __post_init__(self) -> None:
        check_langevin("step_size", self.step_size, "balance", self.balance, self.scales)

    def refusal(self, target: Target) -> str | None:
        return scales_refusal(self.scales, target)

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> LangevinProposal:
        settings = {"step_size": self.step_size, "balance": self.balance, "scales": self.scales}
        return LangevinProposal(langevin_logits(target, x, evaluation, beta, **settings))


@dataclass(frozen=True)
class DULA(Sampler):
    """The proposals of ``DMALA``, never refused: NOT exact, its chains have a distribution near p_beta.

    The bias falls with α: to 0 where log p is quadratic, to a floor elsewhere (Zhang, Liu and Liu, 2022). On
    random restricted Boltzmann machines of 4 visible and 3 hidden units, weights of variance 1, the total variation
    from p_beta is 0.08 at α = 0.4, 0.03 at 0.2 and 0.01 at 0.1. Estimates of log Z refuse this kernel.

    Args:
        step_size: α > 0.
        balance: b in [0.5, 1].
        scales: a positive factor of α for each site; None is one for all.

    Raises:
        ValueError: a setting outside its range; at the start of a run, another number of scales than of sites.
    """

    step_size: float = 0.2
    balance: float = 0.5
    scales: tuple[float, ...] | None = field(default=None, repr=False)

    exact = False

    def __post_init__(self) -> None:
        self.corrected()

    def corrected(self) -> DMALA:
        """The exact kernel with the same proposals."""
        return DMALA(self.step_size, self.balance, self.scales)

    def refusal(self, target: Target) -> str | None:
        return self.corrected().refusal(target)

    def init(self, target: Target, x: Tensor, beta: Tensor) -> MetropolisState:
        return self.corrected().init(target, x, beta)

    def temper(self, target: Target, state: MetropolisState, beta: Tensor) -> MetropolisState:
        return self.corrected().temper(target, state, beta)

    def draw(self, state: MetropolisState, generator: torch.Generator) -> LangevinNoise:
        return self.corrected().draw(state, generator)

    def step(self, target: Target, state: MetropolisState, noise: LangevinNoise) -> tuple[MetropolisState, Info]:
        proposals = self.corrected()
        move = proposals.propose(target, state, noise)
        there = proposals.arrive(target, state, move)
        hops = target.space.hamming(move.x, move.x_new)
        return there, Info(torch.ones_like(noise.accept), hops)


def langevin_logits(
    target: Target,
    x: Tensor,
    evaluation: Evaluation,
    beta: Tensor,
    *,
    step_size: float | Tensor,
    balance: float | Tensor,
    scales: tuple[float, ...] | None,
) -> Tensor:
    """b d_i - |x'_i - x_i|² / (2 α_i): log odds of flipping, ``(B, D)``, or of every category, ``(B, D, K)``.

    Args:
        target: the space, and p_beta.
        x: where chains are.
        evaluation: f and ∇f there.
        beta: 0-d or one a chain.
        step_size: α, a number, or one a chain in a shape that goes with x.
        balance: b, likewise.
        scales: factors of α, one a site.
    """
    d = target.space.site_differences(x, target.grad_log_prob(evaluation, beta))
    alpha = step_size
    if scales is not None:
        alpha = step_size * scales_tensor(scales, x.dtype, x.device).reshape(-1, *[1] * (x.ndim - 2))
    return balance * d - target.space.site_distances(x) * (0.5 / alpha)


def check_langevin(
    step_name: str, step_size: float, balance_name: str, balance: float, scales: tuple[float, ...] | None
) -> None:
    """Raise ValueError, naming the setting, where a step size, a balance or a scale is outside its range."""
    if not 0 < step_size < math.inf:
        raise ValueError(f"{step_name} must be positive and finite, got {step_size}")
    if not 0.5 <= balance <= 1:
        raise ValueError(f"{balance_name} must lie in [0.5, 1], got {balance}")
    wrong = [scale for scale in scales or () if not 0 < scale < math.inf]
    if wrong:
        raise ValueError(f"scales must be positive and finite, got {wrong[0]}")


def scales_refusal(scales: tuple[float, ...] | None, target: Target) -> str | None:
    """Why these scales are not those of the target's sites; None where they are."""
    num, num_sites = len(scales or ()), target.space.num_sites
    if scales is None or num == num_sites:
        return None
    return f"scales must hold one number for each of the {num_sites} sites, got {num}"


@torch.compiler.assume_constant_result
@cache
def scales_tensor(scales: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The scales of sites as a tensor ``(D,)``, made once: a step copies nothing to the device."""
    return torch.tensor(scales, dtype=dtype, device=device)
