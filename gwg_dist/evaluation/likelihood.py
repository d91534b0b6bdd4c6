"""The mean log-likelihood of a data set, given log Z."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.ais import AISResult
from gwg_dist.evaluation.exact import unnormalised_log_prob
from gwg_dist.target import Target
from gwg_dist.tools.distributed import gather_rows, rank, share, world_size


class Likelihood(NamedTuple):
    """Mean log p(x) over a data set, in nats, by the points' weights.

    Args:
        mean: mean of log ref(x) - E(x) - log Z.
        stderr: error that log Z brings, see ``AISResult.error``; the data set is taken as it is.
        data_stderr: standard error that the finite data set brings, for comparing with other data.
        num: number of points.
    """

    mean: float
    stderr: float
    data_stderr: float
    num: int


def log_likelihood(
    target: Target, codes: Tensor, estimate: AISResult, *, weights: Tensor | None = None, batch_size: int = 500
) -> Likelihood:
    """The likelihood of codes ``(N, D)``; ranks share the work.

    With l_i the log-likelihood of point i and w_i its weight, the mean is m = sum w_i l_i / sum w_i and its standard
    error sqrt(sum w_i^2 (l_i - m)^2) / sum w_i.

    Args:
        weights: ``(N,)``, not negative and not all zero; None counts every point once.

    Raises:
        ValueError: no data, or another number of weights.
    """
    values = point_log_probs(target, codes, batch_size=batch_size)
    return likelihood_and_gain(values, estimate, torch.zeros_like(values), weights=weights)[0]


def point_log_probs(target: Target, codes: Tensor, *, batch_size: int = 500) -> Tensor:
    """log ref(x) - E(x) of codes ``(N, D)``, ``(N,)`` float64 nats on every rank; ranks share the work.

    Raises:
        ValueError: no data.
    """
    if not len(codes):
        raise ValueError("a likelihood needs at least one data point, got none")
    mine = share(len(codes), rank(), world_size())
    return gather_rows(unnormalised_log_prob(target, codes[mine], batch_size=batch_size))


def likelihood_and_gain(
    values: Tensor, estimate: AISResult, baseline: Tensor, *, weights: Tensor | None = None
) -> tuple[Likelihood, Likelihood]:
    """The likelihood, see ``log_likelihood``, and its gain over another model on the same points.

    The gain is the mean of l_i - b_i. Its standard error is that of the paired differences: what all models find hard
    about a point cancels.

    Args:
        values: log ref(x) - E(x) of each point, ``(N,)`` float64 nats.
        estimate: log Z.
        baseline: b ``(N,)``, the other model's log-likelihood of each point.
        weights: ``(N,)``; None counts every point once.

    Raises:
        ValueError: another number of weights.
    """
    if weights is not None and len(weights) != len(values):
        raise ValueError(f"weights must be one for each of the {len(values)} points, got {len(weights)}")
    w = torch.ones_like(values) if weights is None else weights.to(values)
    found = []
    for each in (values, values - baseline.to(values)):
        mean, data_stderr = _mean_and_error(each, w)
        found.append(Likelihood(mean - estimate.log_z, estimate.error, data_stderr, len(values)))
    return found[0], found[1]


def _mean_and_error(values: Tensor, w: Tensor) -> tuple[float, float]:
    """The mean of values by their weights, and its standard error."""
    sums = torch.stack(
        [
            w.sum(),
            (w * values).sum(),
            w.square().sum(),
            (w.square() * values).sum(),
            (w.square() * values.square()).sum(),
        ]
    )
    total, first, squares, first2, second2 = sums.tolist()
    mean = first / total
    variance = max(second2 / squares - mean * (2 * first2 / squares - mean), 0.0)
    effective = total**2 / squares  # of points: N where all weights are equal
    return mean, math.sqrt(variance / effective)
