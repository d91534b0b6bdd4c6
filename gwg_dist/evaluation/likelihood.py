"""The mean log-likelihood of a data set, given log Z."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.distributed import all_sum, rank, share, world_size
from gwg_dist.evaluation.ais import AISResult
from gwg_dist.evaluation.exact import unnormalised_log_prob
from gwg_dist.target import Target


class Likelihood(NamedTuple):
    """Mean log p(x) over a data set, in nats.

    Args:
        mean: mean of log ref(x) - E(x) - log Z.
        stderr: of log Z; the data set is taken as it is.
        data_stderr: from the finite data set, for comparing with other data.
        num: number of points.
    """

    mean: float
    stderr: float
    data_stderr: float
    num: int


def log_likelihood(target: Target, codes: Tensor, estimate: AISResult, *, batch_size: int = 500) -> Likelihood:
    """The likelihood of codes ``(N, D)``; ranks share the work and are weighted by their true counts.

    Raises:
        ValueError: no data.
    """
    if not len(codes):
        raise ValueError("a likelihood needs at least one data point, got none")
    mine = codes[share(len(codes), rank(), world_size())]
    values = unnormalised_log_prob(target, mine, batch_size=batch_size)
    count, total, square = all_sum(
        torch.stack([values.new_tensor(float(len(values))), values.sum(), values.square().sum()])
    ).tolist()
    mean = total / count
    variance = max(square / count - mean**2, 0.0)
    return Likelihood(mean - estimate.log_z, estimate.stderr, math.sqrt(variance / count), int(count))
