"""log Z from both ends of one path of betas, and what the points themselves say of it.

Chains that start at the reference see the modes that annealing finds; points of the model see those that they sit in.
Where the two know different modes no error bar tells. What does tell: the works of both directions obey the theorem of
Crooks (Physical Review E 60, 1999), points lie where annealed chains end, and no set of points has more mass than Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.ais import AISResult
from gwg_dist.evaluation.bennett import Bennett, bennett
from gwg_dist.evaluation.error_bars import Interval, standard_error
from gwg_dist.evaluation.exact import unnormalised_log_prob
from gwg_dist.evaluation.family import nearest_hamming
from gwg_dist.evaluation.links import Ladder
from gwg_dist.evaluation.reverse import ReverseResult, reverse_start
from gwg_dist.samplers import Sampler, run_chain
from gwg_dist.samplers.run import chains_running
from gwg_dist.spaces import Space
from gwg_dist.target import Target
from gwg_dist.tools.distributed import gather_rows

DELTA = 0.05  # a log-likelihood is above its ceiling with at most this probability
BY_CHANCE = 1e-3  # probability with which a check fails where nothing is wrong
ALIKE = 0.01  # nats between works that count as none
MAX_COMPARED = 1000  # points whose places are compared
STEPS_AT_ONCE = 50
ROUNDING = 0.05  # nats by which the mass of points may exceed Z through rounding and errors of the estimate
ERRORS = 3.0  # standard errors that a check may be off by


class Route(NamedTuple):
    """One way to log Z.

    Args:
        name: what it is called in tables.
        log_z: nats.
        stderr: standard error by the delta method, nats; too small where few weights carry the way.
        label: what it is worth, in words.
        interval: between which values log Z lies with a probability of 95 %, nats, if the label's conditions hold.
    """

    name: str
    log_z: float
    stderr: float
    label: str
    interval: Interval

    @property
    def error(self) -> float:
        """The ± of people, nats: 1.96 of it reach the farther end of ``interval``; infinite where it has none."""
        return standard_error(self.log_z, self.interval)


@dataclass(frozen=True)
class Sides:
    """log Z from both sides, with the checks on them.

    Args:
        forward: annealed from the reference.
        reverse: annealed back from points of the model.
        both: Bennett's ratio of the works of both.
        exact_samples: whether the points were independent exact samples, so that ``reverse`` is a bound. From chains it
            is a diagnostic.
        crooks: distance between the works of both directions as Crooks' theorem relates them, in units of what chance
            reaches once in 1,000 times; above 1 the points are not those that annealed chains stand for.
        sites: largest difference between the frequencies of a category at a site among the points and among the ends
            of annealed chains by their weights, in the same units.
        num_elsewhere: of the first 1,000 points, those farther from all ends of annealed chains than any end is from
            the others.
        num_ends: ends that the points were compared with.
        floor: log of the unnormalised mass of the distinct points that were seen; log Z cannot be less.
        drift: by how many standard errors the mean energy of the points moved in their last steps; NaN: not known.
        exact: log Z by an exact sum; None where there is none.
        ladder: the path by its rungs; None where they were not kept.
        origin: where the points come from, in words.
        steps_before: gradient evaluations of each point before it was annealed back.
    """

    forward: AISResult
    reverse: ReverseResult
    both: Bennett
    exact_samples: bool
    crooks: float
    sites: float
    num_elsewhere: int
    num_ends: int
    floor: float
    drift: float = math.nan
    exact: float | None = None
    ladder: Ladder | None = None
    origin: str = "chains"
    steps_before: int = 0

    @property
    def routes(self) -> tuple[Route, ...]:
        """The three ways, and the exact one where there is one."""
        label = "high on average, from exact samples" if self.exact_samples else f"diagnostic: from {self.origin}"
        one, other, both = self.forward, self.reverse, self.both
        found = (
            Route(one.name, one.log_z, one.stderr, "low on average: optimistic", one.interval),
            Route("reverse AIS", other.log_z, other.stderr, label, other.interval),
            Route("Bennett", both.log_z, both.stderr, "both directions", both.interval),
        )
        if self.exact is None:
            return found
        return (*found, Route("exact sum", self.exact, 0.0, "exact", Interval(self.exact, self.exact)))

    @property
    def excess(self) -> float:
        """Nats by which the mass of the points that were seen passes forward AIS; 0 within its error and rounding."""
        excess = self.floor - self.forward.log_z
        return excess if excess > max(ROUNDING, ERRORS * self.forward.stderr) else 0.0

    @property
    def spread(self) -> float:
        """The largest difference between two ways, nats; that of log Z and of every likelihood."""
        values = [route.log_z for route in self.routes]
        return max(*values, self.floor) - min(values)

    @property
    def log_z(self) -> float:
        """The point estimate of log Z, nats: the exact one, else Bennett's, but not below ``floor``."""
        return max(self.both.log_z, self.floor) if self.exact is None else self.exact

    @property
    def stderr(self) -> float:
        """Standard error of ``log_z``, nats.

        The largest of three: Bennett's error, half of the difference between the two sides, and how far ``floor`` lies
        above Bennett's estimate. It is 0 where log Z is exact. It is infinite where points were seen whose mass forward
        AIS has not found: log Z may be anything above ``floor``.
        """
        if self.exact is not None:
            return 0.0
        if self.excess:
            return math.inf
        halves = abs(self.reverse.log_z - self.forward.log_z) / 2
        return max(self.both.stderr, halves, self.floor - self.both.log_z)

    @property
    def bracket(self) -> tuple[float, float]:
        """The lowest and the highest estimate, nats; they enclose log Z on average if the points are at equilibrium.

        Twice the exact value where there is one.
        """
        if self.exact is not None:
            return self.exact, self.exact
        values = [self.forward.log_z, self.reverse.log_z, self.both.log_z]
        return max(min(values), self.floor), max(*values, self.floor)

    @property
    def low_log_z(self) -> float:
        """log Z is at least that with probability 1 - delta, delta = 0.05, whatever the kernel and the model.

        E[exp(log_z)] = Z, so P(exp(log_z) > Z / delta) <= delta by Markov's inequality. It is at least ``floor``, the
        mass of the points that were seen, with certainty.
        """
        return max(self.forward.log_z - math.log(1 / DELTA), self.floor)

    @property
    def are_elsewhere(self) -> bool:
        """Whether more points are far from all ends of annealed chains than chance explains.

        A new point is the farthest of n + m exchangeable ones with probability 1 / (n + m), so k of n points are
        farther than all m with probability of at most (n / (n + m))^k.
        """
        num = min(len(self.reverse.log_weights), MAX_COMPARED)
        return self.num_elsewhere > 0 and (num / (num + self.num_ends)) ** self.num_elsewhere < BY_CHANCE


