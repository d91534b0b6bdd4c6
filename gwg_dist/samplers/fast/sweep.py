"""Block Gibbs sweeps in C: ``BlockGibbs`` on a CPU in float32, with random numbers of its own for each chain.

Sixteen chains go side by side: a neighbour of a site is sixteen numbers that lie together, and nothing is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.block_gibbs import BlockGibbs
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.sparse import sparse
from gwg_dist.structure import SparsePairs
from gwg_dist.target import StructuredTarget, Target

LANES = 16  # as in kernels.c


@dataclass
class SweepState:
    """B chains in bundles of 16, padded to whole ones, that ``kernel`` writes over.

    Args:
        target: target of the chains.
        num_chains: B.
        bundles: the chains, ``(bundles, D, 16)``, sites by colour.
        place: where each site is in that order, ``(D,)`` int64.
        scale: beta of each chain, ``(bundles, 16)``.
        seeds: of the next sweep, ``(bundles, 16)`` int64.
        hops: of the last sweep, ``(bundles, 16)``.
        beta: 0-d or ``(B,)``.
        kernel: the sweep.
    """

    target: StructuredTarget
    num_chains: int
    bundles: Tensor
    place: Tensor
    scale: Tensor
    seeds: Tensor
    hops: Tensor
    beta: Tensor
    kernel: native.Bound

    @property
    def x(self) -> Tensor:
        return self.bundles.transpose(1, 2).flatten(0, 1)[: self.num_chains, self.place]

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class ColourSweep(Kernel):
    """The same Markov kernel as ``BlockGibbs``. The noise is a seed a chain, ``(B,)`` int64."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> SweepState:
        target, pairs = sparse(target)
        order = torch.cat(pairs.graph.blocks)
        place = order.argsort()
        padding = -len(x) % LANES
        bundles = functional.pad(x[:, order], (0, 0, 0, padding)).unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()
        scale = functional.pad(beta.to(x.dtype).expand(len(x)), (0, padding)).view(-1, LANES).contiguous()
        seeds, hops = torch.zeros(scale.shape, dtype=torch.int64), torch.zeros_like(scale)
        tables = self.tables(target, pairs, order, place)
        ends, neighbours, *_ = tables
        sizes = len(bundles), x.shape[1], len(neighbours), len(ends), LANES
        kernel = native.Bound("colour_sweep", *sizes, *tables, scale, seeds, hops, bundles)
        return SweepState(target, len(x), bundles, place, scale, seeds, hops, beta, kernel)

    def temper(self, target: Target, state: SweepState, beta: Tensor) -> SweepState:
        state.beta = beta
        state.scale.view(-1)[: state.num_chains] = beta
        return state

    def draw(self, state: SweepState, generator: torch.Generator) -> Tensor:
        return torch.randint(-(2**63), 2**63 - 1, (state.num_chains,), generator=generator)

    def step(self, target: Target, state: SweepState, noise: Tensor) -> tuple[SweepState, Info]:
        state.seeds.view(-1)[: state.num_chains] = noise
        state.kernel()
        hops = state.hops.view(-1)[: state.num_chains]
        return state, Info(torch.ones_like(hops), hops)

    def tables(self, target: StructuredTarget, pairs: SparsePairs, order: Tensor, place: Tensor) -> tuple[Tensor, ...]:
        """Where colours end, and in the order of the colours the neighbours, couplings, slopes and references."""
        ends = torch.tensor([len(block) for block in pairs.graph.blocks]).cumsum(0)
        reference = torch.zeros_like(pairs.slope) if target.reference is None else target.reference.weights
        neighbours = place[pairs.graph.neighbours[order]].T.int().contiguous()
        rows = pairs.rows[order].T.float().contiguous()
        return ends, neighbours, rows, pairs.slope[order].float(), reference[order].float()


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Where ``BlockGibbs("gibbs")`` goes by colours, on float32 chains and a CPU that has a C compiler."""
    suits = kernel == BlockGibbs("gibbs") and x.is_cpu and x.dtype == torch.float32
    pairs = target.structure if isinstance(target, StructuredTarget) else None
    suits = suits and isinstance(pairs, SparsePairs) and pairs.paths is None
    return ColourSweep() if suits and native.library() is not None else None
