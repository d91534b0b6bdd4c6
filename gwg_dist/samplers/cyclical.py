"""Automatic cyclical scheduling: DMALA with step sizes that fall from large to small again and again.

Large steps find other modes and are seldom accepted; small ones explore the mode that was found (Pynadath,
Bhattacharya, Hariharan and Zhang, "Gradient-based discrete sampling with automatic cyclical scheduling", NeurIPS 2024).
Every step is a Metropolis-Hastings step at its own α and b, the way back at the same ones, so each leaves p_beta
invariant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info
from gwg_dist.samplers.langevin import Langevin, LangevinNoise, check_langevin, langevin_logits, scales_refusal
from gwg_dist.samplers.metropolis import MetropolisState, Move
from gwg_dist.target import Evaluation, Target


class CyclicalProposal(NamedTuple):
    """``logits`` of ``LangevinProposal`` at the step with this number; ``number`` ``(B,)`` int64, from 0."""

    logits: Tensor
    number: Tensor


@dataclass(frozen=True)
class ACS(Langevin):
    """Step k of a run is that of ``DMALA`` with its own step size α_k and balance b_k.

    α_k = max(α_min, α_max / 2 (1 + cos(π k / s))), k numbered within a cycle of s steps. b_k goes with α_k, linearly
    from b_max at α_max to 0.5 at α_min. A run of chains begins a cycle: where few steps are made at once, as in an
    iteration of training, ``cycle`` is at most their number. A step costs one gradient evaluation (Pynadath et al.,
    2024; the balance of each step size is tabulated there, linear here).

    Args:
        step_size_max: α_max, at the start of a cycle.
        step_size_min: α_min > 0, at most α_max.
        balance_max: b_max in [0.5, 1].
        cycle: s, in steps.
        scales: a positive factor of α for each site; None is one for all.

    Raises:
        ValueError: a setting outside its range; at the start of a run, another number of scales than of sites.
    """

    step_size_max: float = 1.0
    step_size_min: float = 0.1
    balance_max: float = 0.95
    cycle: int = 50
    scales: tuple[float, ...] | None = field(default=None, repr=False)

    tunable = "step_size_max"
    per_site = "scales"
    cyclical = ("step_size_max", "step_size_min", "balance_max", "cycle")
    target_acceptance = 0.5

    def __post_init__(self) -> None:
        for name in ("step_size_max", "step_size_min"):
            check_langevin(name, getattr(self, name), "balance_max", self.balance_max, self.scales)
        if self.step_size_min > self.step_size_max:
            both = f"{self.step_size_min} and {self.step_size_max}"
            raise ValueError(f"step_size_min must be at most step_size_max, got {both}")
        if self.cycle < 1:
            raise ValueError(f"cycle must be positive, got {self.cycle}")

    def refusal(self, target: Target) -> str | None:
        return scales_refusal(self.scales, target)

    def step_size(self, number: Tensor) -> Tensor:
        """α_k of the steps with these numbers, the shape of ``number``, float64."""
        cosine = (math.pi / self.cycle * (number % self.cycle).double()).cos()
        return (self.step_size_max / 2 * (1 + cosine)).clamp(min=self.step_size_min)

    def balance(self, step_size: Tensor) -> Tensor:
        """b_k that goes with α_k, the shape of ``step_size``."""
        width = self.step_size_max - self.step_size_min
        share = (step_size - self.step_size_min) / width if width > 0 else torch.ones_like(step_size)
        return 0.5 + (self.balance_max - 0.5) * share

    def at(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor, number: Tensor) -> CyclicalProposal:
        """What q(·|x) needs at the step with number ``number``."""
        step_size = self.step_size(number)
        shape = (-1, *[1] * (x.ndim - 1))
        alpha, b = step_size.to(x.dtype).view(shape), self.balance(step_size).to(x.dtype).view(shape)
        logits = langevin_logits(target, x, evaluation, beta, step_size=alpha, balance=b, scales=self.scales)
        return CyclicalProposal(logits, number)

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> CyclicalProposal:
        return self.at(target, x, evaluation, beta, torch.zeros(len(x), dtype=torch.int64, device=x.device))

    def arrive(self, target: Target, state: MetropolisState, move: Move) -> MetropolisState:
        """The state after ``move``, at the step size of the move: the way back has that too."""
        evaluation = self.follow(target, state.evaluation, move)
        return self._with(target, MetropolisState(move.x_new, evaluation, None, state.beta), state.proposal.number)

    def step(self, target: Target, state: MetropolisState, noise: LangevinNoise) -> tuple[MetropolisState, Info]:
        number = state.proposal.number + 1
        state, info = super().step(target, state, noise)
        return self._with(target, state, number), info

    def temper(self, target: Target, state: MetropolisState, beta: Tensor) -> MetropolisState:
        return self._with(target, state._replace(beta=beta), state.proposal.number)

    def refresh(self, target: Target, state: MetropolisState) -> MetropolisState:
        return self._with(target, self.init(target, state.x, state.beta), state.proposal.number)

    def _with(self, target: Target, state: MetropolisState, number: Tensor) -> MetropolisState:
        """The same chains, ready for the step with number ``number``."""
        return state._replace(proposal=self.at(target, state.x, state.evaluation, state.beta, number))
