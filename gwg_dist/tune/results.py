"""What a sweep found: a table, results.csv, best.yaml, sweep.png. All out of the trials' folders."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gwg_dist.tools.files import replacing, write_text
from gwg_dist.tools.terminal import console
from gwg_dist.tune.records import State, Trial, TrialEvaluation, best_trial, signed
from gwg_dist.tune.space import SearchSpace
from gwg_dist.tune.sweep import Sweep, TrialStart

CSV, BEST_CONFIG, PICTURE = "results.csv", "best.yaml", "sweep.png"
FILE_WIDTH = 160
STYLES = {State.RUNNING: "cyan", State.STOPPED: "dim", State.FAILED: "red", State.DIVERGED: "red"}


def describe(start: TrialStart, evaluation: TrialEvaluation, metric: str) -> str:
    """One line of a report."""
    settings = " ".join(f"{key}={shown(value)}" for key, value in start.settings.items())
    return f"trial {start.number}: iteration {evaluation.iteration}  {metric} {value_of(evaluation)}  {settings}"


def value_of(evaluation: TrialEvaluation) -> str:
    """A value with its error bar and effective sample size, or why there is none."""
    if evaluation.value is None:
        return evaluation.why
    return f"{evaluation.value:.2f} ± {evaluation.stderr:.2f}, ESS {evaluation.ess:.0f}"


def shown(value: Any) -> str:
    """A setting's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(trials: list[Trial], sweep: Sweep, space: SearchSpace, *, title: str) -> Table:
    """A row a trial, the best one marked."""
    best = best_trial(trials, sweep.mode)
    view = Table(title=title, title_justify="left")
    view.add_column("trial", justify="right")
    for key in space:
        view.add_column(short_name(key, space), justify="right", overflow="fold")
    for name in ("iteration", sweep.metric, "± log Z", "ESS"):
        view.add_column(name, justify="right")
    view.add_column("state")
    for trial in trials:
        found = trial.best(sweep.mode)
        why = trial.evaluations[-1].why if trial.evaluations else ""
        notes = [trial.state, trial.problem, why if why != trial.state else "", "best" if trial is best else ""]
        view.add_row(
            str(trial.number),
            *(shown(trial.settings.get(key, "")) for key in space),
            str(trial.iteration),
            *((f"{found.value:.2f}", f"{found.stderr:.2f}", f"{found.ess:.0f}") if found else ("", "", "")),
            ", ".join(note for note in notes if note),
            style="bold green" if trial is best else STYLES.get(State(trial.state)),
        )
    return view


def print_table(view: Table) -> None:
    """On a terminal in its width; in a file, wide enough not to break lines."""
    (console if console.is_terminal else Console(stderr=True, width=FILE_WIDTH)).print(view)


def rank(trial: Trial, mode: str) -> tuple[bool, bool, float]:
    """Small for trials that run, then for good ones."""
    best = trial.best(mode)
    return trial.state != State.RUNNING, best is None, -signed(best, mode) if best else 0.0


def short_name(key: str, space: SearchSpace) -> str:
    """The last part of a key where that is enough to tell it from the others."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in space) == 1 else key


def write_results(
    folder: Path, trials: list[Trial], sweep: Sweep, space: SearchSpace, dump: Callable[[dict[str, Any]], str]
) -> list[str]:
    """Write what there is; returns the names of the files.

    Args:
        folder: folder of the sweep.
        trials: trials that have begun.
        sweep: settings of the sweep.
        space: what varied.
        dump: the settings of a point as YAML.
    """
    write_csv(folder / CSV, trials, sweep, space)
    best = best_trial(trials, sweep.mode)
    evaluation = best.best(sweep.mode) if best else None
    if best is None or evaluation is None:
        return [CSV]
    head = (
        f"# The best of {len(trials)} trials of {folder.name}: trial {best.number} ({best.state}), {sweep.metric}\n"
        f"# {value_of(evaluation)} at iteration {evaluation.iteration}.\n"
    )
    write_text(folder / BEST_CONFIG, head + dump(best.point))
    try:
        from gwg_dist.tune.picture import draw
    except ImportError:
        console.print("sweep.png is not drawn: pip install 'gwg-dist[plot]'")
        return [CSV, BEST_CONFIG]
    draw(folder / PICTURE, trials, sweep, space)
    return [CSV, BEST_CONFIG, PICTURE]


def write_csv(path: Path, trials: list[Trial], sweep: Sweep, space: SearchSpace) -> None:
    """A row a trial: its best evaluation, and where it finished the likelihoods of its results.json."""
    rows = []
    for trial in trials:
        row = {"trial": trial.number, **trial.settings, "iteration": trial.iteration}
        if best := trial.best(sweep.mode):
            row |= {"best_iteration": best.iteration, sweep.metric: best.value}
            row |= {"log_z_stderr": best.stderr, "ess": best.ess}
        if trial.results:
            for name, likelihood in trial.results["likelihood"].items():
                row |= {f"final_{name}": likelihood["mean"], f"final_{name}_stderr": likelihood["stderr"]}
            row["final_collapsed"] = trial.results["ais"]["collapsed"]
        rows.append(row | {"state": trial.state, "folder": trial.folder})
    finals = sorted({name for row in rows for name in row if name.startswith("final_") and name != "final_collapsed"})
    head = ["trial", *space, "iteration", "best_iteration", sweep.metric, "log_z_stderr", "ess"]
    with replacing(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, [*head, *finals, "final_collapsed", "state", "folder"])
        writer.writeheader()
        writer.writerows(rows)
