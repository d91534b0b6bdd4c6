"""The gradient of SiLU, which networks on frozen weights have written out."""

from __future__ import annotations

import torch
from torch import Tensor


def silu_backward(grad: Tensor, a: Tensor) -> Tensor:
    """grad SiLU'(a), with SiLU'(a) = s + a s (1 - s) and s = sigmoid(a); in one pass."""
    return torch.ops.aten.silu_backward(grad, a)
