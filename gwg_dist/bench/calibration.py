"""How often stated intervals of log Z hold it: random small models whose log Z is summed.

RBMs, Ising and Potts models, networks of bits and of sites with unequal numbers of categories, 8 to 13 bits each, with
couplings from weak to strong. Every estimator has 100 chains and 40 temperatures; forward, reverse and SMC have chains
of their own, Bennett's ratio takes the weights of two of them, MBAR takes exact samples at five betas.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from gwg_dist.energies import Energy, IsingEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.evaluation import (
    AISResult,
    Interval,
    ais,
    bennett,
    exact_log_prob,
    exact_log_z,
    mbar,
    reverse_ais,
    sides_of,
    smc,
)
from gwg_dist.evaluation.reverse import ReverseResult
from gwg_dist.evaluation.verdict import LEAST_OVERLAP
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import console, make_progress, track

NUM_MODELS, NUM_QUICK, NUM_CHAINS, NUM_TEMPERATURES, EVERY = 200, 60, 100, 40, 5
STRENGTHS = (0.5, 1.5)
RUNGS = (0.0, 0.25, 0.5, 0.75, 1.0)
KINDS: dict[str, tuple[Callable[[Space], Energy], Space, float]] = {
    "RBM": (lambda space: RBMEnergy(space, num_hidden=5), Binary(12), 0.5),
    "Ising": (IsingEnergy, Binary(10), 0.3),
    "Potts": (PottsEnergy, Categorical(5, 4), 0.5),
    "MLP": (lambda space: MLPEnergy(space, num_hidden=8), Binary(13), 1.0),
    "ragged table": (lambda space: MLPEnergy(space, num_hidden=8), Categorical(4, (3, 6, 4, 5)), 1.0),
}  # the model, its space, and the spread of its weights at strength one


class Stated(NamedTuple):
    """What an estimator says of one model.

    Args:
        kind: name in ``KINDS``.
        way: name of the estimator.
        error: log Z minus the exact one, nats.
        interval: of 95 %, minus the exact log Z.
        z: the error in standard errors, on the scale on which the estimator is unbiased.
        warned: whether a warning is printed with it.
        even: whether weights are so even, with an effective size of half of them, that z is one of the normal law.
    """

    kind: str
    way: str
    error: float
    interval: Interval
    z: float
    warned: bool
    even: bool = True

    @property
    def covers(self) -> bool:
        """Whether the exact log Z is inside."""
        return self.interval.low <= 0 <= self.interval.high


def random_target(kind: str, *, seed: int, strength: float) -> Target:
    """A random model in float64 with a random reference."""
    make, space, spread = KINDS[kind]
    generator = make_generator(seed, "calibration model")
    energy = make(space).double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.copy_(spread * strength * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    reference = Reference(space, smoothing=0.1).double()
    shares = torch.rand(space.num_sites, space.num_categories, generator=generator)
    reference.fit(space.without_padding(shares).softmax(1))
    return Target(energy, reference)


class Calibration(NamedTuple):
    """How an estimator did over all models.

    Args:
        way: its name.
        num: models without a warning.
        covered: share of them whose exact log Z is in the interval.
        above: of them, intervals above the exact log Z.
        below: of them, intervals below it.
        bias: mean error over all models, nats.
        bias_error: standard error of ``bias``.
        width: median width of the intervals, nats.
        num_even: models whose z counts.
        p_value: that these z are normal, by the test of Kolmogorov and Smirnov.
    """

    way: str
    num: int
    covered: float
    above: int
    below: int
    bias: float
    bias_error: float
    width: float
    num_even: int
    p_value: float


def calibration(
    *,
    num_models: int = NUM_MODELS,
    strengths: tuple[float, float] = STRENGTHS,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Stated]:
    """What every estimator says of random models.

    Args:
        num_models: number of models.
        strengths: of the couplings of the first model and after the last.
        advance: called with the number of models that are done.
    """
    found, (low, high) = [], strengths
    for seed in range(num_models):
        kind = list(KINDS)[seed % len(KINDS)]
        target = random_target(kind, seed=seed, strength=low + (high - low) * seed / num_models)
        exact = exact_log_z(target)
        found += [each._replace(kind=kind) for each in stated(target, exact, seed=seed)]
        advance(seed + 1)
    return found


def stated(target: Target, exact: float, *, seed: int) -> Iterator[Stated]:
    """What every estimator says of one model; the kind is left open."""
    generator = make_generator(seed, "calibration")
    sizes: dict[str, Any] = {"generator": generator, "num_temperatures": NUM_TEMPERATURES, "backend": "eager"}
    forward = ais(target, GWG(), num_chains=NUM_CHAINS, **sizes)
    systems = smc(target, GWG(), num_chains=NUM_CHAINS, every=EVERY, **sizes)
    starts = exact_samples(target, NUM_CHAINS, generator)
    reverse = reverse_ais(target, GWG(), starts, **sizes)
    f = [target.f(target.encode(exact_samples(target, NUM_CHAINS, generator, beta))).detach() for beta in RUNGS]
    yield of_forward("forward AIS", forward, exact)
    yield of_forward("SMC", systems, exact)
    yield of_reverse(reverse, exact)
    for name, there in (("Bennett", forward), ("Bennett, SMC", systems)):
        both = bennett(there.works, reverse.log_weights, added=there.added, num_systems=there.num_systems)
        error, z = both.log_z - exact, (both.log_z - exact) / both.stderr
        warned = there.collapsed or reverse.collapsed or both.overlap < LEAST_OVERLAP
        yield Stated("", name, error, shifted(both.interval, exact), z, warned)
        sides = sides_of(there, reverse, target, starts, exact_samples=True)
        error, stderr = sides.log_z - exact, sides.stderr
        yield Stated("", f"combined{name[7:]}", error, around(error, stderr), z, warned)
    rungs = mbar(f, torch.tensor(RUNGS, dtype=torch.float64))
    error, stderr = float(rungs.log_z[-1]) - exact, float(rungs.stderr[-1])
    yield Stated("", "MBAR", error, around(error, stderr), error / stderr, not math.isfinite(stderr))


def exact_samples(target: Target, num: int, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Independent samples of p_beta, codes ``(num, D)``."""
    prob = exact_log_prob(target, beta=beta)[0].exp()
    return target.space.all_codes()[torch.multinomial(prob, num, replacement=True, generator=generator)]


