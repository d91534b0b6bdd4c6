"""Exact answers by enumeration, for spaces of up to 2^22 points."""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.evaluation.scores import points_at_once
from gwg_dist.target import Target


def exact_log_prob(target: Target, *, beta: float = 1.0, batch_size: int = 4096) -> tuple[Tensor, Tensor]:
    """``(log_prob, log_z)``: log p_beta of every point in the order of ``space.all_codes()``, and log Z, 0-d.

    Z = sum_x ref(x) exp(-beta E(x)) with a normalised reference (uniform where the target has none). The sum is taken
    in float64, the energies in the dtype of the model.

    Raises:
        ValueError: where there are too many points.
    """
    log_prob = unnormalised_log_prob(target, target.space.all_codes(), beta=beta, batch_size=batch_size)
    log_z = torch.logsumexp(log_prob, 0)
    return log_prob - log_z, log_z


def exact_log_z(target: Target, *, beta: float = 1.0) -> float:
    """log Z of p_beta in nats; see ``exact_log_prob``."""
    return float(exact_log_prob(target, beta=beta)[1])


def unnormalised_log_prob(target: Target, codes: Tensor, *, beta: float = 1.0, batch_size: int = 4096) -> Tensor:
    """log ref(x) - beta E(x) of codes ``(N, D)``, ``(N,)`` float64 nats on the device of ``codes``.

    Fewer points than ``batch_size`` at once where a point has many numbers.
    """
    parts = []
    for batch in codes.split(min(batch_size, points_at_once(target))):
        x = target.encode(batch)
        parts.append(target.log_prob(x, target.f(x), beta).double())
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)
