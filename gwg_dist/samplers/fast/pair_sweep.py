"""Sweeps of dense pairs in C: ``BlockGibbs`` on a CPU, site after site, with fields that follow every change.

The same Markov kernel, and on the same noise the same chains up to rounding: a field is ∂_ik f, moved by two rows of R
where a site changes (one if binary) in place of being made anew for every site.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.block_gibbs import BlockGibbs
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.dense import dense
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.spaces import Binary
from gwg_dist.structure import DensePairs
from gwg_dist.target import StructuredTarget, Target

MAX_CATEGORIES = 1024  # room on the stack of the C kernel


@dataclass
class PairSweepState:
    """What ``kernel`` writes over.

    Args:
        target: target of the chains.
        codes: ``(B, D)`` int32.
        fields: ∇f, ``(B, D)`` or ``(B, D K)``.
        hops: changes of the last sweep, ``(B,)``.
        scale: beta, one a chain, ``(B,)``.
        beta: 0-d or ``(B,)``.
        kernel: the sweep.
    """

    target: StructuredTarget
    codes: Tensor
    fields: Tensor
    hops: Tensor
    scale: Tensor
    beta: Tensor
    kernel: native.Bound

    @property
    def x(self) -> Tensor:
        return self.target.space.encode(self.codes, self.fields.dtype)

    @property
    def f(self) -> Tensor:
        """f(x) = constant + x^T (slope + ∇f) / 2."""
        _, pairs = dense(self.target)
        both = (self.fields + pairs.slope).view(*self.codes.shape, -1)
        if isinstance(self.target.space, Binary):
            here = both[:, :, 0] * self.codes
        else:
            here = both.gather(2, self.codes.long()[:, :, None])[:, :, 0]
        return pairs.constant + here.sum(1, dtype=torch.float64) / 2


@dataclass(frozen=True)
class PairSweep(Kernel):
    """``BlockGibbs(rule)`` on ``DensePairs``. The noise is ``(D, B)`` float64, uniform in [0, 1)."""

    rule: str = "gibbs"

    def init(self, target: Target, x: Tensor, beta: Tensor) -> PairSweepState:
        target, pairs = dense(target)
        real, size = ("double" if x.dtype == torch.float64 else "float"), pairs.rows.shape[0]
        codes = target.space.decode(x).int().contiguous()
        fields = target.evaluate(x).grad.to(x.dtype).flatten(1).contiguous()
        reference = torch.zeros_like(x[0]) if target.reference is None else target.reference.weights.to(x.dtype)
        reference = target.space.without_padding(reference).flatten()
        scale, hops = beta.to(x.dtype).expand(len(x)).clone(), x.new_empty(len(x))
        kernel = native.Bound(
            f"pair_sweep_{real}", *codes.shape, size // codes.shape[1], float(self.rule == "metropolised"),
            pairs.rows.to(x.dtype).contiguous(), reference.contiguous(), scale, LATE, codes, fields, hops,
        )  # fmt: skip
        return PairSweepState(target, codes, fields, hops, scale, beta, kernel)

    def temper(self, target: Target, state: PairSweepState, beta: Tensor) -> PairSweepState:
        state.beta = beta
        state.scale.copy_(beta.expand(len(state.scale)))
        return state

    def draw(self, state: PairSweepState, generator: torch.Generator) -> Tensor:
        return torch.rand(state.codes.shape[::-1], generator=generator, dtype=torch.float64)

    def step(self, target: Target, state: PairSweepState, noise: Tensor) -> tuple[PairSweepState, Info]:
        state.kernel(noise)
        return state, Info(torch.ones_like(state.hops), state.hops)


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Where ``BlockGibbs`` runs on dense pairs, on a CPU that has a C compiler in a precision that C knows."""
    if not isinstance(kernel, BlockGibbs) or kernel != BlockGibbs(kernel.rule):  # a subclass may change a step
        return None
    suits = x.is_cpu and x.dtype in (torch.float32, torch.float64) and target.space.num_categories <= MAX_CATEGORIES
    suits = suits and isinstance(target, StructuredTarget) and isinstance(target.structure, DensePairs)
    return PairSweep(kernel.rule) if suits and native.library() is not None else None
