"""Gibbs-With-Gradients in reduced precision, corrected to be exact: a surrogate transition (Liu, 2001, section 9.4.3).

bfloat16 in the acceptance test makes a chain wrong. Here k steps run on a surrogate energy f~, the same network in
reduced precision, and the whole block is then accepted or refused once, with f in full precision:

    min(1, exp(beta (f(x') - f(x)) - beta (f~(x') - f~(x)))).

The k steps are reversible with respect to the surrogate, so the block leaves the target invariant exactly, provided
that f~ is a function of x alone. The reference cancels. A block costs k cheap gradients and one forward in full
precision; where f~ is good nearly every block is accepted.

Not implemented: a choice of k by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Retreat, Sampler, accept_probability, select
from gwg_dist.samplers.gwg import GWG, GWGNoise
from gwg_dist.samplers.metropolis import MetropolisState
from gwg_dist.target import Target

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": None}
MIN_BLOCK_ACCEPTANCE = 0.5  # below, full precision moves chains further for the same work


class SurrogateState(NamedTuple):
    """``f`` in full precision, ``(B,)``; ``inner`` is the state of the surrogate's chain."""

    x: Tensor
    f: Tensor
    inner: MetropolisState

    @property
    def beta(self) -> Tensor:
        return self.inner.beta


class SurrogateNoise(NamedTuple):
    """The noise of the steps of a block, and a uniform number ``(B,)`` float64 that decides on it."""

    inner: tuple[GWGNoise, ...]
    accept: Tensor


@dataclass(frozen=True)
class SurrogateGWG(Sampler):
    """``block`` steps of GWG in reduced precision and one decision in full precision make ONE transition.

    So ``num_steps=5`` with ``block=8`` moves chains about as far as forty steps of GWG.

    Args:
        temperature: τ.
        block: k.
        precision: "bfloat16", "float16", or "float32" (the surrogate is the target; every block is accepted).

    Raises:
        ValueError: a setting outside its range.
    """

    temperature: float = 2.0
    block: int = 8
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        GWG(self.temperature)
        if self.block < 1:
            raise ValueError(f"block must be positive, got {self.block}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    def init(self, target: Target, x: Tensor, beta: Tensor) -> SurrogateState:
        return SurrogateState(x, target.f(x), GWG(self.temperature).init(self.surrogate(target), x, beta))

    def temper(self, target: Target, state: SurrogateState, beta: Tensor) -> SurrogateState:
        return state._replace(inner=GWG(self.temperature).temper(self.surrogate(target), state.inner, beta))

    def draw(self, state: SurrogateState, generator: torch.Generator) -> SurrogateNoise:
        like = state.f
        size = (2 * self.block + 1, len(like))
        uniform = torch.rand(size, generator=generator, device=like.device, dtype=torch.float64)
        steps = tuple(GWGNoise(uniform[2 * t], uniform[2 * t + 1]) for t in range(self.block))
        return SurrogateNoise(steps, uniform[-1])

    def step(self, target: Target, state: SurrogateState, noise: SurrogateNoise) -> tuple[SurrogateState, Info]:
        gwg, surrogate, inner = GWG(self.temperature), self.surrogate(target), state.inner
        for step_noise in noise.inner:
            inner, _ = gwg.step(surrogate, inner, step_noise)
        f = target.f(inner.x)
        log_accept = state.beta * ((f - state.f) - (inner.f - state.inner.f))
        accept_prob = accept_probability(log_accept)
        accepted = noise.accept < accept_prob
        hops = target.space.hamming(inner.x, state.x) * accepted
        was = state.inner
        x, f, evaluation, proposal = select(
            accepted, (inner.x, f, inner.evaluation, inner.proposal), (was.x, state.f, was.evaluation, was.proposal)
        )
        return SurrogateState(x, f, MetropolisState(x, evaluation, proposal, was.beta)), Info(accept_prob, hops)

    def retreat(self, accept_prob: float) -> Retreat | None:
        """GWG in full precision, ``block`` steps for one block, where most blocks are refused."""
        if not accept_prob < MIN_BLOCK_ACCEPTANCE:
            return None
        why = f"{100 * accept_prob:.0f} % of the {self.precision} blocks are accepted; going on in full precision"
        return Retreat(GWG(self.temperature), self.block, why)

    def surrogate(self, target: Target) -> Target:
        """The same target with its energy evaluated in reduced precision."""
        reduced = Target(_Reduced(target.energy, PRECISIONS[self.precision]), target.reference, space=target.space)
        return reduced


class _Reduced:
    """E(x) under autocast. Weights are rounded afresh in every evaluation, so that it follows them in place."""

    def __init__(self, energy: Callable[[Tensor], Tensor], dtype: torch.dtype | None) -> None:
        self.energy = energy
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        if self.dtype is None:
            return self.energy(x)
        with torch.autocast(x.device.type, dtype=self.dtype, cache_enabled=False):
            return self.energy(x).to(x.dtype)
