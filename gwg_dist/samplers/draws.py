"""Drawing one of many from unnormalised log probabilities, one uniform number a chain."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_cdf(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The first index whose cumulative probability exceeds ``uniform``, ``(B,)`` int64.

    An index of probability zero is never drawn, whatever the rounding: the threshold is kept below the last
    cumulative sum, and sums that do not grow are passed over. Sums are in float64: among a hundred thousand moves,
    float32 would round the rare ones away. NaN probabilities give the last index, so that whoever looks at them
    next can tell.

    Args:
        log_probs: ``(B, N)``, normalised up to rounding; -inf is probability zero.
        uniform: ``(B,)`` float64 in [0, 1).
    """
    cumulative = log_probs.exp().cumsum(1, dtype=torch.float64)
    total = cumulative[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    threshold = torch.minimum(uniform[:, None] * total, below_total)
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=log_probs.shape[1] - 1)
