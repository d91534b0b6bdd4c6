"""Where the temperatures of an annealed estimate lie: fixed schedules, and one from a pilot run.

A schedule is beta as a function of u = t / T in [0, 1]; T is chosen apart from it.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIXED = ("linear", "sigmoid", "geometric")
ADAPTIVE = "adaptive"
SCHEDULES = (*FIXED, ADAPTIVE)
FIRST = 1e-3
NUM_KNOTS = 64
LEAST_SHARE = 0.1


def beta_schedule(num_temperatures: int, schedule: str = "linear") -> Tensor:
    """beta_0 = 0 < ... < beta_T = 1, ``(T + 1,)`` float64.

    "linear"; "sigmoid", a logistic curve over [-4, 4] scaled to [0, 1], denser at both ends; or "geometric", whose
    1 + beta / .001 grows by the same factor at every step, denser near the reference.

    Raises:
        ValueError: an unknown schedule, one that needs a pilot run, fewer than one temperature.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be positive, got {num_temperatures}")
    if schedule == ADAPTIVE:
        raise ValueError("schedule adaptive is found by a pilot run, see pilot_path")
    check_schedule(schedule)
    u = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)
    if schedule == "linear":
        return u
    if schedule == "sigmoid":
        curve = torch.sigmoid(8 * u - 4)
        return (curve - curve[0]) / (curve[-1] - curve[0])
    betas = FIRST * ((1 + 1 / FIRST) ** u - 1)
    betas[-1] = 1.0
    return betas


def check_schedule(schedule: str) -> None:
    """Raise ValueError for an unknown schedule."""
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")


def through(knots: Tensor, num_temperatures: int) -> Tensor:
    """T + 1 betas ``(T + 1,)`` of a schedule that is linear between its knots, which are equally far apart in u.

    Args:
        knots: beta at u = 0, 1 / n, ..., 1, rising from 0 to 1, ``(n + 1,)``.
        num_temperatures: T.

    Raises:
        ValueError: fewer than one temperature.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be positive, got {num_temperatures}")
    place = torch.linspace(0, len(knots) - 1, num_temperatures + 1, dtype=torch.float64)
    left = place.long().clamp(max=len(knots) - 2)
    betas = knots[left] + (place - left) * (knots[left + 1] - knots[left])
    betas[0], betas[-1] = 0.0, 1.0
    return betas


def friction(f: Tensor) -> Tensor:
    """The summed autocovariance of f along a run of chains, ``(n,)``: zeta_b = sum_s Cov(f_b, f_s).

    Cut into n blocks of temperatures; f is the mean of a block, the covariance is that over chains, so that a mean that
    drifts with beta drops out, and s runs from b both ways as long as the covariance is positive. A small change of
    beta in a block costs zeta times its square in dissipated work (Sivak and Crooks, Physical Review Letters 108,
    2012); for chains that are drawn anew at every temperature zeta is Var(f).

    Args:
        f: -E of every chain, means of blocks, ``(n, N)``.
    """
    centred = f - f.mean(1, keepdim=True)
    covariance = centred @ centred.T / (f.shape[1] - 1)
    total = covariance.diagonal().clone()
    for step in (1, -1):
        for b in range(len(f)):
            s = b + step
            while 0 <= s < len(f) and float(covariance[b, s]) > 0:
                total[b] += covariance[b, s]
                s += step
    return total


def even_knots(betas: Tensor, cost: Tensor, num_knots: int = NUM_KNOTS) -> Tensor:
    """Knots of the schedule on which every step costs the same: d beta / du ∝ 1 / sqrt(cost).

    So temperatures are as dense as the root of the cost: with the variance of f for the cost the conditional effective
    sample size is the same at every step (Zhou, Johansen and Aston, 2016). A tenth of the temperatures is spread
    evenly over beta, in case the pilot run has missed a place.

    Args:
        betas: edges of the blocks, from 0 to 1, ``(n + 1,)``.
        cost: of a change of beta by one, squared, in every block, ``(n,)``, not negative.
        num_knots: number of parts of u.
    """
    density = cost.clamp(min=0).sqrt()
    width = betas.diff()
    total = float((density * width).sum())
    density = torch.ones_like(density) if total <= 0 else (1 - LEAST_SHARE) * density / total + LEAST_SHARE
    u = torch.cat([torch.zeros(1, dtype=torch.float64), (density * width).cumsum(0)])
    u = u / u[-1]
    wanted = torch.linspace(0, 1, num_knots + 1, dtype=torch.float64)
    right = torch.searchsorted(u, wanted).clamp(1, len(u) - 1)
    knots = betas[right - 1] + (wanted - u[right - 1]) / (u[right] - u[right - 1]) * width[right - 1]
    knots[0], knots[-1] = 0.0, 1.0
    return knots
