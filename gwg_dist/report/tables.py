"""Statistics, couplings and the path of annealing as tables and charts of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gwg_dist.report import figures
from gwg_dist.report.points import CUTOFF, Pairs, Shown
from gwg_dist.training.couplings import NAMES
from gwg_dist.training.family import statistics_by_name

LINK = ("end", "bennett", "forward", "reverse")
MORE_ROUTES = {"mbar": "MBAR", "thermodynamic": "thermodynamic integration"}


class Chart(NamedTuple):
    """A chart of a page: its title, its SVG, and another one for wide screens where it has one."""

    title: str
    svg: str
    wide: str = ""


class Table(NamedTuple):
    """A table: its columns and the rows of its cells."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def statistics_charts(shown: Shown) -> list[Chart]:
    """Statistics of samples over those of data, and how far both are from training points."""
    found = shown.statistics
    if found is None:
        return []
    charts = [
        Chart(f"{name.capitalize()}", figures.scatter(each.data, each.samples, f"statistics of {name}"))
        for name, each in statistics_by_name(found).items()
    ]
    sides = {"samples": found.nearest_samples, "held out": found.nearest_held_out}
    label = "share of sites that differ from the nearest training point"
    return [*charts, Chart("Sites unlike the nearest training point", figures.histogram(sides, label))]


def statistics_table(shown: Shown) -> Table | None:
    """How the statistics agree."""
    found = shown.statistics
    if found is None:
        return None
    rows = [
        [name, f"{each.agreement.pearson:.3f}", f"{each.agreement.slope:.2f}"]
        for name, each in statistics_by_name(found).items()
    ]
    return Table(["statistics", "Pearson", "slope"], [*rows, ["two sites, held out", f"{found.held_out:.3f}", ""]])


def map_of(pairs: Pairs) -> str:
    """The map of couplings."""
    label = "scores of all pairs of sites" + ("; contacts below the diagonal" if pairs.distances is not None else "")
    return figures.score_map(pairs.scores, pairs.distances, label, cutoff=CUTOFF)


def tables_of(pairs: Pairs) -> dict[str, Table]:
    """The strongest pairs, and the share of contacts among them."""
    found = {"Strongest pairs": Table(["i", "j", "score"], [[i, j, f"{score:.3g}"] for i, j, score in pairs.strongest])}
    if pairs.precision is not None:
        rows = [
            [f"{name} = {num}", f"{share:.3f}"]
            for name, num, share in zip(NAMES, pairs.precision.num, pairs.precision.precision, strict=True)
        ]
        title = f"Share of contacts (< {CUTOFF:g} Å; {pairs.precision.base_rate:.3f} of all pairs)"
        found[title] = Table(["strongest", "contacts"], rows)
    return found


def routes_table(estimate: dict[str, Any]) -> Table | None:
    """The ways to log Z; None where there is one alone."""
    sides = estimate.get("sides", {})
    if not sides.get("routes"):
        return None
    more = {name: sides[key] for key, name in MORE_ROUTES.items() if sides.get(key)}
    rows = [
        [name, f"{route['log_z']:.3f}", "–" if route["stderr"] is None else f"{route['stderr']:.3f}", route["label"]]
        for name, route in {**sides["routes"], **more}.items()
    ]
    return Table(["log Z, nats", "estimate", "±", "what it is"], rows)


def checks_table(estimate: dict[str, Any]) -> Table | None:
    """What the two sides were checked by."""
    sides = estimate.get("sides", {})
    if not sides.get("checks"):
        return None
    both = {f"bennett, {key.replace('_', ' ')}": value for key, value in sides.get("bennett", {}).items()
            if key != "log_z"}  # fmt: skip
    ess = {f"ESS, {key}": value for key, value in sides.get("ess", {}).items()}
    return Table(
        ["check", "value"], [[name, number(value)] for name, value in {**ess, **both, **sides["checks"]}.items()]
    )


def links_of(estimate: dict[str, Any]) -> list[dict[str, float | None]]:
    """The path of annealing link by link; empty where the estimate has none."""
    return estimate.get("sides", {}).get("links") or []


def table_of_links(estimate: dict[str, Any]) -> Table | None:
    """All numbers of all links; None where there are none."""
    links = links_of(estimate)
    return Table(list(links[0]), [[number(value) for value in link.values()] for link in links]) if links else None


def links_charts(estimate: dict[str, Any]) -> list[Chart]:
    """How far the works of both directions are from Bennett's estimate of each link, over beta."""
    known = [link for link in links_of(estimate) if all(link.get(name) is not None for name in LINK)]
    if not known:
        return []
    end, both, *sides = ([link[name] or 0.0 for link in known] for name in LINK)
    less = {name: [a - b for a, b in zip(side, both, strict=True)] for name, side in zip(LINK[2:], sides, strict=True)}
    svg = figures.points_over_beta(end, less, "forward and reverse works of each link, less Bennett's estimate")
    return [Chart("Links of the path, less Bennett’s estimate", svg)]


def number(value: object) -> str:
    """A cell of a table."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
