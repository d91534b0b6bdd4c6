"""log Z from annealing in both directions: Bennett's acceptance ratio (Journal of Computational Physics 22, 1976).

A forward run has the log weight a, a reverse run the log weight b, and -b takes the place of a. Crooks (Physical Review
E 60, 1999): where the kernels are reversible and both starts at equilibrium, log p_F(a) - log p_R(-b = a) = log Z - a.
So telling the two apart is a logistic regression on a of slope 1, whose intercept is log Z.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.error_bars import CONFIDENCE, STANDARD_ERRORS, Interval

BISECTIONS, NEWTON_STEPS = 100, 50


class Bennett(NamedTuple):
    """An estimate of log Z from both directions.

    Args:
        log_z: log Z in nats.
        stderr: its standard error, nats (Shirts et al., Physical Review Letters 91, 2003).
        overlap: how alike the works of both directions are, 0 (not at all, and the error is not to be believed) to 1.
        slope: slope of the free regression: 1 where both starts were at equilibrium and the kernels reversible.
        slope_stderr: standard error of the slope.
        num_systems: of resampled forward runs that the error is from; 0 for none.
    """

    log_z: float
    stderr: float
    overlap: float
    slope: float
    slope_stderr: float
    num_systems: int = 0

    @property
    def interval(self) -> Interval:
        """Between which values log Z lies with a probability of 95 %, nats, where the two directions overlap.

        Of M systems the quantile is that of Student's t with M - 1 degrees of freedom.
        """
        from scipy.special import stdtrit

        half = (1 + CONFIDENCE) / 2
        quantile = float(stdtrit(self.num_systems - 1, half)) if self.num_systems else STANDARD_ERRORS
        return Interval(self.log_z - quantile * self.stderr, self.log_z + quantile * self.stderr)


def bennett(forward: Tensor, reverse: Tensor, *, added: Tensor | None = None, num_systems: int = 0) -> Bennett:
    """Estimate log Z from log weights of forward and of reverse runs along one path of betas.

    log Z solves sum_i s(a_i - log Z + m) = sum_j s(b_j + log Z - m) with s(u) = 1 / (1 + exp(-u)) and
    m = log(N_R / N_F): as many forward runs are taken for reverse ones as the other way round.

    Runs that were resampled on their way stand for r_i = exp(added_i) runs each: with log weight a_i + added_i the mean
    of r_i g(a_i) is that of g over runs that were not. Then the error is from the spread of the sums over systems,
    which are independent, and of the reverse runs: Var(log Z) = (M Var_k(A_k) + N_R Var_j(B_j)) / (A + B)'^2.

    Args:
        forward: a, ``(N_F,)`` nats; their mean exponential is Z in expectation.
        reverse: b, ``(N_R,)`` nats; their mean exponential is 1 / Z in expectation.
        added: what resampling has added to the log weights of forward runs, ``(N_F,)`` nats; None for nothing.
        num_systems: M, of forward runs that were resampled among themselves, one after the other; 0 for none.

    Raises:
        ValueError: fewer than two runs of a direction, weights that are not finite.
    """
    a, b = forward.double().cpu(), reverse.double().cpu()
    for name, values in (("forward", a), ("reverse", b)):
        if values.ndim != 1 or len(values) < 2 or not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} must hold at least two finite log weights, got {tuple(values.shape)}")
    m = math.log(len(b) / len(a))
    r = torch.ones_like(a) if added is None else added.double().cpu().exp()
    log_z = _root(a, b, m, r)
    work, is_forward = torch.cat([a, -b]), torch.cat([torch.ones_like(a), torch.zeros_like(b)])
    num = torch.cat([r, torch.ones_like(b)])
    p = torch.sigmoid(log_z - work - m)  # of being a forward run
    information, without = float((num * p * (1 - p)).sum()), len(work) / (len(a) * len(b))
    variance = 1 / information - without if information else math.inf
    if num_systems and information:
        taken = (r * (1 - p[: len(a)])).view(num_systems, -1).sum(1)
        variance = (num_systems * float(taken.var()) + len(b) * float(p[len(a) :].var())) / information**2
    slope, slope_stderr = _free_slope(work - log_z, is_forward, num)
    overlap = min(information * without, 1.0)
    return Bennett(log_z, math.sqrt(max(variance, 0.0)), overlap, slope, slope_stderr, num_systems)


def _root(a: Tensor, b: Tensor, m: float, r: Tensor) -> float:
    """log Z by bisection: one sum falls with it and the other rises."""
    low, high = float(min(a.min(), -b.max())) - 1, float(max(a.max(), -b.min())) + 1
    most = abs(m) + float(r.log().abs().max())
    low, high = low - most, high + most
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        taken_forward = (r * torch.sigmoid(a - middle + m)).sum()
        taken_reverse = torch.sigmoid(b + middle - m).sum()
        low, high = (middle, high) if taken_forward > taken_reverse else (low, middle)
    return (low + high) / 2


def _free_slope(work: Tensor, is_forward: Tensor, num: Tensor) -> tuple[float, float]:
    """The slope of log odds of being a reverse run on the work, by Newton's method, and its standard error.

    Each work counts ``num`` times.
    """
    design = torch.stack([torch.ones_like(work), -work], 1)
    weight, hessian = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(design @ weight)
        hessian = design.T @ (design * (num * p * (1 - p))[:, None])
        if not bool(torch.linalg.matrix_rank(hessian, hermitian=True) == 2):
            return math.nan, math.nan  # the works are all alike, or do not overlap
        step = torch.linalg.solve(hessian, design.T @ (num * (is_forward - p)))
        weight = weight + step.clamp(-5, 5)
        if float(step.abs().max()) < 1e-10:
            break
    error = torch.linalg.inv(hessian)[1, 1].sqrt()
    return float(weight[1]), float(error)
