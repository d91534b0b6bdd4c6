"""How well couplings of spins can be known from a number of samples: Fisher information and the Cramér-Rao bound."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def coupling_bound(codes: Tensor, num: int, *, known: Tensor | None = None) -> float:
    """The least RMSE over all D² entries of J that an unbiased estimate can have, from ``num`` samples.

    p(x) ∝ exp(s^T J s) with s = 2x - 1 counts every pair twice, so the information on the pairs is

        I_(ij),(kl) = 4 num Cov[s_i s_j, s_k s_l]

    (Cramér, 1946; Rao, 1945), and the RMSE is sqrt(2 tr I^-1 / D²). The covariance is taken from samples of the model.
    Its inverse, of M of them and P pairs, is (M - 1) / (M - P - 2) times too large on average where products are normal
    (Haff, 1979), which is taken off. A penalised estimate is biased and may go below: where most couplings are 0, an l1
    penalty does.

    Args:
        codes: samples of the true model, ``(M, D)`` 0 or 1; M above P + 2.
        num: samples that J is learnt from.
        known: ``(D, D)``, non-zero where a coupling is unknown; the others are known to be 0. None where none is known.

    Raises:
        ValueError: too few samples for so many pairs.
    """
    spins = 2 * codes.float() - 1
    first, second = torch.triu_indices(spins.shape[1], spins.shape[1], 1)
    if known is not None:
        unknown = known[first, second] != 0
        first, second = first[unknown], second[unknown]
    count, pairs = len(spins), len(first)
    if count <= pairs + 2:
        raise ValueError(f"the covariance of {pairs} pairs needs more than {pairs + 2} samples, got {count}")
    mean, square = torch.zeros(pairs), torch.zeros(pairs, pairs)
    for part in spins.split(4096):
        products = part[:, first] * part[:, second]
        mean += products.sum(0)
        square.addmm_(products.T, products)  # whole numbers: exact in float32 up to 2^24 samples
    mean = mean.double() / count
    covariance = (square.double() - count * torch.outer(mean, mean)) / (count - 1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance)) * (count - pairs - 2) / (count - 1)
    return math.sqrt(2 * float(inverse.diagonal().sum()) / (4 * num)) / spins.shape[1]
