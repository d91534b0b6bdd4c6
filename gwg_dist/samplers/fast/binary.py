"""Gibbs-With-Gradients on binary points on a CPU: all that is not the gradient, in C, chain by chain.

The same Markov kernel as ``GWG``. Between drawing a site and deciding on it a step needs f and ∇f at the proposal: of a
network by one forward and one backward pass, of a restricted Boltzmann machine (``HiddenUnits``) by one product,
because turning site i adds one column of W to the pre-activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.draws import block_size
from gwg_dist.samplers.base import Info, Kernel, select
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.in_place import InPlaceGWG, MoveNoise, may_replace
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.samplers.gwg import GWG
from gwg_dist.spaces import Binary, Change
from gwg_dist.structure import Evaluation, HiddenUnits, Network, pulled
from gwg_dist.target import StructuredTarget, Target


class Layout(NamedTuple):
    """What a state's memory is made for: B, D, H (0 without hidden units), the precision, τ, and torch's threads."""

    num_chains: int
    num_sites: int
    num_hidden: int
    dtype: torch.dtype
    temperature: float
    threads: int


class BinaryState:
    """What a chain carries from step to step, and the kernels in C that read it and write over it.

    Args:
        layout: what the memory is for. ``fill`` puts chains in it.

    Attributes:
        position: the signs 1 - 2x, ``(B, D)``.
        grad: ∇f, ``(B, D)``, untempered.
        f: ``(B,)`` float64.
        aux: what the target's ``move`` wants of the current state besides, each ``(B, ...)``.
        beta: 0-d or ``(B,)``.
        weights: exp(d / τ - shift) of every move, ``(B, D)``.
        sums: sums of the weights by block, ``(B, blocks)`` float64.
        shift: ``(B,)`` float64.
        scale: β / τ, ``(B,)``.
        reference: log ref's slope / τ, ``(D,)``.
        moved: the sites drawn last, ``(B,)`` int64.
    """

    aux: tuple[Tensor, ...]
    beta: Tensor

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        num, num_sites, _, dtype, temperature, threads = layout
        size = block_size(num_sites)
        self.real = "double" if dtype == torch.float64 else "float"
        self.position, self.grad, self.weights = (torch.empty(num, num_sites, dtype=dtype) for _ in range(3))
        self.f, self.shift = (torch.empty(num, dtype=torch.float64) for _ in range(2))
        self.sums = self.f.new_empty(num, -(-num_sites // size))
        self.scale, self.moved = self.position.new_empty(num), torch.empty(num, dtype=torch.int64)
        self.reference = self.position.new_empty(num_sites)
        fresh = self.position.new_empty(threads, num_sites)
        fresh_sums = self.sums.new_empty(threads, self.sums.shape[1])
        self.weigh = self.bound(
            "weigh", self.position, self.grad, self.reference, self.scale, self.weights, self.sums, self.shift
        )
        self.propose = self.bound("propose", LATE, self.position, self.weights, self.sums, self.moved, LATE)
        self.decide = self.bound(
            "decide", LATE, LATE, self.reference, self.scale, temperature, LATE, self.moved, self.position, self.grad,
            self.weights, self.sums, self.shift, self.f, fresh, fresh_sums, LATE,
        )  # fmt: skip

    def fill(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> None:
        """Take chains that stand at ``x``, ready for a step at ``beta``."""
        self.position.copy_(1 - 2 * x)
        self.grad.copy_(evaluation.grad)
        self.f.copy_(evaluation.f)
        self.aux = evaluation.aux
        if target.reference is None:
            self.reference.zero_()
        else:
            self.reference.copy_(target.reference.weights.to(self.reference.dtype) / self.layout.temperature)
        self.temper(beta)

    def bound(self, name: str, *arguments: Tensor | float | native.Late) -> native.Bound:
        """A kernel in C for this number of chains, sites and block size, in this precision."""
        sizes = (*self.position.shape, block_size(self.position.shape[1]))
        return native.Bound(f"binary_{name}_{self.real}", *sizes, *arguments)

    @property
    def x(self) -> Tensor:
        return (1 - self.position) / 2

    def temper(self, beta: Tensor) -> None:
        self.beta = beta
        self.scale.copy_((beta / self.layout.temperature).expand(len(self.scale)))
        self.weigh()


class HiddenState(BinaryState):
    """What a chain on ``HiddenUnits`` carries besides.

    Attributes:
        hidden: pre-activations, ``(B, H)``.
        softplus: their sum of softplus, ``(B,)`` float64.
        sigmoid: sigmoid of the fields at the proposals, ``(B, H)``.
        change: f at the proposals minus f here, ``(B,)`` float64.
        columns: W^T, ``(D, H)``.
        bias: of the visible units, ``(D,)``.
    """

    weight: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        num, num_sites, num_hidden, *_ = layout
        self.hidden, hidden_new, self.sigmoid = (self.position.new_empty(num, num_hidden) for _ in range(3))
        self.softplus, softplus_new, self.change = (torch.empty_like(self.f) for _ in range(3))
        self.columns, self.bias = self.position.new_empty(num_sites, num_hidden), torch.empty_like(self.reference)
        self.propose_hidden = native.Bound(
            f"hidden_propose_{self.real}", num, num_sites, num_hidden, block_size(num_sites), self.columns, self.bias,
            LATE, self.position, self.weights, self.sums, self.hidden, self.softplus, self.moved, hidden_new,
            self.sigmoid, softplus_new, self.change,
        )  # fmt: skip
        self.commit = native.Bound(
            f"hidden_commit_{self.real}", num, num_hidden, LATE, hidden_new, softplus_new, self.hidden, self.softplus
        )

    def fill(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> None:
        units, (hidden,) = hidden_units(target), evaluation.aux
        assert units is not None
        self.weight = units.weight.to(x.dtype) if units.back is None else units.back
        self.columns.copy_(units.columns)
        self.bias.copy_(units.visible_bias)
        self.hidden.copy_(hidden)
        self.softplus.copy_(functional.softplus(self.hidden.double()).sum(1))
        super().fill(target, x, evaluation, beta)


FREE: dict[Layout, BinaryState] = {}
"""Memory that a run has given back for the next run of its layout: a training run begins one in each iteration."""

MOST_FREE, LARGEST_FREE = 2, 2**20  # how many are kept, and numbers in x


def free_state(layout: Layout) -> BinaryState:
    """Memory of a run that is over, else new memory; nobody else has it."""
    kept = FREE.pop(layout, None)
    if kept is not None:
        return kept
    return HiddenState(layout) if layout.num_hidden else BinaryState(layout)


def give_back(state: BinaryState) -> None:
    """Keep memory for the next run; the oldest is given up."""
    if state.position.numel() > LARGEST_FREE:
        return
    FREE[state.layout] = state
    if len(FREE) > MOST_FREE:
        del FREE[next(iter(FREE))]


class Ends(NamedTuple):
    """What is left of chains when a run is over."""

    x: Tensor
    f: Tensor
    beta: Tensor


@dataclass(frozen=True)
class BinaryGWG(InPlaceGWG):
    """``GWG(temperature)`` on any binary target, at any beta."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BinaryState:
        units, (num, num_sites) = hidden_units(target), x.shape
        num_hidden = 0 if units is None else len(units.hidden_bias)
        state = free_state(Layout(num, num_sites, num_hidden, x.dtype, float(self.temperature), native.num_threads()))
        state.fill(target, x, target.evaluate(x), beta)
        return state

    def refresh(self, target: Target, state: BinaryState) -> BinaryState:
        state.fill(target, x := state.x, target.evaluate(x), state.beta)
        return state

    def finish(self, state: BinaryState) -> Ends:
        ends = Ends(state.x, state.f.clone(), state.beta)
        give_back(state)
        return ends

    def temper(self, target: Target, state: BinaryState, beta: Tensor) -> BinaryState:
        state.temper(beta)
        return state

    def step(self, target: Target, state: BinaryState, noise: MoveNoise) -> tuple[BinaryState, Info]:
        if isinstance(state, HiddenState):
            state.propose_hidden(noise.uniform)
            change, grad = state.change, pulled(state.bias, state.sigmoid, state.weight)
            there = None
        else:
            proposal = torch.empty_like(state.position)
            state.propose(noise.uniform, proposal)
            there = target.move(Evaluation(state.f, state.grad, state.aux), proposal, turned(proposal, state.moved))
            change, grad = there.f.double() - state.f, there.grad.contiguous()
        decision = state.f.new_empty(2, len(state.f))
        state.decide(grad, change, noise.uniform, decision)
        if isinstance(state, HiddenState):
            state.commit(decision)
        elif there is not None:
            state.aux = select(decision[1] > 0, there.aux, state.aux)
        return state, Info(decision[0], decision[1])


def turned(proposal: Tensor, site: Tensor) -> Change:
    """The change that led to ``proposal`` by turning one site a chain."""
    new = proposal.gather(1, site[:, None])[:, 0].long()
    return Change(site, 1 - new, new)


def hidden_units(target: Target) -> HiddenUnits | None:
    """The hidden units of a target that has them."""
    if isinstance(target, StructuredTarget) and isinstance(target.structure, HiddenUnits):
        return target.structure
    return None


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """On binary points where there is a C compiler, for hidden units, for layers and for what is evaluated afresh."""
    if not may_replace(kernel, x) or not isinstance(kernel, GWG) or not isinstance(target.space, Binary):
        return None
    suits = not isinstance(target, StructuredTarget) or isinstance(target.structure, HiddenUnits | Network)
    return BinaryGWG(kernel.temperature) if suits and native.library() is not None else None
