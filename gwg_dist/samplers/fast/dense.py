"""Gibbs-With-Gradients for energies of pairs of sites, every pair coupled: a step reads one row of R, or two.

The same Markov kernel as ``GWG`` at a fixed beta, on any space; no energy is evaluated (see sparse.py). Weights are
exp(d / τ - shift), in blocks of sites (binary) or a site each (categorical).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.draws import block_size
from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.in_place import InPlaceGWG, MoveNoise, may_replace, slope_and_scale
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.samplers.gwg import GWG
from gwg_dist.spaces import Binary
from gwg_dist.structure import DensePairs
from gwg_dist.target import StructuredTarget, Target


@dataclass
class DenseState:
    """What a chain carries from step to step, and the step in C that writes over it.

    Args:
        target: target of the chains.
        position: binary, the signs 1 - 2x ``(B, D)``; categorical, the codes ``(B, D)`` int64.
        slope: (β ∇f + ∇log ref) / τ, ``(B, D)`` or ``(B, D K)``.
        weights: weights of the moves, the shape of ``slope``.
        sums: sums of the weights by block, ``(B, blocks)`` float64.
        beta: 0-d or ``(B,)``.
        kernel: the step.
    """

    target: StructuredTarget
    position: Tensor
    slope: Tensor
    weights: Tensor
    sums: Tensor
    beta: Tensor
    kernel: native.Bound

    @property
    def x(self) -> Tensor:
        space = self.target.space
        if isinstance(space, Binary):
            return (1 - self.position) / 2
        return space.encode(self.position, self.slope.dtype)

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class DensePairGWG(InPlaceGWG):
    """``GWG(temperature)`` on ``DensePairs`` at a fixed beta."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> DenseState:
        target, pairs = dense(target)
        space = target.space
        slope, scale = slope_and_scale(target, x, beta, self.temperature)
        differences = space.first_order_differences(x, slope)
        shift = differences.amax(1, keepdim=True)
        weights = (differences - shift).exp().contiguous()
        binary = isinstance(space, Binary)
        size = block_size(x.shape[1]) if binary else space.num_categories
        sums = functional.pad(weights.double(), (0, -weights.shape[1] % size)).unflatten(1, (-1, size)).sum(2)
        position = (1 - 2 * x).contiguous() if binary else space.decode(x).long().contiguous()
        slope = space.without_padding(slope).flatten(1)  # and so it stays: what a move adds to it is finite
        widths = [slope.shape[1], sums.shape[1]] if binary else [slope.shape[1], slope.shape[1], sums.shape[1]]
        room = [x.new_empty(native.num_threads(), width) for width in widths]
        name = f"dense_{'binary' if binary else 'categorical'}_step_{'double' if x.dtype == torch.float64 else 'float'}"
        kernel = native.Bound(
            name, *x.shape[:2], size, pairs.rows.to(x.dtype).contiguous(), scale, float(self.temperature), LATE,
            position, slope, weights, sums, shift[:, 0].double(), *room, LATE,
        )  # fmt: skip
        return DenseState(target, position, slope, weights, sums, beta, kernel)

    def temper(self, target: Target, state: DenseState, beta: Tensor) -> DenseState:
        return self.init(target, state.x, beta)

    def step(self, target: Target, state: DenseState, noise: MoveNoise) -> tuple[DenseState, Info]:
        decision = state.sums.new_empty(2, len(state.sums))
        state.kernel(noise.uniform, decision)
        return state, Info(decision[0], decision[1])


def dense(target: Target) -> tuple[StructuredTarget, DensePairs]:
    """The target by its structure, dense pairs. Raises TypeError where it has another."""
    if not isinstance(target, StructuredTarget) or not isinstance(target.structure, DensePairs):
        raise TypeError(f"dense pairs are needed, {target.how} was found")
    return target, target.structure


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """At a fixed beta, where there is a C compiler."""
    if beta is None or not may_replace(kernel, x) or not isinstance(kernel, GWG) or native.library() is None:
        return None
    has_pairs = isinstance(target, StructuredTarget) and isinstance(target.structure, DensePairs)
    return DensePairGWG(kernel.temperature) if has_pairs else None
