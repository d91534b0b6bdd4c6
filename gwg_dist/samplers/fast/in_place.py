"""What kernels that work in place share: the state that a step takes is the state that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Kernel
from gwg_dist.samplers.gwg import GWG
from gwg_dist.target import Target


class MoveNoise(NamedTuple):
    """Uniform numbers in [0, 1), ``(3, B)`` float64: the block, the move inside it, the decision."""

    uniform: Tensor


@dataclass(frozen=True)
class InPlaceGWG(Kernel):
    """``GWG(temperature)`` on a CPU by a kernel that writes over its state, which has ``position`` ``(B, ...)``."""

    temperature: float = 2.0

    def draw(self, state: Any, generator: torch.Generator) -> MoveNoise:
        return MoveNoise(torch.rand(3, len(state.position), generator=generator, dtype=torch.float64))


def may_replace(kernel: Kernel, x: Tensor) -> bool:
    """Whether this is GWG itself with g = sqrt, on a CPU in a precision that C knows. A subclass may change a step."""
    if type(kernel) is not GWG or kernel.balancing != "sqrt":
        return False
    return x.is_cpu and x.dtype in (torch.float32, torch.float64)


def slope_and_scale(target: Target, x: Tensor, beta: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(β ∇f + ∇log ref) / τ in the shape and precision of x, and β / τ, ``(B,)``."""
    slope = target.grad_log_prob(target.evaluate(x), beta) / temperature
    return slope.to(x.dtype).contiguous(), (beta / temperature).to(x.dtype).expand(len(x)).contiguous()
