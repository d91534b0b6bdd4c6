"""What a model says of given points, and of every change of one site of a point."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.reference import Reference
from gwg_dist.target import Target

NUMBERS_AT_ONCE, MOST_AT_ONCE = 2**24, 4096  # floats of points, and points, that are evaluated together


class PointScores(NamedTuple):
    """Each ``(N,)`` float64 nats on the CPU.

    Args:
        energies: E(x).
        log_reference: log ref(x), normalised.
    """

    energies: Tensor
    log_reference: Tensor

    @property
    def unnormalised(self) -> Tensor:
        """log ref(x) - E(x) = log p(x) + log Z."""
        return self.log_reference - self.energies


def score_points(target: Target, codes: Tensor) -> PointScores:
    """E(x) and log ref(x) of points, in batches; energies in the dtype of the model, sums over sites in float64.

    Args:
        target: the model.
        codes: ``(N, D)`` integers 0..K-1.

    Raises:
        ValueError: codes of another shape, or outside 0..K-1.
    """
    target.space.check_codes(codes)
    batch = points_at_once(target)
    energies = [
        -target.f(target.encode(part.to(target.device))).double().cpu() for part in codes.split(batch) if len(part)
    ]
    return PointScores(torch.cat(energies) if energies else torch.empty(0).double(), log_reference(target, codes))


def single_site_changes(target: Target, code: Tensor) -> Tensor:
    """log p(x') - log p(x) for every x' that differs from x at one site, ``(D, K)`` float64 nats.

    With x' = x but x'_i = k it is E(x) - E(x') + log ref_i(k) - log ref_i(x_i), 0 where k = x_i, and -inf where site i
    has no category k. log Z cancels.

    Args:
        target: the model.
        code: x, ``(D,)`` integers 0..K-1.

    Raises:
        ValueError: a code of another shape, or outside 0..K-1.
    """
    space, x = target.space, code[None].cpu()
    space.check_codes(x)
    changes = torch.full((space.num_sites, space.num_categories), -torch.inf, dtype=torch.float64)
    here = score_points(target, x).unnormalised
    there = (space.uniform_probabilities() > 0).nonzero()
    for site, category in (part.T for part in there.split(points_at_once(target))):
        changed = x.repeat(len(site), 1).scatter_(1, site[:, None], category[:, None].to(x.dtype))
        changes[site, category] = score_points(target, changed).unnormalised - here
    return changes.scatter(1, x[0].long()[:, None], 0.0)


def log_reference(target: Target, codes: Tensor) -> Tensor:
    """log ref(x), normalised, ``(N,)`` float64 on the CPU; the uniform distribution where the target has none."""
    reference = target.reference or Reference(target.space)
    log_probs = reference.probs.log().cpu()
    site = torch.arange(target.space.num_sites)
    return torch.cat([log_probs[site, part.cpu().long()].sum(1) for part in codes.split(2**16)])


def points_at_once(target: Target) -> int:
    """How many points are evaluated together: 2^24 numbers, 4,096 points, and on a CPU what the energy asks for."""
    most = getattr(target.energy, "cpu_chains_at_once", MOST_AT_ONCE) if target.device.type == "cpu" else MOST_AT_ONCE
    fitting = NUMBERS_AT_ONCE // (target.space.num_sites * target.space.width)
    return max(min(fitting, most, MOST_AT_ONCE), 1)
