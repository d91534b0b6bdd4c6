"""log Z at every rung of a ladder of betas from points of all rungs: the multistate Bennett acceptance ratio.

Shirts and Chodera, "Statistically optimal analysis of samples from multiple equilibrium states", Journal of Chemical
Physics 129, 2008. With two rungs it is Bennett's ratio. Points of a rung must be at equilibrium there; where they are
correlated the error is too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MAX_ITERATIONS, CONVERGED = 10_000, 1e-10
DEGENERATE = 1e-12  # eigenvalues, relative to the largest, that are rounding


class MBARResult(NamedTuple):
    """log Z along a ladder.

    Args:
        log_z: log Z of every rung relative to the first, ``(K,)`` float64 nats; the first is 0.
        stderr: standard errors, ``(K,)``; the first is 0.
    """

    log_z: Tensor
    stderr: Tensor


def mbar(f: Sequence[Tensor], betas: Tensor) -> MBARResult:
    """log Z of p_beta ∝ ref(x) exp(beta f(x)) at every rung, from f of points of each.

    With N_k points of rung k, log Z_k = log sum_n exp(beta_k f_n) / sum_j N_j exp(beta_j f_n - log Z_j) over the points
    of all rungs (equation 11), iterated to its fixed point. The covariance is equation 8, by the eigenvectors of W^T W,
    where W_nk is the weight of point n in rung k.

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
    log_z = torch.zeros(len(f), dtype=torch.float64)
    for _ in range(MAX_ITERATIONS):
        mixture = (exponents - log_z + counts.log()).logsumexp(1, keepdim=True)
        new = (exponents - mixture).logsumexp(0)
        new, old = new - new[0], log_z
        log_z = new
        if float((new - old).abs().max()) < CONVERGED:
            break
    weights = (exponents - log_z - (exponents - log_z + counts.log()).logsumexp(1, keepdim=True)).exp()
    return MBARResult(log_z, _errors(weights, counts))


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
