"""Gibbs sampling of a small block of sites at once, by enumeration of its K^block joint states.

Not implemented: closed forms of the conditional of a block; each joint state is an evaluation of f.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.draws import inverse_cdf, softmax
from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.samplers.gibbs import SCANS, GibbsState
from gwg_dist.target import Target

MAX_STATES = 4096
MAX_NUMBERS = 2**24  # of points that are evaluated at once: 64 MiB in float32


class BlockNoise(NamedTuple):
    """Uniform float64 numbers in [0, 1).

    Args:
        order: ``(B, D)``; the sites with the smallest are the block. The first starts a systematic scan.
        state: ``(B,)``, which joint state the block takes.
    """

    order: Tensor
    state: Tensor


@dataclass(frozen=True)
class EnumeratedGibbs(Sampler):
    """Draws the joint state of a block of sites from p_beta(x_block | the rest).

    Needs no gradient and refuses nothing. A step costs K^block evaluations of f, in parts of at most 2^24 numbers.

    Args:
        block: number of sites; K^block is at most 4,096, so 12 binary sites.
        scan: "random" takes any sites, anew for every chain and step; "systematic" takes neighbours in the order of
            the sites, block after block, each chain from a random first one.

    Raises:
        ValueError: a block outside 1..12, another scan; at the start of a run, a block of more sites than there are,
            or of more than 4,096 joint states.
    """

    block: int = 4
    scan: str = "random"

    # Of the class, and no field.
    in_parts = True

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 12:
            raise ValueError(f"block must lie in 1..12, got {self.block}")
        if self.scan not in SCANS:
            raise ValueError(f"scan must be one of {', '.join(SCANS)}, got {self.scan!r}")

    def refusal(self, target: Target) -> str | None:
        space, states = target.space, target.space.num_categories**self.block
        if self.block > space.num_sites:
            return f"block must be at most the {space.num_sites} sites, got {self.block}"
        if states > MAX_STATES:
            return f"block must have at most {MAX_STATES:,} joint states, got {states:,} of {self.block} sites"
        return None

    def init(self, target: Target, x: Tensor, beta: Tensor) -> GibbsState:
        return GibbsState(x, target.f(x), torch.full((len(x),), -1, device=x.device), beta)

    def temper(self, target: Target, state: GibbsState, beta: Tensor) -> GibbsState:
        return state._replace(beta=beta)

    def refresh(self, target: Target, state: GibbsState) -> GibbsState:
        return self.init(target, state.x, state.beta)._replace(position=state.position)

    def draw(self, state: GibbsState, generator: torch.Generator) -> BlockNoise:
        num, num_sites = state.x.shape[:2]
        size = (num, 1 + num_sites)
        uniform = torch.rand(size, generator=generator, device=state.x.device, dtype=torch.float64)
        return BlockNoise(uniform[:, 1:], uniform[:, 0])

    def step(self, target: Target, state: GibbsState, noise: BlockNoise) -> tuple[GibbsState, Info]:
        sites = self.sites(state, noise)
        categories = target.space.decode(state.x).long().gather(1, sites)
        shifts = all_shifts(target.space.num_categories, self.block, sites.device)
        x, f = draw_around(target, state, Block(sites, categories), shifts, noise.state)
        position = (sites[:, 0] + self.block) % target.space.num_sites
        hops = target.space.hamming(x, state.x)
        return GibbsState(x, f, position, state.beta), Info(torch.ones_like(hops), hops)

    def sites(self, state: GibbsState, noise: BlockNoise) -> Tensor:
        """The sites of each chain's block, ``(B, block)`` int64."""
        if self.scan == "random":
            return noise.order.topk(self.block, 1, largest=False).indices
        num_sites = noise.order.shape[1]
        first = torch.where(state.position < 0, (noise.order[:, 0] * num_sites).long(), state.position)
        return (first[:, None] + torch.arange(self.block, device=first.device)) % num_sites


class Block(NamedTuple):
    """Some sites of every chain, ``(B, n)`` int64, and categories for them, ``(B, n)`` int64."""

    sites: Tensor
    categories: Tensor

    def rows(self, rows: Tensor | slice) -> Block:
        return Block(self.sites[rows], self.categories[rows])

    def shifted(self, target: Target, shifts: Tensor) -> Tensor:
        """Other categories, ``(B, n)``, from shifts ``(B, n)``."""
        return target.space.shifted(self.sites, self.categories, shifts)


class Chains(NamedTuple):
    """Points, f there ``(B,)``, and beta, 0-d or ``(B,)``: what a conditional needs of a state."""

    x: Tensor
    f: Tensor
    beta: Tensor

    def rows(self, rows: Tensor | slice) -> Chains:
        return Chains(self.x[rows], self.f[rows], self.beta if self.beta.ndim == 0 else self.beta[rows])


def all_shifts(num_categories: int, num_sites: int, device: torch.device) -> Tensor:
    """Every tuple of numbers in 0..K-1, ``(K^n, n)`` int64."""
    place = num_categories ** torch.arange(num_sites, device=device)
    return (torch.arange(num_categories**num_sites, device=device)[:, None] // place) % num_categories


def draw_around(
    target: Target, state: Chains | GibbsState, block: Block, shifts: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """x and f after a draw from p_beta, restricted to the points with shifted categories at the block's sites.

    Chains go in groups, so that no array grows with their number times that of the joint states.

    Args:
        target: what p_beta is of.
        state: the chains, with x, f and beta.
        block: sites, and the categories that are shifted.
        shifts: ``(S, n)`` int64, what is added to the categories, modulo the sizes of the sites; no point comes twice,
            because shifts from a site's size on have probability zero.
        uniform: ``(B,)`` float64 in [0, 1).
    """
    chains, drawn = Chains(state.x, state.f, state.beta), []
    at_once = max(MAX_NUMBERS // (len(shifts) * chains.x[0].numel()), 1)
    for start in range(0, len(chains.x), at_once):
        group = slice(start, start + at_once)
        here, inside = chains.rows(group), block.rows(group)
        log_p, f = log_conditional(target, here, inside, shifts)
        index = inverse_cdf(softmax(log_p).weights, uniform[group])
        x = target.space.set_sites(here.x, inside.sites, inside.shifted(target, shifts[index]))
        drawn.append((x, f.gather(1, index[:, None])[:, 0]))
    x, f = zip(*drawn, strict=True)
    return torch.cat(x), torch.cat(f)


def log_conditional(target: Target, chains: Chains, block: Block, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """log p_beta of every shifted point against the present one, and f there, each ``(B, S)``; nats, not normalised."""
    count, found = len(shifts), []
    at_once = max(MAX_NUMBERS // chains.x[0].numel(), 1)
    for start in range(0, len(chains.x) * count, at_once):
        number = torch.arange(start, min(start + at_once, len(chains.x) * count), device=shifts.device)
        here, row = chains.rows(number // count), number // count
        inside, by = block.rows(row), shifts[number % count]
        x_new = target.space.set_sites(here.x, inside.sites, inside.shifted(target, by))
        f_new = target.f(x_new)
        log_ratio = target.log_ratio(x_new, f_new, here.x, here.f, beta=here.beta)
        again = ~target.space.are_distinct(inside.sites, by).all(1)
        found.append((log_ratio.masked_fill(again, -torch.inf), f_new))
    log_p, f = (torch.cat(parts).unflatten(0, (-1, count)) for parts in zip(*found, strict=True))
    return log_p.double().nan_to_num(nan=-torch.inf, neginf=-torch.inf), f  # what is not a number is not drawn
