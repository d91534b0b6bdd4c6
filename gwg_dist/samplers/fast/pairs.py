"""Gibbs-With-Gradients for energies with at most pairs of sites: a step reads one row of J, or one neighbourhood.

The same Markov kernel as ``GWG`` at a fixed beta. With slope_m = (β ∂_m f + ref_m) / τ the weights of the moves are
exp(differences of slopes), all kept from step to step with their sums over blocks of sites: a move is drawn by its
block, then inside it. Where E has at most pairs, the first-order difference d is the exact change of log p and the
reverse move has -d, so that with Z(x) the sum of the weights

    p(x') q(x|x') / (p(x) q(x'|x)) = exp(d (1 - 2/τ)) Z(x) / Z(x'),

and no energy is evaluated at all. Steps work in place: the state that a step takes is the state that it returns.
These kernels are for CPUs; on other devices whole-array increments are as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.draws import block_size
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.gwg import GWG
from gwg_dist.spaces import Binary
from gwg_dist.target import DensePairs, IncrementalTarget, SparsePairs, Target

MAX_LOG_WEIGHT = 10.0  # sparse: weights within exp(±10), so that a block's sum, updated in float64, stays exact to 1e-7
MAX_TOUCHED = 64  # room in the C kernel


class MoveNoise(NamedTuple):
    """Uniform numbers in [0, 1), ``(3, B)`` float64: the block, the move inside it, the decision."""

    uniform: Tensor


@dataclass
class InPlaceState:
    """What a chain carries from step to step; ``x`` and ``f`` are made when they are asked for.

    Args:
        target: of the chains.
        dtype: of x.
        position: where the chains are: binary, the signs 1 - 2x ``(B, D')``; categorical, the codes ``(B, D)``.
        slope: ``(B, D')`` or ``(B, D K)``; D' is D, padded to whole blocks where the couplings are sparse.
        weights: of the moves, the shape of ``slope``.
        sums: ``(B, blocks)`` float64.
        scale: ``(B,)``, β / τ.
        beta: 0-d or ``(B,)``.
        extra: what else the kernel needs.
    """

    target: IncrementalTarget
    dtype: torch.dtype
    position: Tensor
    slope: Tensor
    weights: Tensor
    sums: Tensor
    scale: Tensor
    beta: Tensor
    extra: tuple[Tensor, ...]

    @property
    def x(self) -> Tensor:
        space = self.target.space
        if isinstance(space, Binary):
            return ((1 - self.position[:, : space.num_sites]) / 2).to(self.dtype)
        return space.encode(self.position, self.dtype)

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class InPlaceGWG(Kernel):
    """What kernels that work in place share; ``temperature`` is τ."""

    temperature: float = 2.0

    def draw(self, state: Any, generator: torch.Generator) -> MoveNoise:
        size = (3, len(state.position))
        return MoveNoise(torch.rand(size, generator=generator, device=state.position.device, dtype=torch.float64))

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        return self.init(target, state.x, beta)

    def start(self, target: Target, x: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """``slope`` in the shape of x and ``scale``."""
        slope = target.grad_log_prob(target.evaluate(x), beta) / self.temperature
        return slope, (beta / self.temperature).to(x.dtype).expand(len(x)).contiguous()


@dataclass(frozen=True)
class SparsePairGWG(InPlaceGWG):
    """Binary, few neighbours a site: the cost of a step is that of a neighbourhood, almost whatever D is.

    ``extra``: the sites that a turn touches ``(D, n)`` int64, itself first; the couplings there ``(D, n)`` float64, 0
    first. All numbers are float64.
    """

    def init(self, target: Target, x: Tensor, beta: Tensor) -> InPlaceState:
        assert isinstance(target, IncrementalTarget)
        assert isinstance(target.increments, SparsePairs)
        pairs, num_sites = target.increments, x.shape[1]
        size = block_size(num_sites)
        padding = (0, -num_sites % size)
        slope, scale = self.start(target, x, beta)
        sign, slope = (1 - 2 * x).double(), slope.double()
        weights = functional.pad((sign * slope).exp(), padding)
        sums = weights.unflatten(1, (-1, size)).sum(2)
        touched = torch.cat([torch.arange(num_sites, device=x.device)[:, None], pairs.neighbours], 1)
        extra = (touched, functional.pad(pairs.rows.double(), (1, 0)))
        sign, slope = functional.pad(sign, padding), functional.pad(slope, padding)
        return InPlaceState(target, x.dtype, sign, slope, weights, sums, scale.double(), beta, extra)

    def step(self, target: Target, state: InPlaceState, noise: MoveNoise) -> tuple[InPlaceState, Info]:
        if native.library() is None:
            return state, self.turn(state, noise)
        (num, blocks), (touched, coupling) = state.sums.shape, state.extra
        decision = state.sums.new_empty(2, num)
        native.call(
            "sparse_step", num, blocks, state.slope.shape[1] // blocks, touched.shape[1], touched, coupling,
            state.scale, float(self.temperature), noise.uniform, state.position, state.slope, state.weights,
            state.sums, decision,
        )  # fmt: skip
        return state, Info(decision[0], decision[1])

    def turn(self, state: InPlaceState, noise: MoveNoise) -> Info:
        """The step in torch, where there is no C compiler."""
        (num, blocks), (touched, coupling) = state.sums.shape, state.extra
        size = state.slope.shape[1] // blocks
        total = state.sums.sum(1)
        block = _first_above(state.sums, noise.uniform[0])
        row = torch.arange(num, device=block.device)
        inside = _first_above(state.weights.view(num, blocks, size)[row, block], noise.uniform[1])
        site = block * size + inside
        at = touched[site]

        sign, slope, weight = (kept.gather(1, at) for kept in (state.position, state.slope, state.weights))
        sign_new = sign.clone()
        sign_new[:, 0].neg_()
        slope_new = slope + coupling[site] * (sign[:, :1] * state.scale[:, None])
        weight_new = (sign_new * slope_new).exp()
        growth = weight_new - weight
        log_accept = sign[:, 0] * slope[:, 0] * (self.temperature - 2) - torch.log1p(growth.sum(1) / total)
        accept_prob = log_accept.clamp(max=0).exp()
        accepted = (noise.uniform[2] < accept_prob)[:, None]

        for kept, new, old in (
            (state.position, sign_new, sign), (state.slope, slope_new, slope), (state.weights, weight_new, weight)
        ):  # fmt: skip
            kept.scatter_(1, at, torch.where(accepted, new, old))
        state.sums.scatter_add_(1, at // size, growth * accepted)
        return Info(accept_prob, accepted[:, 0].double())


@dataclass(frozen=True)
class DensePairGWG(InPlaceGWG):
    """Any space, every pair of sites coupled: a step reads one row of J (two, categorical). C kernels only.

    ``extra``: the log of what weights are divided by ``(B,)`` float64, and room to work in.
    """

    def init(self, target: Target, x: Tensor, beta: Tensor) -> InPlaceState:
        assert isinstance(target, IncrementalTarget)
        space = target.space
        slope, scale = self.start(target, x, beta)
        differences = space.first_order_differences(x, slope)
        shift = differences.amax(1, keepdim=True)
        weights = (differences - shift).exp()
        binary = isinstance(space, Binary)
        size = block_size(x.shape[1]) if binary else space.num_categories
        sums = functional.pad(weights.double(), (0, -weights.shape[1] % size)).unflatten(1, (-1, size)).sum(2)
        position = 1 - 2 * x if binary else space.decode(x).long()
        extra = (shift[:, 0].double(), torch.empty(2 * weights.shape[1] + x.shape[1], dtype=x.dtype))
        return InPlaceState(target, x.dtype, position, slope.flatten(1).contiguous(), weights, sums, scale, beta, extra)

    def step(self, target: Target, state: InPlaceState, noise: MoveNoise) -> tuple[InPlaceState, Info]:
        space, num = state.target.space, len(state.sums)
        assert isinstance(state.target.increments, DensePairs)
        kind = "binary" if isinstance(space, Binary) else "categorical"
        real = "double" if state.dtype == torch.float64 else "float"
        size = space.num_categories if kind == "categorical" else block_size(space.num_sites)
        decision = state.sums.new_empty(2, num)
        native.call(
            f"dense_{kind}_step_{real}", num, space.num_sites, size, state.target.increments.rows, state.scale,
            float(self.temperature), noise.uniform, state.position, state.slope, state.weights, state.sums,
            *state.extra, decision,
        )  # fmt: skip
        return state, Info(decision[0], decision[1])


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """The kernel for this target at a fixed beta, or None: not on a CPU, not pairs, beyond what the kernels carry."""
    if (
        type(kernel) is not GWG  # a subclass may change what a step does
        or beta is None
        or x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.float64)
        or not isinstance(target, IncrementalTarget)
        or not isinstance(target.increments, DensePairs | SparsePairs)
    ):
        return None
    pairs, temperature = target.increments, kernel.temperature
    if isinstance(pairs, SparsePairs):
        steepest = float(pairs.steepest())
        if target.reference is not None:
            steepest += float(target.reference.weights.abs().max())
        suits = steepest / temperature <= MAX_LOG_WEIGHT and pairs.rows.shape[1] < MAX_TOUCHED
        return SparsePairGWG(temperature) if suits and isinstance(target.space, Binary) else None
    suits = pairs.rows.dtype == x.dtype and pairs.rows.is_contiguous()
    return DensePairGWG(temperature) if suits and native.library() is not None else None


def _first_above(weights: Tensor, uniform: Tensor) -> Tensor:
    cumulative = weights.cumsum(1)
    index = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
    return index[:, 0].clamp(max=weights.shape[1] - 1)
