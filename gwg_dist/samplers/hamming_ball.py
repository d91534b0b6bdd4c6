"""The Hamming ball sampler (Titsias and Yau, "The Hamming ball sampler", JASA, 2017).

Not implemented: a block that is not random; radii that differ from block to block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.samplers.enumerated_gibbs import MAX_NUMBERS, Block, Chains, draw_around
from gwg_dist.target import Target

MAX_POINTS = 2**16


class BallState(NamedTuple):
    """``ball`` ``(N, block)`` int64: what leads from the centre to each point of a ball, added modulo sizes."""

    x: Tensor
    f: Tensor
    beta: Tensor
    ball: Tensor


class BallNoise(NamedTuple):
    """Uniform float64 numbers in [0, 1).

    Args:
        order: ``(B, D)``; the sites with the smallest are the block.
        centre: ``(B,)``, which point of the ball around x is u.
        point: ``(B,)``, which point of the ball around u is taken.
    """

    order: Tensor
    centre: Tensor
    point: Tensor


@dataclass(frozen=True)
class HammingBall(Sampler):
    """Draws u uniformly from the ball around x, then x from p_beta restricted to the ball around u.

    The ball around x has the points that differ from x at ``radius`` sites at most, all of them in a block of sites
    that is drawn anew for every chain and step. It has N = ∑_{j <= radius} C(block, j) (K - 1)^j points wherever it is
    (fewer where sites of the block have fewer categories, but as many around each x), so u has the same probability at
    all x that see it, and both draws are Gibbs steps of p_beta(x) p(u|x). A step needs no gradient, refuses nothing and
    costs N evaluations of f, in parts of at most 2^24 numbers.

    Args:
        radius: largest distance to u; as large as ``block`` it is ``EnumeratedGibbs``.
        block: number of sites that may change in a step.

    Raises:
        ValueError: a radius outside 1..block; at the start of a run, a block of more sites than there are, or a ball of
            more than 65,536 points.
    """

    radius: int = 2
    block: int = 4

    # Of the class, and no field.
    in_parts = True

    def __post_init__(self) -> None:
        if not 1 <= self.radius <= self.block:
            raise ValueError(f"radius must lie in 1..block = 1..{self.block}, got {self.radius}")

    def refusal(self, target: Target) -> str | None:
        num_sites, points = target.space.num_sites, self.num_points(target.space.num_categories)
        if self.block > num_sites:
            return f"radius and block must be at most the {num_sites} sites, got {self.radius} and {self.block}"
        if points > MAX_POINTS:
            return f"radius and block must give a ball of at most {MAX_POINTS:,} points, got {points:,}"
        return None

    def num_points(self, num_categories: int) -> int:
        """N, the number of points of a ball."""
        return sum(math.comb(self.block, j) * (num_categories - 1) ** j for j in range(self.radius + 1))

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BallState:
        return BallState(x, target.f(x), beta, ball(target.space.num_categories, self.radius, self.block, x.device))

    def temper(self, target: Target, state: BallState, beta: Tensor) -> BallState:
        return state._replace(beta=beta)

    def draw(self, state: BallState, generator: torch.Generator) -> BallNoise:
        num, num_sites = state.x.shape[:2]
        size = (num, 2 + num_sites)
        uniform = torch.rand(size, generator=generator, device=state.x.device, dtype=torch.float64)
        return BallNoise(uniform[:, 2:], uniform[:, 0], uniform[:, 1])

    def step(self, target: Target, state: BallState, noise: BallNoise) -> tuple[BallState, Info]:
        sites = noise.order.topk(self.block, 1, largest=False).indices
        categories = target.space.decode(state.x).long().gather(1, sites)
        here = Block(sites, categories)
        to_centre = state.ball[self.centres(target, state.ball, sites, noise.centre)]
        centre = Block(sites, here.shifted(target, to_centre))
        x, f = draw_around(target, Chains(state.x, state.f, state.beta), centre, state.ball, noise.point)
        hops = target.space.hamming(x, state.x)
        return state._replace(x=x, f=f), Info(torch.ones_like(hops), hops)

    def centres(self, target: Target, ball: Tensor, sites: Tensor, uniform: Tensor) -> Tensor:
        """As ``centre``, for blocks ``(B, block)`` of any sites: uniform on the points that their sizes leave."""
        if not target.space.is_ragged:
            return self.centre(ball, uniform)
        at_once, found = max(MAX_NUMBERS // ball.numel(), 1), []
        for some, number in zip(sites.split(at_once), uniform.split(at_once), strict=True):
            counts = target.space.are_distinct(some[:, None], ball).all(2).cumsum(1)
            rank = (number * counts[:, -1]).long()
            found.append(torch.searchsorted(counts, rank[:, None], right=True)[:, 0])
        return torch.cat(found)

    def centre(self, ball: Tensor, uniform: Tensor) -> Tensor:
        """The number of u in the ball around x, ``(B,)`` int64, uniform on 0..N-1."""
        return (uniform * len(ball)).long()


@lru_cache(maxsize=8)
def ball(num_categories: int, radius: int, block: int, device: torch.device) -> Tensor:
    """Every tuple of 0..K-1 that is zero but at ``radius`` places at most, ``(N, block)`` int64; not to be changed."""
    rows = []
    for distance in range(radius + 1):
        for places in combinations(range(block), distance):
            for values in product(range(1, num_categories), repeat=distance):
                row = dict(zip(places, values, strict=True))
                rows.append([row.get(place, 0) for place in range(block)])
    return torch.tensor(rows, device=device)