def of_forward(way: str, found: AISResult, exact: float) -> Stated:
    """An estimate that is unbiased for Z."""
    units, error = found.units, found.log_z - exact
    return Stated(
        "", way, error, shifted(found.interval, exact), t_of((units - exact).exp()), found.collapsed,
        found.ess > len(units) / 2,
    )  # fmt: skip


def of_reverse(found: ReverseResult, exact: float) -> Stated:
    """An estimate that is unbiased for 1 / Z."""
    weights, error = found.log_weights, found.log_z - exact
    return Stated(
        "", "reverse AIS", error, shifted(found.interval, exact), t_of((weights + exact).exp()), found.collapsed,
        found.ess > len(weights) / 2,
    )  # fmt: skip


def t_of(ratio: Tensor) -> float:
    """How many standard errors the mean of ``ratio`` ``(N,)`` is from one, at the same quantile of the normal law.

    Of N normal values it has Student's t distribution with N - 1 degrees of freedom.
    """
    from scipy import stats

    t = float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))
    return math.copysign(float(stats.norm.isf(stats.t.sf(abs(t), len(ratio) - 1))), t)


def around(middle: float, stderr: float) -> Interval:
    return Interval(middle - 1.96 * stderr, middle + 1.96 * stderr)


def shifted(interval: Interval, exact: float) -> Interval:
    return Interval(interval.low - exact, interval.high - exact)


def summary(found: list[Stated]) -> list[Calibration]:
    """A row for every estimator."""
    return [_row(way, [each for each in found if each.way == way]) for way in dict.fromkeys(each.way for each in found)]


def _row(way: str, found: list[Stated]) -> Calibration:
    from scipy import stats

    quoted = [each for each in found if not each.warned]
    z = [each.z for each in quoted if each.even]
    widths = [each.interval.high - each.interval.low for each in quoted]
    errors = [each.error for each in found]
    num = len(quoted)
    return Calibration(
        way,
        num,
        sum(each.covers for each in quoted) / num if num else math.nan,
        sum(each.interval.low > 0 for each in quoted),
        sum(each.interval.high < 0 for each in quoted),
        statistics.mean(errors),
        statistics.stdev(errors) / math.sqrt(len(errors)),
        statistics.median(widths) if widths else math.nan,
        len(z),
        float(stats.kstest(z, "norm").pvalue) if z else math.nan,
    )


def calibration_study(*, quick: bool) -> list[dict[str, Any]]:
    """The study as a table on the terminal and as plain numbers."""
    num = NUM_QUICK if quick else NUM_MODELS
    with make_progress() as progress, track(progress, "models", num) as advance:
        rows = summary(calibration(num_models=num, advance=advance))
    table = Table(title=f"intervals of 95 % of log Z on {num} random models", title_justify="left", pad_edge=False)
    for column in ("estimator", "no warning", "covered", "above", "below", "mean error", "width", "z", "KS p"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for row in rows:
        table.add_row(
            row.way, f"{row.num}", f"{row.covered:.3f}", f"{row.above}", f"{row.below}",
            f"{row.bias:+.3f} ± {row.bias_error:.3f}", f"{row.width:.2f}", f"{row.num_even}", f"{row.p_value:.2g}",
        )  # fmt: skip
    console.print(table)
    return [row._asdict() for row in rows]
