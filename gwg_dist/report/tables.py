"""Statistics, couplings and the path of annealing as tables and charts of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gwg_dist.report import figures
from gwg_dist.report.points import CUTOFF, Pairs, Shown
from gwg_dist.training.couplings import NAMES
from gwg_dist.training.family import statistics_by_name


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
    routes = estimate.get("sides", {}).get("routes")
    if not routes:
        return None
    rows = [
        [name, f"{route['log_z']:.3f}", "–" if route["stderr"] is None else f"{route['stderr']:.3f}", route["label"]]
        for name, route in routes.items()
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


def table_of_links(estimate: dict[str, Any]) -> Table | None:
    """The path of annealing link by link, where the estimate has it."""
    links = estimate.get("sides", {}).get("links") or estimate.get("links")
    if not isinstance(links, list) or not links or not all(isinstance(link, dict) for link in links):
        return None
    columns = list(links[0])
    return Table(columns, [[number(link.get(name)) for name in columns] for link in links])


def links_charts(table: Table | None) -> list[Chart]:
    """How far the works of both directions are from Bennett's estimate of each link, over beta."""
    if table is None or not {"end", "forward", "reverse", "bennett"} <= set(table.columns):
        return []
    values = {name: [float(row[place] or "nan") for row in table.rows] for place, name in enumerate(table.columns)}
    sides = {
        name: [side - both for side, both in zip(values[name], values["bennett"], strict=True)]
        for name in ("forward", "reverse")
    }
    svg = figures.points_over_beta(values["end"], sides, "forward and reverse works of each link, less Bennett's")
    return [Chart("Links of the path, less Bennett’s estimate", svg)]


def number(value: object) -> str:
    """A cell of a table."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
