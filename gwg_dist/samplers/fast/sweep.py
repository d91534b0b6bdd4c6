"""Block Gibbs sweeps in C: ``BlockGibbs`` on a CPU in float32, with random numbers of its own for each chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.block_gibbs import BlockGibbs, coloured
from gwg_dist.samplers.fast import native
from gwg_dist.target import IncrementalTarget, Target


@dataclass
class SweepState:
    """``x`` ``(B, D)`` is moved in place; ``tables`` are what the kernel reads."""

    x: Tensor
    beta: Tensor
    target: IncrementalTarget
    tables: tuple[Tensor, ...]

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class ColourSweep(Kernel):
    """The same Markov kernel as ``BlockGibbs``. The noise is a seed a chain, ``(B,)`` int64."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> SweepState:
        target, _ = coloured(target)
        x = x.clone(memory_format=torch.contiguous_format)
        return SweepState(x, beta, target, self.tables(target, x))

    def temper(self, target: Target, state: SweepState, beta: Tensor) -> SweepState:
        state.beta = beta
        return state

    def draw(self, state: SweepState, generator: torch.Generator) -> Tensor:
        return torch.randint(-(2**63), 2**63 - 1, (len(state.x),), generator=generator)

    def step(self, target: Target, state: SweepState, noise: Tensor) -> tuple[SweepState, Info]:
        x, (ends, _, neighbours, *_) = state.x, state.tables
        hops, scale = x.new_empty(len(x)), state.beta.to(x.dtype).expand(len(x)).contiguous()
        native.call(
            "colour_sweep", *x.shape, len(neighbours), len(ends), *state.tables, scale, noise, x.new_empty(x.shape[1]),
            hops, x,
        )  # fmt: skip
        return state, Info(torch.ones_like(hops), hops)

    def tables(self, target: IncrementalTarget, x: Tensor) -> tuple[Tensor, ...]:
        """Where colours end, the sites by colour, and in that order their neighbours, couplings, biases, references."""
        _, pairs = coloured(target)
        bias = -pairs.start(torch.zeros_like(x[:1])).grad[0]
        order = torch.cat(pairs.colours)
        ends = torch.tensor([len(colour) for colour in pairs.colours]).cumsum(0)
        reference = torch.zeros_like(bias) if target.reference is None else target.reference.weights
        neighbours, rows = (table[order].T.contiguous() for table in (pairs.neighbours, pairs.rows))
        return ends, order.int(), neighbours.int(), rows, bias[order], reference[order]


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Sweeps in C where ``BlockGibbs`` runs on float32 chains on a CPU."""
    suits = type(kernel) is BlockGibbs and x.device.type == "cpu" and x.dtype == torch.float32
    return ColourSweep() if suits and native.library() is not None else None
