"""A path of betas cut into links, each with its log ratio of Z from both directions: where the two sides part."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.ais import summarize
from gwg_dist.evaluation.bennett import bennett
from gwg_dist.evaluation.mbar import mbar
from gwg_dist.evaluation.thermodynamic import Integral, thermodynamic_integral

NUM_LINKS = 10


class Trace(NamedTuple):
    """What is kept of annealed chains at some of their temperatures.

    Args:
        betas: beta there, ``(K,)`` float64, rising or falling; the first is where chains begin.
        log_weights: of all chains there, ``(K, N)`` float64 nats; the first are 0.
        f: f = -E of all chains there, ``(K, N)`` float64 nats.
    """

    betas: Tensor
    log_weights: Tensor
    f: Tensor

    def turned(self) -> Trace:
        """The other way round."""
        return Trace(self.betas.flip(0), self.log_weights.flip(0), self.f.flip(0))


class Link(NamedTuple):
    """log Z_end - log Z_begin of a part of the path, nats.

    Args:
        begin: beta where it begins.
        end: beta where it ends.
        forward: from the forward chains' works there.
        reverse: from the reverse chains' works there.
        bennett: from both; right if both are at equilibrium where they enter the link.
        stderr: of ``bennett``.
        overlap: of both works, 0 to 1.
        slope: Crooks slope, 1 at equilibrium; NaN where works are too alike to tell.
    """

    begin: float
    end: float
    forward: float
    reverse: float
    bennett: float
    stderr: float
    overlap: float
    slope: float


class Ladder(NamedTuple):
    """A path by its rungs.

    Args:
        links: between the rungs that both directions passed.
        mbar: log Z by ``mbar`` of the points of both directions at these rungs, nats.
        mbar_stderr: its error for points that are independent from rung to rung, which chains are not quite.
        integral: thermodynamic integration of the forward chains by their weights.
    """

    links: list[Link]
    mbar: float
    mbar_stderr: float
    integral: Integral


def rungs_of(num_temperatures: int) -> list[int]:
    """Numbers of temperatures at which a path is cut, 0 and T among them: the same betas counted from either end.

    About ten parts, alike up to one temperature; nine where T is odd, fewer where T is less than ten.
    """
    up = {part * num_temperatures // NUM_LINKS for part in range(NUM_LINKS // 2)}
    middle = set() if num_temperatures % 2 else {num_temperatures // 2}
    return sorted(up | middle | {num_temperatures - t for t in up})


def ladder_of(forward: Trace, reverse: Trace) -> Ladder:
    """What the rungs of both directions say; see ``links_of``."""
    links, turned = links_of(forward, reverse), reverse.turned()
    betas = [links[0].begin, *(link.end for link in links)]
    up = [_place(forward.betas, beta) for beta in betas]
    down = [_place(turned.betas, beta) for beta in betas]
    values = [torch.cat([forward.f[a], turned.f[b]]) for a, b in zip(up, down, strict=True)]
    found = mbar(values, torch.tensor(betas, dtype=torch.float64))
    means, errors = weighted_means(forward)
    integral = thermodynamic_integral(forward.betas, means, errors)
    return Ladder(links, float(found.log_z[-1]), float(found.stderr[-1]), integral)


def links_of(forward: Trace, reverse: Trace) -> list[Link]:
    """Links between the betas that both traces have, beginning at beta = 0.

    Forward chains that enter a link count by their weights up to there, and so do reverse ones: for each side
    log sum_n w_n exp(work_n) / sum_n w_n. Bennett's ratio takes all works alike.

    Args:
        forward: of chains from the reference.
        reverse: of chains from points of the model, along the same betas from 1 down.

    Raises:
        ValueError: fewer than two betas in common.
    """
    reverse = reverse.turned()
    common = [beta for beta in forward.betas.tolist() if _place(reverse.betas, beta) is not None]
    if len(common) < 2:
        raise ValueError(f"links need two betas that both directions passed, got {common}")
    return [_link(forward, reverse, begin, end) for begin, end in pairwise(common)]


def _link(forward: Trace, reverse: Trace, begin: float, end: float) -> Link:
    a, b = _place(forward.betas, begin), _place(forward.betas, end)
    c, d = _place(reverse.betas, begin), _place(reverse.betas, end)
    assert a is not None
    assert b is not None
    assert c is not None
    assert d is not None
    up = forward.log_weights[b] - forward.log_weights[a]
    down = reverse.log_weights[c] - reverse.log_weights[d]
    found = bennett(up, down)
    return Link(
        begin,
        end,
        summarize(forward.log_weights[b])[0] - summarize(forward.log_weights[a])[0],
        summarize(reverse.log_weights[d])[0] - summarize(reverse.log_weights[c])[0],
        found.log_z,
        found.stderr,
        found.overlap,
        found.slope,
    )


def _place(betas: Tensor, beta: float) -> int | None:
    """Where ``beta`` stands among ``betas``; None where it does not."""
    near = (betas - beta).abs() < 1e-9
    return int(near.nonzero()[0]) if bool(near.any()) else None


def weighted_means(trace: Trace) -> tuple[Tensor, Tensor]:
    """Mean of f at every beta by the chains' weights, and its standard error, ``(K,)`` each."""
    weights = torch.softmax(trace.log_weights, 1)
    means = (weights * trace.f).sum(1)
    errors = (weights * (trace.f - means[:, None])).square().sum(1).sqrt()
    return means, errors


def bootstrap_error(log_weights: Tensor, *, num: int = 200, seed: int = 0) -> float:
    """Standard error of the log of the mean weight when chains are drawn again with replacement, nats."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(log_weights), (num, len(log_weights)), generator=generator)
    values = log_weights.double()[rows].logsumexp(1) - math.log(len(log_weights))
    return float(values.std())


def bootstrap_mean_error(values: Tensor, weights: Tensor | None = None, *, num: int = 200, seed: int = 0) -> float:
    """Standard error of the weighted mean of ``values`` ``(N,)`` when points are drawn again with replacement.

    Points are drawn with their weights ``(N,)``; None counts every point once.
    """
    generator, values = torch.Generator().manual_seed(seed), values.double().cpu()
    weights = torch.ones_like(values) if weights is None else weights.to(values)
    means = []
    for _ in range(num):
        rows = torch.randint(len(values), (len(values),), generator=generator)
        means.append(weights[rows] @ values[rows] / weights[rows].sum())
    return float(torch.stack(means).std())
