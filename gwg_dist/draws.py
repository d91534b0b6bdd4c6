"""Drawing one of many in proportion to weights, one uniform number a chain."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Softmax(NamedTuple):
    """A distribution over N moves a chain, p_n = weights_n / sum(weights) = exp(logits_n - log_norm).

    Args:
        weights: ``(B, N)``, exp(logits - max logits).
        log_norm: ``(B,)``, log sum exp(logits).
    """

    weights: Tensor
    log_norm: Tensor


def softmax(logits: Tensor) -> Softmax:
    """softmax(logits) over the last axis of ``(B, N)``; -inf is probability zero."""
    highest = logits.amax(1, keepdim=True)
    weights = (logits - highest).exp()
    return Softmax(weights, weights.sum(1).log() + highest[:, 0])


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """An index drawn in proportion to ``weights``, ``(B,)`` int64: the first whose cumulative sum exceeds a threshold.

    In two levels, first a block of about sqrt(N) entries by the sums of the blocks, then an entry inside it: a sum over
    everything is made once, cumulative sums only over sqrt(N) numbers. These are in float64: among a hundred thousand
    moves, a float32 cumulative sum would round the rare ones away.

    An index of weight zero is never drawn, whatever the rounding: thresholds are kept below the last cumulative sum,
    and sums that do not grow are passed over. NaN weights give the last index, so that whoever looks at them next can
    tell.

    Args:
        weights: ``(B, N)``, not negative, not all zero, not necessarily normalised.
        uniform: ``(B,)`` float64 in [0, 1).
    """
    size = block_size(weights.shape[1])
    padding = -weights.shape[1] % size
    blocks = (functional.pad(weights, (0, padding)) if padding else weights).unflatten(1, (-1, size))
    sums = blocks.sum(2)
    block, inside = first_above(sums, uniform)
    chosen = blocks.gather(1, block[:, None, None].expand(-1, 1, size))[:, 0]
    index = block * size + first_above(chosen, inside)[0]
    return index.clamp(max=weights.shape[1] - 1)


def block_size(num: int) -> int:
    """About sqrt(num): the nearest divisor within a factor of two, so that nothing is padded, else the root itself."""
    root = max(math.isqrt(num), 1)
    divisors = [size for size in range(max(root // 2, 1), 2 * root + 1) if num % size == 0]
    return min(divisors, key=lambda size: abs(size - root)) if divisors else root


def first_above(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The index of the first cumulative sum above uniform * total, and how far into it the threshold lies, 0 to 1.

    An index of weight zero is never drawn, whatever the rounding. NaN weights give the last index.

    Args:
        weights: ``(B, N)``, not negative, not all zero, not necessarily normalised; summed in float64.
        uniform: ``(B,)`` float64 in [0, 1).
    """
    cumulative = weights.cumsum(1, dtype=torch.float64)
    total = cumulative[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    threshold = torch.minimum(uniform[:, None] * total, below_total)
    index = torch.searchsorted(cumulative, threshold, right=True).clamp(max=weights.shape[1] - 1)
    width = weights.gather(1, index).double()
    into = (threshold - (cumulative.gather(1, index) - width)) / width
    return index[:, 0], into[:, 0].clamp(0, 1)
