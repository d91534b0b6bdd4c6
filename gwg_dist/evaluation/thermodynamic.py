"""log Z by thermodynamic integration (Kirkwood, 1935): log Z = int_0^1 <f>_beta dbeta, with f = -E.

<f>_beta does not fall with beta, for its slope is the variance of f. So sums from the left and from the right enclose
the integral, if every rung is at equilibrium.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Integral(NamedTuple):
    """An estimate of log Z.

    Args:
        log_z: by the trapezoidal rule, nats.
        stderr: its standard error, from that of every mean, nats.
        low: sum from the left, sum_k (beta_k+1 - beta_k) <f>_k.
        high: sum from the right, sum_k (beta_k+1 - beta_k) <f>_k+1.
        num_falls: neighbours of which <f> falls by more than three standard errors: not at equilibrium.
    """

    log_z: float
    stderr: float
    low: float
    high: float
    num_falls: int


def thermodynamic_integral(betas: Tensor, means: Tensor, errors: Tensor) -> Integral:
    """Integrate <f> over rungs, whose means are taken for independent.

    Args:
        betas: rising, ``(K,)``; 0 to 1 for log Z.
        means: mean of f at each, ``(K,)`` nats.
        errors: their standard errors, ``(K,)``.

    Raises:
        ValueError: fewer than two rungs, shapes that differ, betas that do not rise.
    """
    if len(betas) < 2 or betas.shape != means.shape or betas.shape != errors.shape:
        raise ValueError(
            f"betas, means and errors must have one shape (K,), K at least 2, got {tuple(betas.shape)}, "
            f"{tuple(means.shape)}, {tuple(errors.shape)}"
        )
    steps = betas.double().diff()
    if not bool((steps > 0).all()):
        raise ValueError(f"betas must rise, got {betas.tolist()}")
    means, errors = means.double(), errors.double()
    low, high = float(steps @ means[:-1]), float(steps @ means[1:])
    weight = means.new_zeros(len(means))
    weight[:-1] += steps / 2
    weight[1:] += steps / 2
    falls = means.diff() < -3 * (errors[:-1].square() + errors[1:].square()).sqrt()
    return Integral((low + high) / 2, math.sqrt(float((weight * errors).square().sum())), low, high, int(falls.sum()))
