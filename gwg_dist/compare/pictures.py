"""Pictures of a comparison: the way to the target over steps and seconds, effective samples, autocorrelation."""

from __future__ import annotations

import math
from pathlib import Path

from gwg_dist.compare.measure import Unit
from gwg_dist.compare.summary import SLOWEST, Summary

SIZE, DPI = (8.4, 3.4), 130


def draw(folder: Path, units: dict[str, list[Unit]], found: list[Summary]) -> list[Path]:
    """Draw what there is to draw; the files. Raises ImportError where matplotlib is not installed."""
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 8, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 7}):
        drawn = [draw_curves(folder / "rmse.png", units, "rmse", "log10 RMSE of marginals"),
                 draw_curves(folder / "mmd.png", units, "mmd", "log10 MMD²"),
                 draw_rates(folder / "ess.png", found),
                 draw_autocorrelation(folder / "autocorrelation.png", units)]  # fmt: skip
    return [path for path in drawn if path is not None]


def draw_curves(path: Path, units: dict[str, list[Unit]], name: str, label: str) -> Path | None:
    """A curve a kernel, the mean over seeds, over steps and seconds after the start; None where there is none."""
    from matplotlib.figure import Figure

    if not any(getattr(seeds[0], name) for seeds in units.values()):
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    for kernel, seeds in units.items():
        curves = [getattr(unit, name) for unit in seeds]
        means = [sum(values) / len(values) for values in zip(*curves, strict=True)]
        logs = [math.log10(value) if value > 0 else math.nan for value in means]
        steps = seeds[0].curve_steps
        seconds = sum(unit.seconds for unit in seeds) / len(seeds)
        by_steps.semilogx(steps, logs, label=kernel, nonpositive="mask")
        by_seconds.semilogx([step * seconds for step in steps], logs, label=kernel, nonpositive="mask")
    by_steps.set_xlabel("steps")
    by_seconds.set_xlabel("seconds")
    by_steps.set_ylabel(label)
    by_steps.legend()
    figure.savefig(path, dpi=DPI)
    return path


def draw_rates(path: Path, found: list[Summary]) -> Path:
    """Bars of the effective samples of the slowest observable: a 1,000 gradients, and a second beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [each.kernel for each in found]
    rates = [each.rates[SLOWEST] for each in found]
    sides = (([rate.per_gradient for rate in rates], "a chain's 1,000 gradients"),
             ([rate.per_second for rate in rates], "a second"))  # fmt: skip
    for panel, (estimates, label) in zip(panels, sides, strict=True):
        for row, estimate in enumerate(estimates):
            if estimate is None or math.isnan(estimate.value):
                continue
            low, high = estimate.interval()
            panel.barh(row, estimate.value, color=f"C{row}", alpha=0.8)
            if not math.isnan(low):
                panel.plot([low, high], [row, row], color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_xlabel(f"effective samples of the slowest observable, {label}")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=DPI)
    return path


def draw_autocorrelation(path: Path, units: dict[str, list[Unit]]) -> Path:
    """The autocorrelation of f over steps and over seconds, of the first seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    for kernel, (unit, *_) in units.items():
        steps = [unit.every * lag for lag in range(1, len(unit.autocorrelation))]
        by_steps.semilogx(steps, unit.autocorrelation[1:], label=kernel)
        by_seconds.semilogx([step * unit.seconds for step in steps], unit.autocorrelation[1:], label=kernel)
    by_steps.set_xlabel("steps")
    by_seconds.set_xlabel("seconds")
    by_steps.set_ylabel("autocorrelation of f")
    by_steps.legend()
    figure.savefig(path, dpi=DPI)
    return path
