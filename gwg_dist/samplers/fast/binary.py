"""Gibbs-With-Gradients on binary points on a CPU: all that is not the gradient, in C, chain by chain.

The same Markov kernel as ``GWG``. Between drawing a site and deciding on it a step needs f and ∇f at the proposal: of a
network by one forward and one backward pass, of a restricted Boltzmann machine (``HiddenUnits``) by one product,
because turning site i adds one column of W to the pre-activations.
"""

from __future__ import annotations

from dataclasses import dataclass

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


class BinaryState:
    """What a chain carries from step to step, and the kernels in C that read it and write over it.

    Args:
        x: the chains, ``(B, D)``.
        evaluation: evaluation at ``x``.
        target: target of the chains.
        beta: 0-d or ``(B,)``.
        temperature: τ.

    Attributes:
        position: the signs 1 - 2x, ``(B, D)``.
        grad: ∇f, ``(B, D)``, untempered.
        f: ``(B,)`` float64.
        aux: what the target's ``move`` wants of the current state besides, each ``(B, ...)``.
        weights: exp(d / τ - shift) of every move, ``(B, D)``.
        sums: sums of the weights by block, ``(B, blocks)`` float64.
        shift: ``(B,)`` float64.
        scale: β / τ, ``(B,)``.
        reference: log ref's slope / τ, ``(D,)``.
        moved: the sites drawn last, ``(B,)`` int64.
    """

    def __init__(self, x: Tensor, evaluation: Evaluation, target: Target, beta: Tensor, temperature: float) -> None:
        num, num_sites = x.shape
        size, temperature = block_size(num_sites), float(temperature)
        self.temperature = temperature
        self.real = "double" if x.dtype == torch.float64 else "float"
        self.position = (1 - 2 * x).contiguous()
        self.grad = evaluation.grad.to(x.dtype).clone(memory_format=torch.contiguous_format)
        self.f = evaluation.f.double().clone()
        self.aux = evaluation.aux
        self.weights = torch.empty_like(self.position)
        self.sums, self.shift = self.f.new_empty(num, -(-num_sites // size)), torch.empty_like(self.f)
        self.scale, self.moved = x.new_empty(num), torch.empty(num, dtype=torch.int64)
        slope = torch.zeros(num_sites, dtype=x.dtype) if target.reference is None else target.reference.weights
        self.reference = (slope.to(x.dtype) / temperature).contiguous()
        fresh = x.new_empty(native.num_threads(), num_sites)
        fresh_sums = self.sums.new_empty(native.num_threads(), self.sums.shape[1])
        self.weigh = self.bound(
            "weigh", self.position, self.grad, self.reference, self.scale, self.weights, self.sums, self.shift
        )
        self.propose = self.bound("propose", LATE, self.position, self.weights, self.sums, self.moved, LATE)
        self.decide = self.bound(
            "decide", LATE, LATE, self.reference, self.scale, temperature, LATE, self.moved, self.position, self.grad,
            self.weights, self.sums, self.shift, self.f, fresh, fresh_sums, LATE,
        )  # fmt: skip
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
        self.scale.copy_((beta / self.temperature).expand(len(self.scale)))
        self.weigh()


class HiddenState(BinaryState):
    """What a chain on ``HiddenUnits`` carries besides.

    Attributes:
        hidden: pre-activations, ``(B, H)``.
        softplus: their sum of softplus, ``(B,)`` float64.
        sigmoid: sigmoid of the fields at the proposals, ``(B, H)``.
        change: f at the proposals minus f here, ``(B,)`` float64.
    """

    def __init__(
        self, x: Tensor, evaluation: Evaluation, target: Target, beta: Tensor, temperature: float, units: HiddenUnits
    ) -> None:
        super().__init__(x, evaluation, target, beta, temperature)
        (hidden,) = evaluation.aux
        self.weight = units.weight.to(x.dtype) if units.back is None else units.back
        self.bias = units.visible_bias.to(x.dtype).contiguous()
        columns = units.columns.to(x.dtype).contiguous()
        self.hidden = hidden.to(x.dtype).clone(memory_format=torch.contiguous_format)
        self.softplus = functional.softplus(self.hidden.double()).sum(1)
        self.sigmoid, self.change = torch.empty_like(self.hidden), torch.empty_like(self.softplus)
        hidden_new, softplus_new = torch.empty_like(self.hidden), torch.empty_like(self.softplus)
        (num, num_sites), (_, num_hidden) = x.shape, self.hidden.shape
        self.propose_hidden = native.Bound(
            f"hidden_propose_{self.real}", num, num_sites, num_hidden, block_size(num_sites), columns, self.bias, LATE,
            self.position, self.weights, self.sums, self.hidden, self.softplus, self.moved, hidden_new, self.sigmoid,
            softplus_new, self.change,
        )  # fmt: skip
        self.commit = native.Bound(
            f"hidden_commit_{self.real}", num, num_hidden, LATE, hidden_new, softplus_new, self.hidden, self.softplus
        )


@dataclass(frozen=True)
class BinaryGWG(InPlaceGWG):
    """``GWG(temperature)`` on any binary target, at any beta."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BinaryState:
        evaluation, units = target.evaluate(x), hidden_units(target)
        if units is None:
            return BinaryState(x, evaluation, target, beta, self.temperature)
        return HiddenState(x, evaluation, target, beta, self.temperature, units)

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
