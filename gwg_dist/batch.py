"""What one iteration learns from: points that may count more or less than once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One rank's share of the points of an iteration.

    The weights have mean one over the points of all ranks together. So the mean of weight times value over this share,
    times its size, summed over ranks, is the weighted sum over the whole batch, however the points are shared out.

    Args:
        codes: the points, integers ``(share, D)``.
        weights: how much each point counts, ``(share,)`` float32, not negative.
    """

    codes: Tensor
    weights: Tensor


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of ``values`` ``(N, ...)`` over the first axis by ``weights`` ``(N,)``; None counts every row once."""
    if weights is None:
        return values.mean(0)
    weights = weights.to(values)
    return weights @ values / weights.sum()
