"""The tables of a comparison."""

from __future__ import annotations

import math
from typing import Any

from rich.markup import escape
from rich.table import Table

from gwg_dist.compare.problems import Posed, Problem
from gwg_dist.compare.summary import SHOWN, SLOWEST, Summary
from gwg_dist.evaluation.mixing import Estimate

NOTHING = "–"


def kernel_table(found: list[Summary], *, title: str) -> Table:
    """What each kernel is after its warm-up, what a step costs and how it approaches the target."""
    table = Table(title=title, title_justify="left")
    table.add_column("kernel", no_wrap=True)
    for column in ("accepted", "hops", "gradients", "evaluations", "ms", "converged", "log10 RMSE", "MMD²"):
        table.add_column(column, justify="right")
    table.add_column("after the warm-up", overflow="fold")
    for each in found:
        table.add_row(
            each.kernel, f"{each.accept_prob:.3f}", number(each.hops), number(each.gradients),
            number(each.evaluations), number(1e3 * each.seconds), number(each.converged),
            NOTHING if not each.rmse else f"{math.log10(each.rmse):.2f}",
            NOTHING if each.mmd is None else f"{each.mmd:.1e}", shortened(each.tuned[0]),
        )  # fmt: skip
    return table


def rate_table(found: list[Summary], *, caption: str = "") -> Table:
    """Effective samples a thousand steps and gradients of a chain, and a second of all chains, with 90 % intervals."""
    title = "Effective samples: of a chain a 1,000 steps or gradients, of all chains a second; times the first kernel's"
    table = Table(title=title, title_justify="left", caption=escape(caption), caption_justify="left")
    table.add_column("kernel", no_wrap=True)
    table.add_column("observable", no_wrap=True)
    for column in ("time, steps", "a 1,000 steps", "a 1,000 gradients", "x first", "a second", "x first"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note")
    for each in found:
        for observable in SHOWN:
            rate = each.rates[observable]
            name = f"{SLOWEST}: {rate.observable}" if observable == SLOWEST else observable
            table.add_row(
                each.kernel if observable == SHOWN[0] else "", name, shown(rate.time), number(rate.per_step.value),
                shown(rate.per_gradient), gain(rate.gain_per_gradient), shown(rate.per_second),
                gain(rate.gain_per_second), rate.note,
                end_section=observable == SHOWN[-1],
            )  # fmt: skip
    return table


def shown(estimate: Estimate | None) -> str:
    """An estimate with its interval; a dash where nothing was measured."""
    if estimate is None or math.isnan(estimate.value):
        return NOTHING
    low, high = estimate.interval()
    return number(estimate.value) if math.isnan(low) else f"{number(estimate.value)} ({number(low)}–{number(high)})"


def gain(estimate: Estimate | None) -> str:
    """``shown``, the estimate in bold; 1 for the kernel that the others are measured against."""
    text = shown(estimate)
    value, bracket, interval = text.partition(" (")
    if text == NOTHING:
        return text
    return f"[bold]{value}[/]{bracket}{interval}"


def number(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shortened(text: str) -> str:
    """A kernel as text without what is longer than a line."""
    return text if len(text) <= 60 else text[:57] + "..."


def caption_of(elsewhere: dict[str, list[str]]) -> str:
    """What was measured by other code or another machine than the title names; "" where nothing was."""
    return "\n".join(f"measured elsewhere, by {origin}: {'; '.join(units)}" for origin, units in elsewhere.items())


def title_of(problem: Problem, posed: Posed, machine: dict[str, Any]) -> str:
    """What was compared on what, in a line."""
    plain = (f"{name} {value}" for name, value in vars(problem).items() if isinstance(value, int | float | str | tuple))
    target = f"{type(posed.target.energy).__name__} on {posed.target.space}"
    samples = f"samples: {posed.source}" if posed.source else "no samples"
    where = f"{machine['device']}, {machine['threads']} thread, {machine['date']}"
    return f"{type(problem).__name__}, {', '.join(plain)}: {target}, {samples}; {where}"
