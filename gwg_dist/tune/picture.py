"""The picture of a sweep: likelihoods over iterations, and over every setting that was varied."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gwg_dist.tune.records import DIVERGED, FINISHED, STOPPED, Trial, best_trial
from gwg_dist.tune.space import Domain, SearchSpace

COLOURS = {FINISHED: "tab:blue", STOPPED: "tab:gray", DIVERGED: "tab:red"}
OTHER = "tab:orange"
MAX_PANELS = 11


def draw(path: Path, trials: list[Trial], space: SearchSpace, metric: str, mode: str) -> None:
    """One panel of curves, one panel of points for each setting; the best trial is starred."""
    keys = list(space)[:MAX_PANELS]
    num = len(keys) + 1
    columns = 2 if num in (2, 4) else min(num, 3)
    rows = math.ceil(num / columns)
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
        panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel in panels[num:]:
            panel.remove()
        best = best_trial(trials, mode)
        draw_curves(panels[0], trials, best)
        panels[0].set_ylabel(f"{metric}, nats" if metric.endswith("likelihood") else metric)
        for panel, key in zip(panels[1:], keys, strict=False):
            draw_setting(panel, trials, best, key, space[key], mode)
            panel.sharey(panels[0])
        limits = y_limits(trials, mode)
        if limits is not None:
            panels[0].set_ylim(*limits)
        for panel in panels[:num]:
            panel.grid(alpha=0.3)
        used = {trial.state if trial.state in COLOURS else "open" for trial in trials}
        handles = [panels[0].plot([], [], color=COLOURS.get(name, OTHER), label=name)[0] for name in sorted(used)]
        panels[0].legend(handles=handles, fontsize=8, loc="lower right" if mode == "max" else "upper right")
        figure.savefig(path, dpi=130)


def draw_curves(panel: Axes, trials: list[Trial], best: Trial | None) -> None:
    """What every trial reported on its way; gaps where an estimate collapsed."""
    for trial in trials:
        iterations = [evaluation.iteration for evaluation in trial.evaluations]
        values = [math.nan if evaluation.value is None else evaluation.value for evaluation in trial.evaluations]
        strong = trial is best
        panel.plot(
            iterations, values, color=COLOURS.get(trial.state, OTHER), marker=".", markersize=3,
            linewidth=2 if strong else 0.9, alpha=1 if strong else 0.6, zorder=3 if strong else 2,
        )  # fmt: skip
    panel.set_xlabel("iteration")


def draw_setting(panel: Axes, trials: list[Trial], best: Trial | None, key: str, domain: Domain, mode: str) -> None:
    """Every trial's best value over one setting; a cross at the edge where it has none."""
    choices = [str(value) for value in domain.values] if domain.kind == "choice" else []
    for trial in trials:
        if key not in trial.settings or not trial.evaluations:
            continue
        evaluation = trial.best(mode)
        setting: Any = choices.index(str(trial.settings[key])) if choices else trial.settings[key]
        if evaluation is None:
            edge = panel.get_xaxis_transform()
            panel.plot([setting], [0.03], "x", color=COLOURS.get(trial.state, OTHER), transform=edge)
            continue
        panel.errorbar(
            setting, evaluation.value or 0.0, yerr=evaluation.stderr,
            color=COLOURS.get(trial.state, OTHER), fmt="*" if trial is best else "o",
            markersize=12 if trial is best else 4, alpha=1 if trial is best else 0.7, zorder=3 if trial is best else 2,
        )  # fmt: skip
    panel.set_xlabel(key)
    if choices:
        panel.set_xticks(range(len(choices)), [choice.rsplit(".", 1)[-1] for choice in choices])
        panel.set_xlim(-0.5, len(choices) - 0.5)
    elif domain.is_log:
        low, high = domain.values
        panel.set_xscale("log")
        panel.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())


def y_limits(trials: list[Trial], mode: str) -> tuple[float, float] | None:
    """Room for what every trial reached; the way there may be cut."""
    values = [best.value for trial in trials if (best := trial.best(mode)) is not None and best.value is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room
