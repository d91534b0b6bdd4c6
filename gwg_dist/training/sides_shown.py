"""A log Z from both sides as tables, and as plain numbers for a file."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gwg_dist.evaluation import Assessment, Sides, Standing, bootstrap_error, bootstrap_mean_error, judge
from gwg_dist.evaluation.sides import DELTA
from gwg_dist.evaluation.verdict import AGREED, EXACT, GAP, UNQUOTABLE
from gwg_dist.spaces import Space
from gwg_dist.training.verdict import bits_per_dim

STANDING_STYLES = {EXACT: "bold green", AGREED: "bold green", GAP: "bold yellow", UNQUOTABLE: "bold red"}


def routes_table(sides: Sides) -> Table:
    """The ways to log Z, and what they are worth."""
    table = Table(title="log Z, nats", title_justify="left", pad_edge=False, box=SIMPLE_HEAD)
    for column in ("way", "log Z", "±", "ESS", "what it is"):
        table.add_column(column, justify="left" if column in ("way", "what it is") else "right")
    sizes = [
        f"{ess:.0f} of {num}"
        for ess, num in (
            (sides.forward.ess, len(sides.forward.units)),
            (sides.reverse.ess, len(sides.reverse.log_weights)),
        )
    ]
    for route, size in zip(sides.routes, [*sizes, f"overlap {sides.both.overlap:.2f}", ""], strict=False):
        table.add_row(route.name, f"{route.log_z:.3f}", f"{route.error:.3f}", size, route.label)
    if sides.excess:
        table.add_row("points seen", f"{sides.floor:.3f}", "", "", "their mass: log Z is at least that")
    return table


def ways(sides: Sides) -> str:
    """The ways to log Z in one line."""
    one, other, both = sides.forward, sides.reverse, sides.both
    return (
        f"log Z: forward {one.log_z:.2f} ± {one.error:.2f} ({len(one.log_weights)} chains, {one.num_temperatures} "
        f"temperatures, ESS {one.ess:.0f}), reverse {other.log_z:.2f} ± {other.error:.2f} "
        f"({len(other.log_weights)} chains, ESS {other.ess:.0f}), Bennett {both.log_z:.2f} ± {both.stderr:.2f}"
    )


def likelihood_table(assessment: Assessment, space: Space, *, title: str) -> Table:
    """Likelihoods by the point estimate of log Z, by both sides, and their ceiling."""
    style = likelihood_style(assessment)
    caption = (
        "bracket: by the highest and the lowest log Z, if the chains are at equilibrium. "
        f"ceiling: passed with probability of at most {DELTA:g}"
    )
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        padding=(0, 1),
        pad_edge=False,
        box=SIMPLE_HEAD,
    )
    for column in ("split", "log-likelihood\n± log Z ± data", "bracket", "ceiling", "nats/\nsite", "bits/\ndim"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, values in likelihoods_json(assessment, space).items():
        table.add_row(
            f"{name} ({values['num']})",
            f"[{style}]{values['mean']:.2f}[/] ± {values['stderr']:.2f} ± {values['data_stderr']:.2f}",
            f"{values['low_side']:.2f} {values['high_side']:.2f}",
            f"{values['ceiling']:.2f}",
            f"{values['nats_per_site']:.3f}",
            f"{values['bits_per_dim']:.3f}",
        )
    return table


def likelihoods_json(assessment: Assessment, space: Space) -> dict[str, dict[str, float]]:
    """The same as numbers, by the name of the data."""
    sides = assessment.sides
    assert sides is not None
    found = {}
    for name, value in assessment.likelihoods.items():
        unnormalised = value.mean + assessment.estimate.log_z
        mean = unnormalised - sides.log_z
        found[name] = {
            "num": value.num,
            "reference": assessment.reference[name],
            "mean": mean,
            "stderr": sides.stderr,
            "data_stderr": value.data_stderr,
            "low_side": unnormalised - sides.bracket[1],
            "high_side": unnormalised - sides.bracket[0],
            "ceiling": min(unnormalised - sides.low_log_z, 0.0),
            "nats_per_site": mean / space.num_sites,
            "bits_per_dim": bits_per_dim(-mean, space),
        }
    return found


def sides_json(assessment: Assessment, standing: Standing, space: Space) -> dict[str, Any]:
    """Both sides, the checks and the verdict as plain numbers; null for what is not known."""
    sides = assessment.sides
    assert sides is not None
    num_starts, both = len(sides.reverse.log_weights), sides.both
    return {
        "standing": {"kind": standing.kind, "nats": _finite(standing.nats), "reasons": list(standing.reasons)},
        "log_z": sides.log_z,
        "stderr": _finite(sides.stderr),
        "log_z_at_least": {"value": sides.low_log_z, "delta": DELTA},
        "routes": {
            route.name: {
                "log_z": route.log_z,
                "stderr": _finite(route.stderr),
                "interval": [_finite(end) for end in route.interval],
                "label": route.label,
            }
            for route in sides.routes
        },
        "ess": {"forward": sides.forward.ess, "reverse": sides.reverse.ess},
        "bennett": {key: _finite(value) for key, value in both._asdict().items()},
        "checks": {
            "crooks": _finite(sides.crooks),
            "sites": _finite(sides.sites),
            "elsewhere": sides.num_elsewhere,
            "mass of the points seen": _finite(math.exp(min(sides.floor - sides.log_z, 700.0))),
            "drift": _finite(sides.drift),
        },
        "bootstrap": {
            "forward": _finite(bootstrap_error(sides.forward.units)),
            "reverse": _finite(bootstrap_error(sides.reverse.log_weights)),
            "data": {name: _finite(bootstrap_mean_error(*points)) for name, points in assessment.points.items()},
        },
        "differences": differences_json(assessment),
        **_ladder_json(sides),
        "num_starts": num_starts,
        "exact_samples": sides.exact_samples,
        "likelihood": {
            name: {key: _finite(value) for key, value in values.items()}
            for name, values in likelihoods_json(assessment, space).items()
        },
        "gradient_evaluations": {
            "forward": len(sides.forward.log_weights) * sides.forward.num_temperatures,
            "reverse": num_starts * sides.reverse.num_temperatures,
        },
    }


def differences_json(assessment: Assessment) -> dict[str, dict[str, float]]:
    """By how many nats points of one set of data are likelier than those of another, each pair of sets once.

    log Z is in both and drops out, so that the error is that of the two finite sets alone.
    """
    return {
        f"{one} - {other}": {
            "mean": a.mean - b.mean,
            "stderr": math.hypot(a.data_stderr, b.data_stderr),
        }
        for (one, a), (other, b) in combinations(assessment.likelihoods.items(), 2)
    }


def evaluations_json(assessment: Assessment, *, pilot: int = 0) -> dict[str, int]:
    """Gradient evaluations that an estimate took, by its parts; of several rounds those of the last.

    Args:
        assessment: the estimate.
        pilot: those of the pilot runs before.
    """
    estimate, sides = assessment.estimate, assessment.sides
    found = {"pilot": pilot, "forward": len(estimate.log_weights) * estimate.num_temperatures}
    if sides is not None:
        num = len(sides.reverse.log_weights)
        found |= {"steps before": num * sides.steps_before, "reverse": num * sides.reverse.num_temperatures}
    return found | {"in all": sum(found.values())}


def links_table(sides: Sides) -> Table:
    """The path link by link: where the two sides part."""
    table = Table(title="links, nats", title_justify="left", padding=(0, 1), pad_edge=False, box=SIMPLE_HEAD)
    for column in ("beta", "forward", "reverse", "Bennett", "±", "overlap", "slope"):
        table.add_column(column, justify="right")
    for link in sides.ladder.links if sides.ladder else []:
        table.add_row(
            f"{link.begin:.3g} to {link.end:.3g}", f"{link.forward:.3f}", f"{link.reverse:.3f}", f"{link.bennett:.3f}",
            f"{link.stderr:.3f}", f"{link.overlap:.2f}", f"{link.slope:.2f}",
        )  # fmt: skip
    return table


def _ladder_json(sides: Sides) -> dict[str, Any]:
    if sides.ladder is None:
        return {}
    ladder, integral = sides.ladder, sides.ladder.integral
    error = integral.stderr + (integral.high - integral.low) / 2
    return {
        "links": [{key: _finite(value) for key, value in link._asdict().items()} for link in ladder.links],
        "mbar": {
            "log_z": _finite(ladder.mbar),
            "stderr": _finite(ladder.mbar_stderr),
            "label": "if rungs are at equilibrium",
        },
        "thermodynamic": {key: _finite(value) for key, value in integral._replace(stderr=error)._asdict().items()}
        | {"label": "low and high enclose log Z if rungs are at equilibrium"},
    }


def likelihood_style(assessment: Assessment) -> str:
    """How a likelihood is printed: struck out where it is not to be quoted."""
    return "strike" if assessment.sides is not None and judged(assessment).kind == UNQUOTABLE else "bold"


def judged(assessment: Assessment, tolerance: float | None = None) -> Standing:
    """The verdict on an assessment from both sides."""
    assert assessment.sides is not None
    return judge(assessment.sides) if tolerance is None else judge(assessment.sides, tolerance=tolerance)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
