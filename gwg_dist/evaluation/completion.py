"""Missing sites of given points: what the model says of them, given the sites that are there.

Where a row has few completions they are enumerated, and marginals are exact. Otherwise chains that hold the given sites
run from draws of the reference, several a row, and say by R-hat and the effective sample size what their marginals are
worth.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.draws import inverse_cdf
from gwg_dist.evaluation.mixing import ess, split_rhat
from gwg_dist.evaluation.scores import points_at_once, score_points
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, ClampedTarget, Kernel, Metropolis, run_chain
from gwg_dist.samplers.base import State
from gwg_dist.target import Target

MISSING = -1
MAX_EXACT = 4096  # completions of a row that are enumerated
BURN_IN = 4  # one part in so many of a run is left out
STEEP = 1e4  # nats by which the reference bars a category
LOOKS = 100  # times at which chains are looked at, after that


@dataclass(frozen=True)
class ChainSettings:
    """How chains fill in sites.

    Args:
        num_chains: chains a row, at least 2.
        num_steps: kernel transitions of each; a quarter is left out.

    Raises:
        ValueError: fewer chains than 2, or fewer steps than 16.
    """

    num_chains: int = 4
    num_steps: int = 1000

    def __post_init__(self) -> None:
        if self.num_chains < 2:
            raise ValueError(f"num_chains must be at least 2, for R-hat, got {self.num_chains}")
        if self.num_steps < 16:
            raise ValueError(f"num_steps must be at least 16, got {self.num_steps}")


@dataclass(frozen=True, eq=False)
class Completion:
    """Points with their missing sites filled in.

    Args:
        given: the points, ``(N, D)`` int64 with -1 where a site is missing.
        cells: row and site of each missing one, in order, ``(M, 2)`` int64.
        probs: p(x_i = k | what is given of the row), ``(M, K)`` float64.
        samples: completed points, ``(num_chains, N, D)`` int64: independent draws where ``exact``, else the last
            points of a row's chains.
        exact: whether a row's completions were enumerated, ``(N,)`` bool; true where nothing is missing.
        rhat: split R-hat of the energy along a row's chains, ``(N,)`` float64; 1 where exact, NaN where a chain stood
            still and the chains disagree.
        ess: effective number of energies of a row's chains, ``(N,)`` float64; infinite where exact.
    """

    given: Tensor
    cells: Tensor
    probs: Tensor
    samples: Tensor
    exact: Tensor
    rhat: Tensor
    ess: Tensor

    @property
    def mode(self) -> Tensor:
        """The points with the most probable category of each missing site, ``(N, D)`` int64."""
        filled = self.given.clone()
        filled[self.cells[:, 0], self.cells[:, 1]] = self.probs.argmax(1)
        return filled

    def trusted(self, limit: float = 1.1) -> Tensor:
        """Whether a row is exact or its chains agree, R-hat at most ``limit``, ``(N,)`` bool."""
        return self.exact | (self.rhat <= limit)


def complete(
    target: Target,
    given: Tensor,
    *,
    generator: torch.Generator,
    kernel: Kernel | None = None,
    settings: ChainSettings | None = None,
    max_exact: int = MAX_EXACT,
    progress: Callable[[int], None] | None = None,
) -> Completion:
    """p(x_missing | x_given) of every row, by enumeration where that is cheaper than chains and by chains otherwise.

    Args:
        target: the model.
        given: ``(N, D)`` int64 on the CPU: codes 0..K-1, -1 where a site is missing.
        generator: of all randomness, on the device of the target.
        kernel: what moves chains; GWG where none is given, or where it is no Metropolis kernel.
        settings: how chains run; ``ChainSettings()`` where none are given.
        max_exact: completions of a row that are enumerated at most.
        progress: called with the number of rows that are done.

    Raises:
        ValueError: codes of another shape or outside 0..K-1, or no rows.
    """
    settings = settings or ChainSettings()
    missing = given == MISSING
    target.space.check_codes(given.masked_fill(missing, 0), "given")
    if not len(given):
        raise ValueError("there are no rows to complete")
    found = _Found(given.long(), settings.num_chains, target.space.num_categories)
    limit = min(max_exact, settings.num_chains * settings.num_steps)
    log_ways = missing.double() @ torch.tensor(target.space.sizes, dtype=torch.float64).log()
    enumerated = log_ways <= math.log(limit) + 1e-9
    done = 0
    for row in enumerated.nonzero()[:, 0].tolist():
        if missing[row].any():
            enumerate_row(target, found, row, generator)
        done += 1
        if progress is not None:
            progress(done)
    usable = kernel if isinstance(kernel, Metropolis) else GWG()
    at_once = max(points_at_once(target) // settings.num_chains, 1)
    for rows in (~enumerated).nonzero()[:, 0].split(at_once):
        if len(rows):
            sample_rows(target, usable, found, rows, settings, generator)
            done += len(rows)
            if progress is not None:
                progress(done)
    return found.completion()


def without_blanks(target: Target, blanks: Tensor) -> Target:
    """p(x) given that no site is blank: completions of a model in which a missing cell is a category of its own.

    The reference has probability 0 there, and the slope of its logarithm -10^4, so that a chain that stands there
    leaves.

    Args:
        target: p.
        blanks: the category of each site that is no answer, ``(D,)`` int64; -1 for none.
    """
    if not (blanks >= 0).any():
        return target
    space = target.space
    barred = functional.one_hot(blanks.clamp(min=0), space.num_categories).bool() & (blanks >= 0)[:, None]
    reference = copy.deepcopy(target.reference) if target.reference is not None else Reference(space)
    barred = barred.to(reference.probs.device)
    probs = reference.probs.masked_fill(barred, 0.0)
    reference.probs.copy_(probs / probs.sum(1, keepdim=True))
    weights, constant = space.linear_form(reference.probs.log().clamp(min=-STEEP))
    reference.weights.copy_(weights)
    reference.constant.copy_(constant)
    barring = Target(target.energy, reference, space=space)
    barring.mixed_precision = target.mixed_precision
    return barring


class _Found:
    """What is known of every row so far."""

    def __init__(self, given: Tensor, num_chains: int, num_categories: int) -> None:
        num = len(given)
        self.given = given
        self.cells = (given == MISSING).nonzero()
        self.first = torch.cat([torch.zeros(1).long(), (given == MISSING).sum(1).cumsum(0)])
        self.probs = torch.zeros(len(self.cells), num_categories, dtype=torch.float64)
        self.samples = given.repeat(num_chains, 1, 1)
        self.exact = torch.ones(num, dtype=torch.bool)
        self.rhat = torch.ones(num, dtype=torch.float64)
        self.ess = torch.full((num,), math.inf, dtype=torch.float64)

    def numbers(self, row: int) -> slice:
        """The row's cells."""
        return slice(int(self.first[row]), int(self.first[row + 1]))

    def sites(self, row: int) -> Tensor:
        return self.cells[self.numbers(row), 1]

    def completion(self) -> Completion:
        return Completion(self.given, self.cells, self.probs, self.samples, self.exact, self.rhat, self.ess)


