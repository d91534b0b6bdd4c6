"""Gibbs-With-Gradients on binary points on a CPU: all that is not the gradient, in C, chain by chain.

The same Markov kernel as ``GWG``. Between drawing a site and deciding on it a step needs f and ∇f at the proposal: of a
network by one forward and one backward, of a restricted Boltzmann machine (``HiddenUnits``) by one product, because
turning site i adds one column of W to the pre-activations. Steps work in place: the state that a step takes is the
state that it returns.
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
from gwg_dist.samplers.fast.pairs import InPlaceGWG, MoveNoise
from gwg_dist.samplers.gwg import GWG
from gwg_dist.spaces import Binary
from gwg_dist.target import HiddenUnits, IncrementalTarget, Target


@dataclass
class BinaryState:
    """Args:
    position: the signs 1 - 2x, ``(B, D)``.
    grad: ∇f, ``(B, D)``, untempered.
    f: ``(B,)`` float64.
    weights: exp(d / τ - shift) of every move, ``(B, D)``; ``sums`` ``(B, blocks)`` and ``shift`` ``(B,)`` float64.
    scale: β / τ, ``(B,)``.
    beta: 0-d or ``(B,)``.
    reference: log ref's slope / τ, ``(D,)``.
    hidden: pre-activations ``(B, H)`` and the sum of their softplus ``(B,)`` float64, or nothing.
    """

    position: Tensor
    grad: Tensor
    f: Tensor
    weights: Tensor
    sums: Tensor
    shift: Tensor
    scale: Tensor
    beta: Tensor
    reference: Tensor
    hidden: tuple[Tensor, ...]

    @property
    def x(self) -> Tensor:
        return (1 - self.position) / 2

    def call(self, name: str, *arguments: Tensor | int | float) -> None:
        """Run a C kernel for this number of chains, sites and block size, in this precision."""
        real = "double" if self.position.dtype == torch.float64 else "float"
        native.call(f"{name}_{real}", *self.position.shape, *arguments)


@dataclass(frozen=True)
class BinaryGWG(InPlaceGWG):
    """``GWG(temperature)`` on any binary target, at any beta."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BinaryState:
        evaluation, size = target.evaluate(x), block_size(x.shape[1])
        hidden: tuple[Tensor, ...] = ()
        if _units(target) is not None:
            (pre_activation,) = evaluation.aux
            softplus = functional.softplus(pre_activation.double()).sum(1)
            hidden = (pre_activation.clone(memory_format=torch.contiguous_format), softplus)
        reference = torch.zeros_like(x[0]) if target.reference is None else target.reference.weights.to(x.dtype)
        f = evaluation.f.double()
        sums, shift = f.new_empty(len(x), -(-x.shape[1] // size)), torch.empty_like(f)
        state = BinaryState(
            (1 - 2 * x).contiguous(), evaluation.grad.to(x.dtype).contiguous(), f.clone(), torch.empty_like(x), sums,
            shift, x.new_empty(len(x)), beta, reference / self.temperature, hidden,
        )  # fmt: skip
        return self.temper(target, state, beta)

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        state.beta = beta
        state.scale.copy_((beta / self.temperature).expand(len(state.scale)))
        state.call(
            "binary_weigh", block_size(state.position.shape[1]), state.position, state.grad, state.reference,
            state.scale, state.weights, state.sums, state.shift,
        )  # fmt: skip
        return state

    def step(self, target: Target, state: BinaryState, noise: MoveNoise) -> tuple[BinaryState, Info]:
        num, num_sites = state.position.shape
        size, sites = block_size(num_sites), torch.empty(num, dtype=torch.int64)
        units = _units(target)
        hidden = None if units is None else _propose_hidden(state, units, noise, sites)
        if units is not None and hidden is not None:
            change, grad = hidden.change, torch.addmm(units.visible_bias, hidden.sigmoid, units.weight)
        else:
            proposal = torch.empty_like(state.position)
            drawn = (noise.uniform, state.position, state.weights, state.sums)
            state.call("binary_propose", size, *drawn, sites, proposal)
            evaluation = target.evaluate(proposal)
            change, grad = evaluation.f.double() - state.f, evaluation.grad.contiguous()
        scratch = state.weights.new_empty(num_sites + 2 * state.sums.shape[1])
        decision = state.f.new_empty(2, num)
        state.call(
            "binary_decide", size, grad, change, state.reference, state.scale, float(self.temperature), noise.uniform,
            sites, state.position, state.grad, state.weights, state.sums, state.shift, state.f, scratch, decision,
        )  # fmt: skip
        if hidden is not None:
            real = "double" if hidden.new.dtype == torch.float64 else "float"
            native.call(
                f"hidden_commit_{real}", *hidden.new.shape, decision, hidden.new, hidden.softplus, *state.hidden
            )
        return state, Info(decision[0], decision[1])


class _Hidden(NamedTuple):
    """At the proposals: pre-activations, their sigmoid, the sum of their softplus, and f there minus f here."""

    new: Tensor
    sigmoid: Tensor
    softplus: Tensor
    change: Tensor


def _propose_hidden(state: BinaryState, units: HiddenUnits, noise: MoveNoise, sites: Tensor) -> _Hidden:
    """Draw the sites and move the hidden units."""
    hidden, softplus = state.hidden
    made = _Hidden(*(torch.empty_like(like) for like in (hidden, hidden, softplus, softplus)))
    state.call(
        "hidden_propose", hidden.shape[1], block_size(state.position.shape[1]), units.columns, units.visible_bias,
        noise.uniform, state.position, state.weights, state.sums, hidden, softplus, sites, made.new, made.sigmoid,
        made.softplus, made.change,
    )  # fmt: skip
    return made


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """The kernel for this target, or None: not binary, not on a CPU, no C compiler, or it moves by increments."""
    if type(kernel) is not GWG:  # a subclass may change what a step does
        return None
    suits = isinstance(target.space, Binary) and x.device.type == "cpu"
    suits = suits and (_units(target) is not None or not isinstance(target, IncrementalTarget))
    suits = suits and x.dtype in (torch.float32, torch.float64) and native.library() is not None
    return BinaryGWG(kernel.temperature) if suits else None


def _units(target: Target) -> HiddenUnits | None:
    if isinstance(target, IncrementalTarget) and isinstance(target.increments, HiddenUnits):
        return target.increments
    return None
