"""log Z at every rung of a ladder of betas from points of all rungs: the multistate Bennett acceptance ratio.

Shirts and Chodera, "Statistically optimal analysis of samples from multiple equilibrium states", Journal of Chemical
Physics 129, 2008. With two rungs it is Bennett's ratio. Points of a rung must be at equilibrium there; where they are
correlated the error is too small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.bennett import bennett

MAX_ITERATIONS, CONVERGED = 200, 1e-12
NEAR = 1e-9  # of all points, by which rungs may have too many or too few
DEGENERATE = 1e-12  # eigenvalues, relative to the largest, that are rounding


class MBARResult(NamedTuple):
    """log Z along a ladder.

    Args:
        log_z: log Z of every rung relative to the first, ``(K,)`` float64 nats; the first is 0.
        stderr: standard errors, ``(K,)``; the first is 0. NaN where the iteration has not converged.
    """

    log_z: Tensor
    stderr: Tensor


def mbar(f: Sequence[Tensor], betas: Tensor) -> MBARResult:
    """log Z of p_beta ∝ ref(x) exp(beta f(x)) at every rung, from f of points of each.

    With N_k points of rung k, log Z_k = log sum_n exp(beta_k f_n) / sum_j N_j exp(beta_j f_n - log Z_j) over the points
    of all rungs (equation 11). The fixed point is sought from Bennett's ratios of neighbours. The covariance is
    equation 8, by the eigenvectors of W^T W, where W_nk is the weight of point n in rung k.

    Args:
        f: f = -E of the points of each rung, ``(N_k,)`` nats; K of them, none empty.
        betas: beta of each rung, ``(K,)``.

    Raises:
        ValueError: fewer than two rungs, another number of betas, an empty rung, values that are not finite.
    """
    counts = torch.tensor([len(values) for values in f], dtype=torch.float64)
    if len(f) < 2 or len(f) != len(betas):
        raise ValueError(f"mbar needs points of at least two rungs and a beta for each, got {len(f)} and {len(betas)}")
    if not bool((counts > 0).all()):
        raise ValueError(f"every rung needs points, got {[int(count) for count in counts]}")
    values = torch.cat([each.double().cpu() for each in f])
    if not bool(torch.isfinite(values).all()):
        raise ValueError("f must be finite")
    exponents = betas.double().cpu() * values[:, None]  # (N, K)
    steps = betas.double().cpu().diff()
    ratios = [bennett(step * a, -step * b).log_z for (a, b), step in zip(pairwise(f), steps, strict=True)]
    guess = torch.tensor([0.0, *ratios], dtype=torch.float64).cumsum(0)
    log_z, converged = _solve(exponents, counts, guess)
    weights = _weights(exponents, log_z, counts)
    return MBARResult(log_z, _errors(weights, counts) if converged else torch.full_like(log_z, math.nan))


def _solve(exponents: Tensor, counts: Tensor, log_z: Tensor) -> tuple[Tensor, bool]:
    """log Z of all rungs from a guess, and whether they are a fixed point.

    Equation 11 never raises the convex function F = sum_n log sum_k N_k exp(beta_k f_n - log Z_k) + sum_k N_k log Z_k,
    whose minimum is the fixed point. Newton's step on F is taken where it does not raise F and comes closer.
    """
    rounding = CONVERGED * max(1.0, float(exponents.abs().max()))
    value, shares = _value(exponents, log_z, counts), counts * _weights(exponents, log_z, counts)
    for _ in range(MAX_ITERATIONS):
        sums = shares.sum(0)
        hessian = (sums.diag() - shares.T @ shares)[1:, 1:]
        newton = torch.linalg.pinv(hessian, rtol=DEGENERATE, hermitian=True) @ (sums - counts)[1:]
        new = (exponents - (exponents - log_z + counts.log()).logsumexp(1, keepdim=True)).logsumexp(0)
        new, other = new - new[0], log_z + torch.cat([newton.new_zeros(1), newton])
        tried = [new, other] if _value(exponents, other, counts) <= value + abs(value) * CONVERGED else [new]
        points = [(each, counts * _weights(exponents, each, counts)) for each in tried]
        old = log_z
        log_z, shares = min(points, key=lambda point: float((point[1].sum(0) - counts).abs().max()))
        value = _value(exponents, log_z, counts)
        near = (shares.sum(0) - counts).abs().max() < NEAR * counts.sum()
        if near and float((log_z - old).abs().max()) < rounding:
            return log_z, True
    return log_z, False


def _value(exponents: Tensor, log_z: Tensor, counts: Tensor) -> float:
    """F."""
    return float((exponents - log_z + counts.log()).logsumexp(1).sum() + counts @ log_z)


def _weights(exponents: Tensor, log_z: Tensor, counts: Tensor) -> Tensor:
    """W ``(N, K)``, the weight of every point in every rung."""
    reduced = exponents - log_z
    return (reduced - (reduced + counts.log()).logsumexp(1, keepdim=True)).exp()


def _errors(weights: Tensor, counts: Tensor) -> Tensor:
    """Standard errors of log Z_k - log Z_0 from W ``(N, K)`` and the numbers of points ``(K,)``."""
    eigenvalues, vectors = torch.linalg.eigh(weights.T @ weights)
    kept = eigenvalues > DEGENERATE * eigenvalues.max()
    root = vectors[:, kept] * eigenvalues[kept].sqrt()  # V Sigma
    inner = torch.eye(int(kept.sum()), dtype=torch.float64) - root.T @ (counts[:, None] * root)
    # The middle matrix of equation 8 has the null space of (1, ..., 1) alone, which differences do not see.
    theta = root @ torch.linalg.pinv(inner, rtol=1e-10, hermitian=True) @ root.T
    variance = theta.diagonal() - 2 * theta[0] + theta[0, 0]
    return variance.clamp_min(0).sqrt()
