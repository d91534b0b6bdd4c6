"""Pseudo-likelihood: every site given all others, so that log Z cancels and no chain is needed.

Not implemented: blocks of several sites (composite likelihood), penalties on the couplings.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gwg_dist.batch import Batch
from gwg_dist.objectives.base import Objective, ObjectiveResult
from gwg_dist.spaces import Change
from gwg_dist.structure import offered
from gwg_dist.target import Target
from gwg_dist.tools.errors import InputError


class PseudoLikelihood(Objective):
    """L = -mean_w sum_i log p(x_i | x_-i) in nats, exact conditionals of the model with its reference.

    With x[i -> k] the point x whose site i is set to category k,

        log p(x_i | x_-i) = -log sum_k exp(log p(x[i -> k]) - log p(x)),

    a sum over K terms of which one is 1: K - 1 energy evaluations a site. All of them together cost one product where
    the energy is linear in each site (models of pairs, see ``Energy``) and all sites are taken. Where the model can be
    the distribution of the data, it is so at the minimum of the mean of L (Besag, "Statistical analysis of non-lattice
    data", The Statistician 24, 1975). L is no likelihood and does not compare with one.

    Args:
        num_sites: sites a point, drawn anew without replacement in every call; the sum over them is multiplied by
            D / num_sites, so the loss is unbiased. 0 takes all D sites.
        points_at_once: energy evaluations that are held in memory together. Where the batch needs more, it is taken in
            parts, whose activations are made a second time in the backward pass.

    Raises:
        ValueError: a negative num_sites, points_at_once below 1.
    """

    needs_chains: ClassVar[bool] = False

    def __init__(self, *, num_sites: int = 0, points_at_once: int = 8192) -> None:
        if num_sites < 0:
            raise ValueError(f"num_sites must not be negative, got {num_sites}")
        if points_at_once < 1:
            raise ValueError(f"points_at_once must be positive, got {points_at_once}")
        self.num_sites = num_sites
        self.points_at_once = points_at_once

    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        """Raises InputError where num_sites is more than the space has."""
        del x_model
        x = target.encode(batch.codes)
        if self.num_sites == 0 and offered(target.energy, "site_slopes"):
            with torch.no_grad():
                energy = target.energy(x)
            log_p = log_conditionals_of_slopes(target, x)
            return ObjectiveResult(-(batch.weights.to(x.dtype) * log_p).mean(), energy)
        sites = self._sites(len(x), target.space.num_sites, generator)
        energy = target.energy(x)
        log_p = x.new_zeros(len(x))
        parts = sites.split(max(self.points_at_once // (len(x) * (target.space.num_categories - 1)), 1), dim=1)
        for part in parts:
            if len(parts) == 1:
                log_p = log_p + log_conditionals(target, x, energy, part)
            else:
                log_p = log_p + checkpoint(log_conditionals, target, x, energy, part, use_reentrant=False)
        scale = target.space.num_sites / sites.shape[1]
        loss = -scale * (batch.weights.to(x.dtype) * log_p).mean()
        return ObjectiveResult(loss, energy.detach())

    def _sites(self, num: int, num_sites: int, generator: torch.Generator) -> Tensor:
        """The sites of each point, ``(num, n)`` int64."""
        if self.num_sites > num_sites:
            raise InputError(f"num_sites must be at most the {num_sites} sites of the space, got {self.num_sites}")
        if self.num_sites == 0:
            return torch.arange(num_sites, device=generator.device).expand(num, -1)
        order = torch.rand(num, num_sites, generator=generator, device=generator.device).argsort(1)
        return order[:, : self.num_sites]


def log_conditionals_of_slopes(target: Target, x: Tensor) -> Tensor:
    """sum_i log p(x_i | x_-i) over all sites, ``(B,)`` nats, of an energy that is linear in each site."""
    slopes = target.energy.site_slopes(x)  # pyright: ignore[reportFunctionMemberAccess]
    if target.reference is not None:
        slopes = slopes + target.reference.weights
    d = target.space.site_differences(x, slopes)
    others = functional.softplus(d) if d.ndim == 2 else d.logsumexp(2)
    return -others.sum(1)


def log_conditionals(target: Target, x: Tensor, energy: Tensor, sites: Tensor) -> Tensor:
    """sum_i log p(x_i | x_-i) over the sites ``(B, n)`` of each point, ``(B,)`` nats.

    Args:
        x: points, ``(B, D)`` or ``(B, D, K)``.
        energy: E(x), ``(B,)``.
        sites: one site for each point, int64.
    """
    space, num_others = target.space, target.space.num_categories - 1
    old = torch.stack([target.space.category_at(x, site) for site in sites.T], 1)
    steps = torch.arange(1, num_others + 1, device=x.device)
    new = space.shifted(sites[..., None], old[..., None], steps)
    each_site, each_old = (field[..., None].expand_as(new).flatten() for field in (sites, old))
    change = Change(each_site, each_old, new.flatten())
    repeats = sites.shape[1] * num_others
    energy_new = target.energy(target.space.apply(x.repeat_interleave(repeats, 0), change))
    one = torch.ones((), dtype=x.dtype, device=x.device)
    log_ratio = target.log_ratio_of(change, -energy_new, -energy.repeat_interleave(repeats), beta=one)
    log_ratio = log_ratio.unflatten(0, (*sites.shape, num_others))
    others = log_ratio.masked_fill(~space.are_distinct(sites[..., None], steps), -torch.inf).logsumexp(-1)
    return -torch.logaddexp(torch.zeros_like(others), others).sum(1)
