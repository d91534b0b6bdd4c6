"""Gibbs-With-Gradients for binary energies of few neighbours a site: a step reads one neighbourhood, whatever D is.

The same Markov kernel as ``GWG`` at a fixed beta. With slope_i = (β ∂_i f + ref_i) / τ and signs s = 1 - 2x the weights
of the moves are w_i = exp(s_i slope_i), kept from step to step with their sums over blocks of sites: a move is drawn by
its block, then inside it. Where E has at most pairs, the first-order difference d is the exact change of log p and the
reverse move has -d, so that with W(x) the sum of the weights

    p(x') q(x|x') / (p(x) q(x'|x)) = exp(d (1 - 2/τ)) W(x) / W(x'),

and no energy is evaluated at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.draws import block_size, first_above
from gwg_dist.samplers.base import Info, Kernel, accept_probability
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.in_place import InPlaceGWG, MoveNoise, may_replace, slope_and_scale
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.samplers.gwg import GWG
from gwg_dist.structure import SparsePairs
from gwg_dist.target import StructuredTarget, Target

MAX_LOG_WEIGHT = 10.0  # weights within exp(±10), so that a block's sum, updated in float64, stays exact to 1e-7
MAX_TOUCHED = 64  # room in the C kernel


@dataclass
class SparseState:
    """Everything but ``x`` in float64; D' is D padded to whole blocks.

    Args:
        target: target of the chains.
        dtype: floating type of x.
        position: the signs 1 - 2x, ``(B, D')``.
        slope: ``(B, D')``.
        weights: weights of the moves, ``(B, D')``.
        sums: sums of the weights by block, ``(B, blocks)``.
        scale: β / τ, ``(B,)``.
        beta: 0-d or ``(B,)``.
        touched: the sites that a turn of each site touches, itself first, ``(D, 1 + n)`` int64.
        coupling: R there, ``(D, 1 + n)``, 0 first.
        kernel: the step in C, or None where there is no compiler.
    """

    target: StructuredTarget
    dtype: torch.dtype
    position: Tensor
    slope: Tensor
    weights: Tensor
    sums: Tensor
    scale: Tensor
    beta: Tensor
    touched: Tensor
    coupling: Tensor
    kernel: native.Bound | None = None

    @property
    def x(self) -> Tensor:
        return ((1 - self.position[:, : self.target.space.num_sites]) / 2).to(self.dtype)

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class SparsePairGWG(InPlaceGWG):
    """``GWG(temperature)`` on ``SparsePairs`` at a fixed beta."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> SparseState:
        target, pairs = sparse(target)
        num_sites = x.shape[1]
        size = block_size(num_sites)
        padding = (0, -num_sites % size)
        slope, scale = slope_and_scale(target, x, beta, self.temperature)
        sign, slope = (1 - 2 * x).double().contiguous(), slope.double()
        weights = functional.pad((sign * slope).exp(), padding)
        sums = weights.unflatten(1, (-1, size)).sum(2)
        touched = torch.cat([torch.arange(num_sites)[:, None], pairs.graph.neighbours], 1)
        coupling = functional.pad(pairs.rows.double(), (1, 0))
        sign, slope = functional.pad(sign, padding), functional.pad(slope, padding)
        state = SparseState(
            target, x.dtype, sign, slope, weights, sums, scale.double(), beta, touched, coupling
        )  # fmt: skip
        if native.library() is not None:
            state.kernel = native.Bound(
                "sparse_step", *sums.shape, size, *touched.shape, touched, coupling, state.scale,
                float(self.temperature), LATE, sign, slope, weights, sums, LATE,
            )  # fmt: skip
        return state

    def temper(self, target: Target, state: SparseState, beta: Tensor) -> SparseState:
        return self.init(target, state.x, beta)

    def step(self, target: Target, state: SparseState, noise: MoveNoise) -> tuple[SparseState, Info]:
        if state.kernel is None:
            return state, self.turn(state, noise)
        decision = state.sums.new_empty(2, len(state.sums))
        state.kernel(noise.uniform, decision)
        return state, Info(decision[0], decision[1])

    def turn(self, state: SparseState, noise: MoveNoise) -> Info:
        """The step in torch, where there is no C compiler."""
        num, blocks = state.sums.shape
        size = state.slope.shape[1] // blocks
        total = state.sums.sum(1)
        block, _ = first_above(state.sums, noise.uniform[0])
        row = torch.arange(num)
        inside, _ = first_above(state.weights.view(num, blocks, size)[row, block], noise.uniform[1])
        site = block * size + inside
        at = state.touched[site]

        sign, slope, weight = (kept.gather(1, at) for kept in (state.position, state.slope, state.weights))
        sign_new = sign.clone()
        sign_new[:, 0].neg_()
        slope_new = slope + state.coupling[site] * (sign[:, :1] * state.scale[:, None])
        weight_new = (sign_new * slope_new).exp()
        growth = weight_new - weight
        log_accept = sign[:, 0] * slope[:, 0] * (self.temperature - 2) - torch.log1p(growth.sum(1) / total)
        accept_prob = accept_probability(log_accept)
        accepted = (noise.uniform[2] < accept_prob)[:, None]

        for kept, new, old in (
            (state.position, sign_new, sign), (state.slope, slope_new, slope), (state.weights, weight_new, weight)
        ):  # fmt: skip
            kept.scatter_(1, at, torch.where(accepted, new, old))
        state.sums.scatter_add_(1, at // size, growth * accepted)
        return Info(accept_prob, accepted[:, 0].double())


def sparse(target: Target) -> tuple[StructuredTarget, SparsePairs]:
    """The target by its structure, sparse pairs. Raises TypeError where it has another."""
    if not isinstance(target, StructuredTarget) or not isinstance(target.structure, SparsePairs):
        raise TypeError(f"sparse pairs are needed, {target.how} was found")
    return target, target.structure


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """At a fixed beta, while no weight leaves exp(±10)."""
    if beta is None or not may_replace(kernel, x) or not isinstance(kernel, GWG):
        return None
    if not isinstance(target, StructuredTarget) or not isinstance(target.structure, SparsePairs):
        return None
    steepest = float(target.structure.steepest() * beta.abs().max())
    if target.reference is not None:
        steepest += float(target.reference.weights.abs().max())
    suits = steepest / kernel.temperature <= MAX_LOG_WEIGHT and target.structure.rows.shape[1] < MAX_TOUCHED
    return SparsePairGWG(kernel.temperature) if suits else None
