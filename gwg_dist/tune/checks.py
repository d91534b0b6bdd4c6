"""Whether the settings of a sweep fit each other and the sweep that is resumed."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from gwg_dist.tools.errors import InputError
from gwg_dist.tune.space import SearchSpace, grid_points, random_points
from gwg_dist.tune.sweep import Sweep

SWEEP_FILE = "sweep.yaml"
CHOICES = {
    "metric": ("val/log_likelihood", "ais/ess", "ais/log_z_stderr"),
    "search": ("random", "grid", "optuna"),
    "scheduler": ("asha", "pbt", "none"),
    "mode": ("max", "min"),
}
LEAST = {
    "num_trials": 0,
    "workers": 1,
    "cpus": 0.1,
    "max_concurrent": 0,
    "grace_iterations": 0,
    "reduction_factor": 2,
    "max_failures": 0,
}
WITH_PBT = {"search": "random", "workers": 1, "max_concurrent": 0}
NUM_TRIALS = 16
# All trials of a sweep share these, whenever they run.
KEPT = ("experiment", "settings", "space", "search", "metric", "mode", "seed")


def check(sweep: Sweep) -> None:
    """Check every setting by itself, and those of pbt. Raises InputError."""
    metric = sweep.metric
    if not metric:
        names = ", ".join(CHOICES["metric"])
        raise InputError(f"metric: say what to compare trials by, there is no default: {names}")
    if metric.startswith("test/"):
        raise InputError(f"metric: {metric} would choose settings by the test set, which must stay unseen; use val/")
    for name, known in CHOICES.items():
        if getattr(sweep, name) not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(sweep, name)!r}")
    for name, low in LEAST.items():
        if getattr(sweep, name) < low:
            raise InputError(f"{name} must be at least {low}, got {getattr(sweep, name):g}")
    if sweep.gpus is not None and sweep.gpus < 0:
        raise InputError(f"gpus must not be negative, got {sweep.gpus:g}")
    if sweep.workers > 1 and sweep.gpus is not None and sweep.gpus != int(sweep.gpus):
        raise InputError(f"gpus must be whole where a trial has {sweep.workers} workers, got {sweep.gpus:g}")
    if sweep.search == "optuna" and find_spec("optuna") is None:
        raise InputError("search optuna needs Optuna: pip install 'gwg-dist[tune]'")
    for name, only in WITH_PBT.items() if sweep.scheduler == "pbt" else ():
        if getattr(sweep, name) != only:
            raise InputError(f"{name} must be {only} with scheduler pbt, got {getattr(sweep, name)!r}")


def check_grace(sweep: Sweep, every: int, max_steps: int) -> int:
    """Iterations before the first decision. Raises InputError where there would be none."""
    grace = sweep.grace_iterations or every
    if sweep.scheduler != "none" and not every <= grace < max_steps:
        raise InputError(
            f"grace_iterations must lie in evaluation.every ({every}) to below trainer.max_steps ({max_steps}) "
            f"with scheduler {sweep.scheduler}, got {grace}"
        )
    return grace


def check_same(sweep: Sweep, folder: Path) -> None:
    """Raises InputError where a resumed sweep would mix trials that do not compare."""
    before = asdict(Sweep(**yaml.safe_load((folder / SWEEP_FILE).read_text())))
    now = yaml.safe_load(yaml.safe_dump(asdict(sweep)))
    for name in KEPT:
        if before[name] != now[name]:
            raise InputError(f"{name}: a resumed sweep keeps it: {before[name]!r} there, {now[name]!r} now")


def planned(sweep: Sweep, space: SearchSpace) -> list[dict[str, Any]]:
    """The points of all trials, by number; for a search that proposes them, as many empty ones."""
    if sweep.search == "grid":
        points = grid_points(space)
        if sweep.num_trials not in (0, len(points)):
            raise InputError(f"num_trials: the grid has {len(points)} points, got {sweep.num_trials}")
        return points
    num = sweep.num_trials or NUM_TRIALS
    return [{} for _ in range(num)] if sweep.search == "optuna" else random_points(space, num, sweep.seed)
