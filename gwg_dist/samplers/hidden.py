"""Gibbs-With-Gradients for restricted Boltzmann machines on a CPU: a step is one product, and little else.

The same Markov kernel as ``GWG`` at a fixed beta. Turning site i adds one column of W to the pre-activations; their
sigmoid times W, ``(B, H)`` by ``(H, D)``, is the gradient at the proposal. What is before and after the product is done
in C, chain by chain. Steps work in place: the state that a step takes is the state that it returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.samplers import native
from gwg_dist.samplers.base import Info
from gwg_dist.samplers.draws import block_size
from gwg_dist.samplers.pairs import InPlaceGWG, InPlaceState, MoveNoise
from gwg_dist.spaces import Binary
from gwg_dist.target import HiddenUnits, IncrementalTarget, Target


@dataclass(frozen=True)
class HiddenGWG(InPlaceGWG):
    """``position``: the signs 1 - 2x ``(B, D)``. ``extra``: the log of what weights are divided by ``(B,)`` float64; the
    pre-activations ``(B, H)``; the sum of their softplus ``(B,)`` float64; log ref's slope / τ ``(D,)``.
    """

    def init(self, target: Target, x: Tensor, beta: Tensor) -> InPlaceState:
        assert isinstance(target, IncrementalTarget)
        assert isinstance(target.increments, HiddenUnits)
        (hidden,) = target.increments.start(x).aux
        slope, scale = self.start(target, x, beta)
        sign = 1 - 2 * x
        shift = (sign * slope).amax(1, keepdim=True)
        weights = (sign * slope - shift).exp()
        size = block_size(x.shape[1])
        sums = functional.pad(weights.double(), (0, -x.shape[1] % size)).unflatten(1, (-1, size)).sum(2)
        reference = torch.zeros_like(slope[0]) if target.reference is None else target.reference.weights.to(x.dtype)
        softplus = functional.softplus(hidden).sum(1, dtype=torch.float64)
        extra = (shift[:, 0].double(), hidden.clone(), softplus, reference / self.temperature)
        return InPlaceState(target, x.dtype, sign, slope.contiguous(), weights, sums, scale, extra)

    def step(self, target: Target, state: InPlaceState, noise: MoveNoise, beta: Tensor) -> tuple[InPlaceState, Info]:
        units = state.target.increments
        assert isinstance(units, HiddenUnits)
        shift, hidden, softplus, reference = state.extra
        (num, num_sites), num_hidden = state.position.shape, hidden.shape[1]
        sizes = (num, num_sites, num_hidden, block_size(num_sites))
        real = "double" if state.dtype == torch.float64 else "float"
        sites, softplus_new = torch.empty(num, dtype=torch.int64), torch.empty_like(softplus)
        hidden_new, sigmoid, decision = torch.empty_like(hidden), torch.empty_like(hidden), softplus.new_empty(2, num)
        native.call(
            f"hidden_propose_{real}", *sizes, units.columns, noise.uniform, state.position, state.weights, state.sums,
            hidden, sites, hidden_new, sigmoid, softplus_new,
        )  # fmt: skip
        pull = torch.addmm(units.visible_bias, sigmoid, units.weight)
        native.call(
            f"hidden_decide_{real}", *sizes, pull, units.visible_bias, reference, state.scale, float(self.temperature),
            noise.uniform, sites, hidden_new, softplus_new, state.position, state.slope, state.weights, state.sums,
            shift, hidden, softplus, torch.empty(3 * num_sites, dtype=state.dtype), decision,
        )  # fmt: skip
        return state, Info(decision[0], decision[1])


def specialised(target: Target, temperature: float) -> HiddenGWG | None:
    """The kernel for this target at a fixed beta, or None: no hidden units, not on a CPU, or no C compiler."""
    if not isinstance(target, IncrementalTarget) or not isinstance(target.increments, HiddenUnits):
        return None
    weight = target.increments.weight
    suits = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64) and weight.is_contiguous()
    suits = suits and isinstance(target.space, Binary) and native.library() is not None
    return HiddenGWG(temperature) if suits else None