def sides_of(
    forward: AISResult,
    reverse: ReverseResult,
    target: Target,
    starts: Tensor,
    data: Iterable[Tensor] = (),
    *,
    exact_samples: bool = False,
    drift: float = math.nan,
    exact: float | None = None,
) -> Sides:
    """What estimates from both ends of one path say together; called on every rank.

    Args:
        forward: see ``ais``.
        reverse: see ``reverse_ais``, along the same path.
        target: model that both are of.
        starts: points that ``reverse`` began from, codes ``(N, D)``, the same on all ranks.
        data: other points, codes ``(M, D)`` each, whose mass counts.
        exact_samples: whether ``starts`` are independent exact samples.
        drift: see ``Sides``.
        exact: log Z by an exact sum, nats.
    """
    ends = gather_rows(forward.codes)
    points = [points.to(ends.device, ends.dtype) for points in (ends, starts, *data) if len(points)]
    size = forward.ess if forward.num_systems else None  # systems are independent, and their chains are not
    num_elsewhere, num_ends = places(starts[:MAX_COMPARED], ends[:MAX_COMPARED], target.space)
    return Sides(
        forward,
        reverse,
        bennett(forward.works, reverse.log_weights, added=forward.added, num_systems=forward.num_systems),
        exact_samples,
        crooks_distance(forward.works, reverse.log_weights, forward.log_weights, size),
        sites_distance(starts, ends, forward.log_weights, target.space, size),
        num_elsewhere,
        num_ends,
        mass_of(target, torch.cat(points)),
        drift,
        exact,
    )


class Settled(NamedTuple):
    """Points after more steps at beta = 1.

    Args:
        codes: where they are, ``(N, D)``, the same on all ranks.
        drift: by how many standard errors their mean energy moved in the second half of the steps; NaN for none.
    """

    codes: Tensor
    drift: float


def settled(
    target: Target,
    sampler: Sampler,
    codes: Tensor,
    *,
    num_steps: int,
    generator: torch.Generator,
    stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int], None] = lambda _: None,
    backend: str = "auto",
) -> Settled | None:
    """Move points of the model by ``num_steps`` steps, and see whether they still drift; called on every rank.

    Args:
        target: model that the points are moved on.
        sampler: leaves it invariant.
        codes: points ``(N, D)``, the same on all ranks, which share them.
        num_steps: steps; 0 leaves the points as they are.
        generator: this rank's own, on the device of the model.
        stop: asked every few steps, on all ranks at the same one, whether to give up; None is returned then.
        advance: called with the number of steps that are done.
        backend: see ``run_chain``.

    Raises:
        ValueError: fewer points than ranks, points of another space.
    """
    x = reverse_start(target, codes).x
    if not num_steps:
        return Settled(codes, math.nan)
    middle, energies = num_steps // 2, []
    for first, last in ((0, middle), (middle, num_steps)):
        for done in range(first, last, STEPS_AT_ONCE):
            more = min(STEPS_AT_ONCE, last - done)
            x = run_chain(sampler, target, x, num_steps=more, generator=generator, backend=backend).x
            advance(done + more)
            if stop():
                return None
        with chains_running(target, x):
            energies.append(target.f(x).double())
    moved = gather_rows(energies[1] - energies[0]).cpu()
    error = float(moved.std()) / math.sqrt(len(moved)) if len(moved) > 1 else math.inf
    drift = float(moved.mean()) / error if error else 0.0
    return Settled(gather_rows(target.space.decode(x)), drift)


