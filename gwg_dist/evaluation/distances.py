"""How far samples are from a distribution: maximum mean discrepancy, and the error of the sites' marginals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROWS_AT_ONCE = 1024


def hamming_kernel_mean(x: Tensor, y: Tensor, *, num_categories: int, scale: float = 1.0) -> float:
    """The mean of k(a, b) = exp(-h(a, b) / (scale D)) over rows a of ``x`` and b of ``y``; h is Hamming's.

    Args:
        x: codes ``(N, D)``.
        y: codes ``(M, D)``.
        num_categories: K.
        scale: length of the kernel, as a share of the sites.
    """
    total = 0.0
    for rows in x.split(ROWS_AT_ONCE):
        agreements = torch.zeros(len(rows), len(y), dtype=torch.float32, device=x.device)
        for category in range(num_categories):
            agreements += (rows == category).float() @ (y == category).float().T
        total += float((-(x.shape[1] - agreements.double()) / (scale * x.shape[1])).exp().sum())
    return total / (len(x) * len(y))


def mmd_squared(x: Tensor, y: Tensor, *, num_categories: int, scale: float = 1.0) -> float:
    """The squared maximum mean discrepancy between two samples, unbiased, so that it may lie below 0.

    E k(x, x') + E k(y, y') - 2 E k(x, y) with k(a, b) = exp(-h(a, b) / (scale D)) and h the Hamming distance, pairs of
    a row with itself left out (Gretton et al., 2012, equation 3; the kernel of Grathwohl et al., 2021).

    Args:
        x: codes ``(N, D)``, independent draws of one distribution.
        y: codes ``(M, D)``, independent draws of the other.
        num_categories: K.
        scale: length of the kernel, as a share of the sites.

    Raises:
        ValueError: fewer than two rows on a side, sides of different sites, a scale that is not positive.
    """
    if min(len(x), len(y)) < 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x and y must hold two rows or more of the same sites, got {tuple(x.shape)}, {tuple(y.shape)}"
        )
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    within = 0.0
    for side in (x, y):
        mean = hamming_kernel_mean(side, side, num_categories=num_categories, scale=scale)
        within += (len(side) * mean - 1) / (len(side) - 1)
    return within - 2 * hamming_kernel_mean(x, y, num_categories=num_categories, scale=scale)


def category_frequencies(codes: Tensor, num_categories: int) -> Tensor:
    """How often each site has each category in codes ``(N, D)``, ``(D, K)`` float64."""
    return torch.stack([(codes == k).double().mean(0) for k in range(num_categories)], 1)


def marginal_rmse(frequencies: Tensor, exact: Tensor) -> float:
    """The root of the mean squared difference between marginals ``(D, K)``, over sites and categories.

    Raises:
        ValueError: different shapes.
    """
    if frequencies.shape != exact.shape:
        raise ValueError(f"marginals must have one shape, got {tuple(frequencies.shape)} and {tuple(exact.shape)}")
    return math.sqrt(float((frequencies.double() - exact.to(frequencies.device).double()).square().mean()))