def enumerate_row(target: Target, found: _Found, row: int, generator: torch.Generator) -> None:
    """The exact marginals of a row's missing sites, and independent draws."""
    sites = found.sites(row)
    ways = completions_of([target.space.sizes[site] for site in sites.tolist()])
    points = found.given[row].repeat(len(ways), 1)
    points[:, sites] = ways
    weights = score_points(target, points).unnormalised.softmax(0)
    for number, cell in enumerate(range(*found.numbers(row).indices(len(found.cells)))):
        found.probs[cell].scatter_add_(0, ways[:, number], weights)
    num = len(found.samples)
    uniform = torch.rand(num, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    found.samples[:, row] = points[inverse_cdf(weights.repeat(num, 1), uniform)]


def completions_of(sizes: list[int]) -> Tensor:
    """Every way to fill sites of these sizes, ``(their product, m)`` int64."""
    return torch.cartesian_prod(*map(torch.arange, sizes)).reshape(-1, len(sizes))


def sample_rows(
    target: Target, kernel: Kernel, found: _Found, rows: Tensor, settings: ChainSettings, generator: torch.Generator
) -> None:
    """Marginals of the missing sites of some rows from chains that hold the others, and how the chains mix."""
    space, num = target.space, settings.num_chains
    given = found.given[rows].repeat(num, 1)  # chain c of row r is at c * rows + r
    held = given != MISSING
    start = (target.reference or Reference(space)).sample(len(given), generator=generator).cpu().long()
    x = target.encode(torch.where(held, given, start).to(space.code_dtype).to(generator.device))
    clamped = ClampedTarget(target, held.to(x.device))
    first = settings.num_steps // BURN_IN
    every = max((settings.num_steps - first) // LOOKS, 1)
    total, energies = torch.zeros_like(x[: len(rows)], dtype=torch.float64), []

    def look(step: int, state: State) -> None:
        if step >= first and (step - first) % every == 0:
            total.add_(state.x.unflatten(0, (num, -1)).sum(0))
            energies.append(target.log_prob(state.x, state.f).double())

    chain = run_chain(
        kernel, clamped, x, num_steps=settings.num_steps, generator=generator, before_step=look, backend="eager"
    )
    ends = space.decode(chain.x).cpu().long()
    found.samples[:, rows] = torch.where(held, given, ends).unflatten(0, (num, -1))
    share = (total / (num * len(energies))).cpu()
    probs = torch.stack([1 - share, share], 2) if share.ndim == 2 else share
    along = torch.stack(energies).cpu().unflatten(1, (num, -1))  # (T, chains, rows)
    for place, row in enumerate(rows.tolist()):
        found.probs[found.numbers(row)] = probs[place, found.sites(row)]
        found.exact[row] = False
        found.rhat[row], found.ess[row] = mixing_of(along[:, :, place])


def mixing_of(values: Tensor) -> tuple[float, float]:
    """Split R-hat and effective number of ``(T, chains)``; chains that all stand still at the same value agree."""
    if bool((values == values[0, 0]).all()):
        return 1.0, float(values.numel())
    return split_rhat(values), ess(values)
