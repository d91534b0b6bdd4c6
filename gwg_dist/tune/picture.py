"""The picture of a sweep: likelihoods over iterations, and over every setting that was varied."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gwg_dist.tune.records import State, Trial, best_trial
from gwg_dist.tune.space import Domain, SearchSpace
from gwg_dist.tune.sweep import Sweep

COLOURS = {State.FINISHED: "tab:blue", State.STOPPED: "tab:gray", State.DIVERGED: "tab:red", State.OPEN: "tab:orange"}
MAX_PANELS = 11


def draw(path: Path, trials: list[Trial], sweep: Sweep, space: SearchSpace) -> None:
    """One panel of curves, one panel of points for each setting; the best trial is starred."""
    keys = list(space)[:MAX_PANELS]
    num = len(keys) + 1
    columns = 2 if num in (2, 4) else min(num, 3)
    rows = math.ceil(num / columns)
    best = best_trial(trials, sweep.mode)
    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
        curves, *panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
        for panel in panels[len(keys) :]:
            panel.remove()
        for trial in trials:
            draw_curve(curves, trial, trial is best)
        for panel, key in zip(panels, keys, strict=False):
            for trial in trials:
                draw_setting(panel, trial, trial is best, key, space[key], sweep.mode)
            scale_setting(panel, key, space[key])
        values = [found.value for trial in trials if (found := trial.best(sweep.mode)) and found.value is not None]
        room = 0.08 * (max(values) - min(values)) or 1.0
        curves.set_ylim(min(values) - room, max(values) + room)  # the way there may be cut
        curves.set_xlabel("iteration")
        curves.set_ylabel(f"{sweep.metric}, nats" if sweep.metric.endswith("likelihood") else sweep.metric)
        for state in sorted({drawn_state(trial) for trial in trials}):
            curves.plot([], [], color=COLOURS[state], label=state)
        curves.legend(fontsize=8, loc="lower right" if sweep.mode == "max" else "upper right")
        figure.savefig(path, dpi=130)


def drawn_state(trial: Trial) -> State:
    """The state under which a trial is drawn; open where it has not ended."""
    return State(trial.state) if trial.state in COLOURS else State.OPEN


def draw_curve(panel: Axes, trial: Trial, is_best: bool) -> None:
    """Every evaluation on the way of a trial; gaps where an estimate collapsed."""
    iterations = [evaluation.iteration for evaluation in trial.evaluations]
    values = [math.nan if evaluation.value is None else evaluation.value for evaluation in trial.evaluations]
    [line] = panel.plot(iterations, values, marker=".", markersize=3, color=COLOURS[drawn_state(trial)])
    line.set(linewidth=2 if is_best else 0.9, alpha=1 if is_best else 0.6, zorder=3 if is_best else 2)


def draw_setting(panel: Axes, trial: Trial, is_best: bool, key: str, domain: Domain, mode: str) -> None:
    """A trial's best value over one setting; a cross at the edge where it has none."""
    if key not in trial.settings or not trial.evaluations:
        return
    place: Any = trial.settings[key]
    if domain.kind == "choice":
        place = domain.values.index(place)
    colour, best = COLOURS[drawn_state(trial)], trial.best(mode)
    if best is None or best.value is None:
        panel.plot([place], [0.03], "x", color=colour, transform=panel.get_xaxis_transform())
    elif is_best:
        panel.errorbar(place, best.value, yerr=best.stderr, color=colour, fmt="*", markersize=12, zorder=3)
    else:
        panel.errorbar(place, best.value, yerr=best.stderr, color=colour, fmt="o", markersize=4, alpha=0.7, zorder=2)


def scale_setting(panel: Axes, key: str, domain: Domain) -> None:
    """The axis of a setting."""
    panel.set_xlabel(key)
    if domain.kind == "choice":
        names = [str(value).rsplit(".", 1)[-1] for value in domain.values]
        panel.set_xticks(range(len(names)), names)
        panel.set_xlim(-0.5, len(names) - 0.5)
    elif domain.is_log:
        low, high = domain.values
        panel.set_xscale("log")
        panel.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
