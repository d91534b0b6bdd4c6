"""Gibbs sampling one site a step (Geman and Geman, 1984).

Not implemented: closed-form conditionals. Blocks of sites: see block_gibbs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.draws import inverse_cdf
from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.spaces import Change
from gwg_dist.target import Target

SCANS = ("random", "systematic")


class GibbsState(NamedTuple):
    """``position`` ``(B,)`` int64: the site that a systematic scan takes next, -1 before it has begun."""

    x: Tensor
    f: Tensor
    position: Tensor
    beta: Tensor


class GibbsNoise(NamedTuple):
    """``site`` ``(B,)`` int64, ``category`` ``(B,)`` float64, uniform in [0, 1)."""

    site: Tensor
    category: Tensor


@dataclass(frozen=True)
class Gibbs(Sampler):
    """Draws one site from its conditional p_beta(x_i | the rest); a step costs K - 1 evaluations without a gradient.

    Args:
        scan: "random" picks an independent site each step; "systematic" visits the sites in order, each chain from
            a random first site, so that a run shorter than D steps favours no site.

    Raises:
        ValueError: another scan.
    """

    scan: str = "random"

    def __post_init__(self) -> None:
        if self.scan not in SCANS:
            raise ValueError(f"scan must be one of {', '.join(SCANS)}, got {self.scan!r}")

    def init(self, target: Target, x: Tensor, beta: Tensor) -> GibbsState:
        return GibbsState(x, target.f(x), torch.full((len(x),), -1, device=x.device), beta)

    def temper(self, target: Target, state: GibbsState, beta: Tensor) -> GibbsState:
        return state._replace(beta=beta)

    def draw(self, state: GibbsState, generator: torch.Generator) -> GibbsNoise:
        num, device = len(state.x), state.x.device
        site = torch.randint(state.x.shape[1], (num,), generator=generator, device=device)
        return GibbsNoise(site, torch.rand(num, generator=generator, device=device, dtype=torch.float64))

    def refresh(self, target: Target, state: GibbsState) -> GibbsState:
        return self.init(target, state.x, state.beta)._replace(position=state.position)

    def step(self, target: Target, state: GibbsState, noise: GibbsNoise) -> tuple[GibbsState, Info]:
        space = target.space
        begun = (state.position >= 0) & (self.scan == "systematic")
        site = torch.where(begun, state.position, noise.site)

        log_p, f_all = self.log_conditional(target, state, site)
        shift = inverse_cdf(log_p.exp(), noise.category)
        old = space.category_at(state.x, site)
        x = space.apply(state.x, Change(site, old, space.shifted(site, old, shift)))
        f = f_all.gather(1, shift[:, None])[:, 0]
        hops = (shift > 0).to(f.dtype)
        return GibbsState(x, f, (site + 1) % space.num_sites, state.beta), Info(torch.ones_like(f), hops)

    def log_conditional(self, target: Target, state: GibbsState, site: Tensor) -> tuple[Tensor, Tensor]:
        """log p_beta(x_i = current + k mod K_i | the rest) at one site per chain, and f there, each ``(B, K)``.

        -inf from k = K_i on, where categories come again.
        """
        space = target.space
        others = space.num_categories - 1
        old = space.category_at(state.x, site).repeat_interleave(others)
        shift = torch.arange(1, others + 1, device=site.device).repeat(len(site))
        sites = site.repeat_interleave(others)
        change = Change(sites, old, space.shifted(sites, old, shift))
        x = state.x.repeat_interleave(others, 0)
        f = state.f.repeat_interleave(others)
        x_new = space.apply(x, change)
        f_new = target.f(x_new)
        beta = state.beta if state.beta.ndim == 0 else state.beta.repeat_interleave(others)
        log_ratio = target.log_ratio(x_new, f_new, x, f, beta=beta)
        log_ratio = log_ratio.masked_fill(~space.are_distinct(sites, shift), -torch.inf).unflatten(0, (-1, others))
        stay = torch.zeros_like(state.f)[:, None]
        log_ratio = log_ratio.nan_to_num(nan=-torch.inf, neginf=-torch.inf)  # what is not a number is not drawn
        log_p = torch.log_softmax(torch.cat([stay, log_ratio], 1), 1)
        return log_p, torch.cat([state.f[:, None], f_new.unflatten(0, (-1, others))], 1)
