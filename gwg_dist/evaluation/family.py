"""How samples of a model of a family compare with its members: statistics, nearest neighbours, principal axes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.statistics import (
    Agreement,
    agreement,
    pair_statistics,
    three_site_moments,
    triple_sites,
)

NUM_TRIPLES = 300
NUM_NEAREST = 1000  # points whose nearest neighbour is looked for
NUM_AXES_FROM = 1000  # points that principal axes are found from
ROWS_AT_ONCE = 256


class Statistics(NamedTuple):
    """The same statistics of data and of samples, each side flat and float64."""

    data: Tensor
    samples: Tensor

    @property
    def agreement(self) -> Agreement:
        return agreement(self.data, self.samples)


class FamilyComparison(NamedTuple):
    """Samples beside the members of a family.

    Args:
        one: frequencies f_i(a).
        two: connected correlations C_ij(a, b) of all pairs.
        three: connected moments C_ijk(a, b, c) of at most 300 triples of sites.
        held_out: Pearson of the connected correlations with those of the points held out; nan where there are none.
        nearest_samples: share of the sites at which a sample differs from its nearest training point, ``(n,)``.
        nearest_held_out: the same of the points held out, ``(m,)``.
        axes_train: training points along the first two principal axes of theirs, ``(N, 2)``.
        axes_samples: samples along the same axes, ``(M, 2)``.
    """

    one: Statistics
    two: Statistics
    three: Statistics | None
    held_out: float
    nearest_samples: Tensor
    nearest_held_out: Tensor
    axes_train: Tensor
    axes_samples: Tensor


def compare_family(
    train: Tensor, samples: Tensor, held_out: Tensor, num_categories: int, *, weights: Tensor | None = None
) -> FamilyComparison:
    """Compare samples with the points that a model was trained on, and with others of the same family.

    Args:
        train: training points, codes ``(N, D)``.
        samples: samples of the model, codes ``(M, D)``.
        held_out: points that were held out, codes ``(H, D)``.
        num_categories: K.
        weights: weights of the training points ``(N,)``; they count in the statistics and for the axes.

    Raises:
        ValueError: no training points or no samples.
    """
    of_train, of_samples = pair_statistics(train, num_categories, weights), pair_statistics(samples, num_categories)
    two = Statistics(of_train.connected().flatten(), of_samples.connected().flatten())
    three, other = None, float("nan")
    if train.shape[1] >= 3:
        sites = triple_sites(train.shape[1], NUM_TRIPLES)
        three = Statistics(
            three_site_moments(train, num_categories, sites, weights).flatten(),
            three_site_moments(samples, num_categories, sites).flatten(),
        )
    if len(held_out):
        other = agreement(pair_statistics(held_out, num_categories).connected().flatten(), two.samples).pearson
    mean, axes = principal_axes(train, num_categories, weights)
    return FamilyComparison(
        Statistics(of_train.single.flatten(), of_samples.single.flatten()),
        two,
        three,
        other,
        nearest_hamming(samples[:NUM_NEAREST], train, num_categories) / train.shape[1],
        nearest_hamming(held_out[:NUM_NEAREST], train, num_categories) / train.shape[1],
        along(train, mean, axes),
        along(samples, mean, axes),
    )


def nearest_hamming(points: Tensor, others: Tensor, num_categories: int) -> Tensor:
    """The number of sites at which each of ``points`` ``(N, D)`` differs from the nearest of ``others`` ``(M, D)``."""
    found = [torch.zeros(0)]
    for rows in points.split(ROWS_AT_ONCE):
        same = torch.zeros(len(rows), len(others), device=rows.device)
        for category in range(num_categories):
            same += (rows == category).float() @ (others == category).float().T
        found.append((points.shape[1] - same.amax(1)).cpu())
    return torch.cat(found)


def principal_axes(codes: Tensor, num_categories: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean ``(D K,)`` and the two directions ``(D K, 2)`` in which one-hot points vary most, float64.

    Of at most 1,000 points, evenly spread over ``codes``. A direction's largest entry is positive.
    """
    step = -(-len(codes) // NUM_AXES_FROM)
    x = _one_hot(codes[::step], num_categories)
    share = torch.ones(len(x), dtype=torch.float64) if weights is None else weights[::step].double()
    share = share / share.sum()
    mean = share @ x
    scaled = (x - mean) * share.sqrt()[:, None]
    vectors = torch.linalg.eigh(scaled @ scaled.T).eigenvectors[:, -2:].flip(1)
    axes = torch.nn.functional.normalize(scaled.T @ vectors, dim=0)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return mean, axes * torch.where(largest < 0, -1.0, 1.0)


def along(codes: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """Where points lie along axes, ``(N, 2)``."""
    num_categories = len(mean) // codes.shape[1]
    return torch.cat([(_one_hot(part, num_categories) - mean) @ axes for part in codes.split(ROWS_AT_ONCE)])


def _one_hot(codes: Tensor, num_categories: int) -> Tensor:
    return torch.nn.functional.one_hot(codes.long().cpu(), num_categories).flatten(1).double()