def mass_of(target: Target, codes: Tensor) -> float:
    """log sum_x ref(x) exp(-E(x)) over the distinct points of ``codes`` ``(N, D)``, nats: a lower bound of log Z."""
    return float(unnormalised_log_prob(target, torch.unique(codes, dim=0)).logsumexp(0))


def places(points: Tensor, ends: Tensor, space: Space) -> tuple[int, int]:
    """How many ``points`` ``(N, D)`` are farther from all ``ends`` ``(M, D)`` than any end is from the others, and M.

    In sites that differ. With fewer than two ends none is.
    """
    if len(ends) < 2:
        return 0, len(ends)
    points, ends = points.to(ends.device), ends
    among = torch.stack([nearest_but_itself(ends, number, space) for number in range(len(ends))])
    return int((nearest_hamming(points, ends, space.num_categories) > among.max()).sum()), len(ends)


def nearest_but_itself(codes: Tensor, number: int, space: Space) -> Tensor:
    """The sites at which one of ``codes`` differs from the nearest other one, 0-d."""
    differs = (codes != codes[number]).sum(1)
    differs[number] = space.num_sites
    return differs.min().cpu()


def sites_distance(
    points: Tensor, ends: Tensor, log_weights: Tensor, space: Space, effective: float | None = None
) -> float:
    """How much the sites of points and of weighted ends differ, in units of what chance reaches once in 1,000.

    The largest (p - q)^2 / (r (1 - r) (1 / n + 1 / m)) over all sites and categories, by Bonferroni's inequality: p is
    a frequency among the n points, q among the ends, m the effective size of their weights, r the pooled frequency.

    Args:
        points: codes ``(n, D)``.
        ends: codes ``(M, D)``.
        log_weights: of the ends, ``(M,)`` nats.
        space: space of both.
        effective: size m of ends that are not independent.
    """
    weights = torch.softmax(log_weights.double(), 0)
    num, size = len(points), effective or float(1 / weights.square().sum())
    p, q = (space.encode(codes.cpu(), torch.float64).flatten(1) for codes in (points, ends))
    p, q = p.mean(0), weights.cpu() @ q
    pooled = (num * p + size * q) / (num + size)
    variance = (pooled * (1 - pooled)).clamp_min(1e-12) * (1 / num + 1 / size)
    largest = float(((p - q).square() / variance).max().sqrt())
    return largest / NormalDist().inv_cdf(1 - BY_CHANCE / 2 / len(p))


def crooks_distance(
    forward: Tensor, reverse: Tensor, log_weights: Tensor | None = None, effective: float | None = None
) -> float:
    """How far the works of both directions are from Crooks' theorem, in units of what chance reaches once in 1,000.

    Weighted by exp(a), forward works a have the distribution of the negated reverse log weights -b. The largest
    difference of the two distribution functions, as in the test of Kolmogorov and Smirnov with the effective size of
    the weights. Works that differ by less than 0.01 nats count as equal.

    Args:
        forward: a, ``(N_F,)`` nats.
        reverse: b, ``(N_R,)`` nats.
        log_weights: of forward runs that were resampled on their way, ``(N_F,)`` nats, in place of a.
        effective: effective size of runs that are not independent.
    """
    a, order = forward.double().sort()
    weights = torch.softmax(forward.double() if log_weights is None else log_weights.double(), 0)[order]
    cumulative = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
    works = (-reverse.double()).sort().values
    reached = torch.searchsorted(works, works, right=True) / len(works)
    before = torch.searchsorted(works, works) / len(works)
    above = cumulative[torch.searchsorted(a, works + ALIKE, right=True)]
    below = cumulative[torch.searchsorted(a, works - ALIKE)]
    distance = max(float((reached - above).max()), float((below - before).max()), 0.0)
    size = effective or float(1 / weights.square().sum())
    critical = math.sqrt(-math.log(BY_CHANCE / 2) / 2 * (1 / size + 1 / len(works)))
    return distance / critical
