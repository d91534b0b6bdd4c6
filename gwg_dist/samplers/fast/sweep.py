"""Block Gibbs sweeps in C: ``BlockGibbs`` on a CPU in float32, with random numbers of its own for each chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.block_gibbs import BlockGibbs
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.samplers.fast.sparse import sparse
from gwg_dist.structure import SparsePairs
from gwg_dist.target import StructuredTarget, Target


@dataclass
class SweepState:
    """``x`` ``(B, D)`` is moved in place by ``kernel``; ``scale`` is beta, one a chain."""

    x: Tensor
    beta: Tensor
    target: StructuredTarget
    scale: Tensor
    hops: Tensor
    kernel: native.Bound

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class ColourSweep(Kernel):
    """The same Markov kernel as ``BlockGibbs``. The noise is a seed a chain, ``(B,)`` int64."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> SweepState:
        target, pairs = sparse(target)
        x = x.clone(memory_format=torch.contiguous_format)
        scale, hops = beta.to(x.dtype).expand(len(x)).clone(), x.new_empty(len(x))
        tables = self.tables(target, pairs)
        ends, _, neighbours, *_ = tables
        room = x.new_empty(native.num_threads(), x.shape[1])
        kernel = native.Bound("colour_sweep", *x.shape, len(neighbours), len(ends), *tables, scale, LATE, room, hops, x)
        return SweepState(x, beta, target, scale, hops, kernel)

    def temper(self, target: Target, state: SweepState, beta: Tensor) -> SweepState:
        state.beta = beta
        state.scale.copy_(beta.expand(len(state.scale)))
        return state

    def draw(self, state: SweepState, generator: torch.Generator) -> Tensor:
        return torch.randint(-(2**63), 2**63 - 1, (len(state.x),), generator=generator)

    def step(self, target: Target, state: SweepState, noise: Tensor) -> tuple[SweepState, Info]:
        state.kernel(noise)
        return state, Info(torch.ones_like(state.hops), state.hops)

    def tables(self, target: StructuredTarget, pairs: SparsePairs) -> tuple[Tensor, ...]:
        """Where colours end, the sites by colour, and in that order their neighbours, couplings, slopes, references."""
        order = torch.cat(pairs.graph.blocks)
        ends = torch.tensor([len(block) for block in pairs.graph.blocks]).cumsum(0)
        reference = torch.zeros_like(pairs.slope) if target.reference is None else target.reference.weights
        neighbours = pairs.graph.neighbours[order].T.int().contiguous()
        rows = pairs.rows[order].T.float().contiguous()
        return ends, order.int(), neighbours, rows, pairs.slope[order].float(), reference[order].float()


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Where ``BlockGibbs("gibbs")`` runs on sparse pairs and float32 chains on a CPU that has a C compiler."""
    suits = kernel == BlockGibbs("gibbs") and x.is_cpu and x.dtype == torch.float32
    suits = suits and isinstance(target, StructuredTarget) and isinstance(target.structure, SparsePairs)
    return ColourSweep() if suits and native.library() is not None else None
