"""What a sweep found: a table, results.csv, best.yaml, sweep.png. All out of the trials' folders."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gwg_dist.callbacks import console
from gwg_dist.tune.records import FINISHED, RUNNING, STOPPED, Trial, TrialEvaluation, best_trial, signed
from gwg_dist.tune.space import SearchSpace

CSV, BEST_CONFIG, PICTURE = "results.csv", "best.yaml", "sweep.png"
FILE_WIDTH = 160
STYLES = {RUNNING: "cyan", STOPPED: "dim", "failed": "red", "diverged": "red"}


def describe(trial: Trial, evaluation: TrialEvaluation, metric: str) -> str:
    """One line of a report."""
    settings = " ".join(f"{key}={shown(value)}" for key, value in trial.settings.items())
    return f"trial {trial.number}: iteration {evaluation.iteration}  {metric} {value_of(evaluation)}  {settings}"


def value_of(evaluation: TrialEvaluation | None) -> str:
    """A value with its error bar and effective sample size, or why there is none."""
    if evaluation is None:
        return ""
    if evaluation.value is None:
        return evaluation.why
    return f"{evaluation.value:.2f} ± {evaluation.stderr:.2f}, ESS {evaluation.ess:.0f}"


def shown(value: Any) -> str:
    """A setting's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(trials: list[Trial], keys: list[str], metric: str, mode: str, *, title: str, rows: int = 0) -> Table:
    """A row a trial, the best one marked; where there are more than ``rows``, those that run and the best."""
    best = best_trial(trials, mode)
    kept = trials
    if rows and len(trials) > rows:
        ranked = sorted(trials, key=lambda trial: (trial.state != RUNNING, rank_of(trial, mode)))
        kept = sorted(ranked[:rows], key=lambda trial: trial.number)
        title += f", {rows} shown"
    view = Table(title=title, title_justify="left")
    view.add_column("trial", justify="right")
    for key in keys:
        view.add_column(short_name(key, keys), justify="right", overflow="fold")
    for name in ("iteration", metric, "± log Z", "ESS"):
        view.add_column(name, justify="right")
    view.add_column("state")
    for trial in kept:
        evaluation = trial.best(mode)
        last = trial.evaluations[-1] if trial.evaluations else None
        values = ("", "", "") if evaluation is None else (
            f"{evaluation.value:.2f}", f"{evaluation.stderr:.2f}", f"{evaluation.ess:.0f}"
        )  # fmt: skip
        notes = [
            trial.state,
            trial.problem,
            last.why if last and last.why != trial.state else "",
            "best" * (trial is best),
        ]
        view.add_row(
            str(trial.number), *(shown(trial.settings.get(key, "")) for key in keys), str(trial.iteration), *values,
            ", ".join(note for note in notes if note),
            style="bold green" if trial is best else STYLES.get(trial.state),
        )  # fmt: skip
    return view


def print_table(view: Table) -> None:
    """On a terminal in its width; in a file, wide enough not to break lines."""
    (console if console.is_terminal else Console(stderr=True, width=FILE_WIDTH)).print(view)


def rank_of(trial: Trial, mode: str) -> float:
    """Small where good."""
    best = trial.best(mode)
    return math.inf if best is None else -signed(best, mode)


def short_name(key: str, keys: list[str]) -> str:
    """The last part of a key where that is enough to tell it from the others."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key


def write_results(
    sweep: Path, trials: list[Trial], space: SearchSpace, metric: str, mode: str, dump: Callable[[dict[str, Any]], str]
) -> list[str]:
    """Write what there is; returns the names of the files.

    Args:
        sweep: the folder.
        trials: that have begun.
        space: what varied.
        metric: the key of what was optimised.
        mode: "max" or "min".
        dump: the settings of a point as YAML.
    """
    written = [CSV]
    write_csv(sweep / CSV, trials, list(space), metric, mode)
    best = best_trial(trials, mode)
    if best is not None:
        evaluation = best.best(mode)
        head = (
            f"# The best of {len(trials)} trials of {sweep.name}: trial {best.number} ({best.state}), {metric}\n"
            f"# {value_of(evaluation)} at iteration {evaluation.iteration if evaluation else 0}.\n"
        )
        replace_text(sweep / BEST_CONFIG, head + dump(best.point))
        written.append(BEST_CONFIG)
    if any(trial.best(mode) for trial in trials):
        try:
            from gwg_dist.tune.picture import draw
        except ImportError:
            console.print("sweep.png is not drawn: pip install 'gwg-dist[plot]'")
        else:
            draw(sweep / PICTURE, trials, space, metric, mode)
            written.append(PICTURE)
    return written


def write_csv(path: Path, trials: list[Trial], keys: list[str], metric: str, mode: str) -> None:
    """A row a trial: its best evaluation, and where it finished the likelihoods of its results.json."""
    finals = sorted({name for trial in trials for name in trial.results.get("likelihood", {})}, reverse=True)
    head = ["trial", *keys, "iteration", "best_iteration", metric, "log_z_stderr", "ess"]
    head += [f"final_{name}{part}" for name in finals for part in ("", "_stderr")] + [
        "final_collapsed",
        "state",
        "folder",
    ]
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for trial in trials:
            best = trial.best(mode)
            found = ("", "", "", "") if best is None else (best.iteration, best.value, best.stderr, best.ess)
            likelihood = trial.results.get("likelihood", {})
            final = [likelihood.get(name, {}).get(part, "") for name in finals for part in ("mean", "stderr")]
            collapsed = trial.results["ais"]["collapsed"] if trial.state == FINISHED and trial.results else ""
            settings = [trial.settings.get(key, "") for key in keys]
            end = [collapsed, trial.state, trial.folder]
            writer.writerow([trial.number, *settings, trial.iteration, *found, *final, *end])
    os.replace(beside, path)


def replace_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    os.replace(beside, path)
