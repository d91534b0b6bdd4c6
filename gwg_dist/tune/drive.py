"""Runs the trials of a sweep on Ray Tune and says what came out."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from gwg_dist.callbacks import console
from gwg_dist.errors import LostError
from gwg_dist.fit import REQUEUE
from gwg_dist.tune.recipe import Recipe
from gwg_dist.tune.records import ENDS, FAILED, FINISHED, Trial, best_trial, last_error, read_trials
from gwg_dist.tune.results import BEST_CONFIG, print_table, table, write_results
from gwg_dist.tune.schedule import Halving, Population
from gwg_dist.tune.settings import Sweep
from gwg_dist.tune.show import Display
from gwg_dist.tune.trial import DRIVER_CPUS, Job, run_trial

TrialStart = Callable[[int, dict[str, Any]], dict[str, Any]]

RAY, RAY_LOG = "ray", "ray.log"  # Ray's own files in the folder of a sweep; nothing is resumed from them
INTERRUPTED = 130


class Stop(Stopper):
    """Ends all trials once a signal has come. A second one does not wait."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.received = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
        self.display.stopping = True

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.received != 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a sweep is resumed from its folders


def drive(
    sweep: Sweep,
    recipe: Recipe,
    folder: Path,
    points: list[dict[str, Any]],
    *,
    gpus: float,
    grace: int,
    every: int,
    max_steps: int,
    at_once: int,
) -> int:
    """Run what is left of the sweep in ``folder``, write and print what there is; returns the exit code.

    Args:
        sweep: its settings.
        recipe: that turns points into runs.
        folder: of the sweep.
        points: of all trials, by number; empty where the search proposes them.
        gpus: of each worker.
        grace: iterations before the first decision.
        every: iterations between two evaluations.
        max_steps: iterations of a whole run.
        at_once: trials.
    """
    job = Job(
        sweep=str(folder), cwd=os.getcwd(), metric=sweep.metric, mode=sweep.mode, workers=sweep.workers,
        cpus=sweep.cpus, gpus=gpus, max_failures=sweep.max_failures, passes_on=sweep.scheduler == "pbt",
    )  # fmt: skip
    before = read_trials(folder)

    def start(number: int, point: dict[str, Any]) -> dict[str, Any]:
        left_out = [key for key in point if key not in recipe.settings(point)]
        args = recipe.trial_args(point, workers=sweep.workers)
        return {"number": number, "point": point, "left_out": left_out, "args": args}

    known = {trial.number: trial for trial in before}
    todo = [number for number in range(len(points)) if number not in known or known[number].state not in ENDS]
    num = sum(trial.state not in ENDS for trial in before) + max(len(points) - len(before), 0)
    display = Display(job, list(recipe.space), before, num_trials=len(points), max_steps=max_steps)
    stop = Stop(display)
    console.print(
        f"sweep folder: {folder}\n{num} trials of {len(points)} to run, {at_once} at once, "
        f"{sweep.workers} x ({sweep.cpus:g} CPUs, {gpus:g} GPUs) each", soft_wrap=True,
    )  # fmt: skip
    if num:
        param_space: dict[str, Any] = {"job": asdict(job)}
        search: Any = None
        if sweep.search == "optuna":
            from gwg_dist.tune.search import Optuna

            search = Optuna(
                recipe.space, mode=sweep.mode, num_trials=len(points), seed=sweep.seed, before=before,
                config=lambda number, point: param_space | {"start": start(number, point)},
            )  # fmt: skip
        else:
            starts = [start(number, known[number].point if number in known else points[number]) for number in todo]
            param_space["start"] = tune.grid_search(starts)
        shutil.rmtree(folder / RAY, ignore_errors=True)
        tuner = tune.Tuner(
            trainable(sweep, gpus),
            param_space=None if search else param_space,
            tune_config=tune.TuneConfig(
                metric=None if sweep.scheduler != "none" else "objective",
                mode=None if sweep.scheduler != "none" else sweep.mode,
                search_alg=search,
                scheduler=scheduler(sweep, recipe, before, job, start, grace=grace, max_steps=max_steps),
                num_samples=num if search else 1,
                max_concurrent_trials=None if sweep.scheduler == "pbt" else at_once, reuse_actors=sweep.workers == 1,
                trial_dirname_creator=lambda trial: f"{trial.config['start']['number']:04d}",
            ),
            run_config=tune.RunConfig(
                name=RAY, storage_path=str(folder), verbose=0, callbacks=[display], stop=stop,
                failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
                # A trial that waits holds up its donor at the next look, so its checkpoint is not deleted before.
                checkpoint_config=tune.CheckpointConfig(num_to_keep=grace // every + 3),
            ),
        )  # fmt: skip
        try:
            with handlers(stop), ray_log(folder / RAY_LOG), display:
                tuner.fit()
        except (RayError, tune.TuneError) as error:
            raise LostError(
                f"Ray has failed, see {folder / RAY_LOG}: {str(error).splitlines()[0]}; "
                f"go on with: python -m gwg_dist.tune --resume {folder}"
            ) from error
    return conclude(sweep, recipe, folder, display, stop.received, len(points))


def trainable(sweep: Sweep, gpus: float) -> Any:
    """A trial with what it takes: all of it, or next to nothing where it starts workers."""
    resources = {"cpu": sweep.cpus, "gpu": gpus} if sweep.workers == 1 else {"cpu": DRIVER_CPUS}
    return tune.with_resources(run_trial, resources)


def scheduler(
    sweep: Sweep, recipe: Recipe, before: list[Trial], job: Job, start: TrialStart, *, grace: int, max_steps: int
) -> TrialScheduler:
    """The one of the settings."""
    if sweep.scheduler == "asha":
        return Halving(grace=grace, factor=sweep.reduction_factor, max_steps=max_steps, mode=sweep.mode, before=before)
    if sweep.scheduler == "pbt":
        return Population(
            every=grace, share=1 / sweep.reduction_factor, max_steps=max_steps, mode=sweep.mode, space=recipe.space,
            config=lambda number, point: {"job": asdict(job), "start": start(number, point)}, seed=sweep.seed,
        )  # fmt: skip
    return FIFOScheduler()


@contextmanager
def handlers(stop: Stop) -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM end the sweep."""
    previous = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ray_log(path: Path) -> Iterator[None]:
    """Within it Ray's own messages of this process go to a file."""
    logger = logging.getLogger("ray")
    handler, previous = logging.FileHandler(path, delay=True), list(logger.handlers)
    handler.setLevel(logging.ERROR)
    for old in previous:
        logger.removeHandler(old)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for old in previous:
            logger.addHandler(old)


def conclude(sweep: Sweep, recipe: Recipe, folder: Path, display: Display, signal_number: int, num: int) -> int:
    """The closing table, the files, and what to type next."""
    trials = read_trials(folder)
    for trial in trials:
        if trial.state not in ENDS and display.trials.get(trial.number, trial).state == FAILED:
            trial.state, trial.problem = FAILED, last_error(trial.folder)
    files = write_results(folder, trials, recipe.space, sweep.metric, sweep.mode, recipe.dump)
    counts = {state: sum(trial.state == state for trial in trials) for state in (*ENDS, FAILED)}
    ended = sum(counts[state] for state in ENDS)
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial has ended"
    print_table(table(trials, list(recipe.space), sweep.metric, sweep.mode, title=f"{num} trials: {title}"))
    console.print(f"written to {folder}: {', '.join(files)}", soft_wrap=True)
    best = best_trial(trials, sweep.mode)
    if best is None and trials:
        console.print("no trial has an estimate that is to be believed: more evaluation.num_temperatures may help")
    elif best is not None and best.state == FINISHED:
        console.print(f"next: python -m gwg_dist.evaluate {best.folder} --num_temperatures 20000", soft_wrap=True)
        console.print(f"      python -m gwg_dist.fit --config {folder / BEST_CONFIG}", soft_wrap=True)
    elif best is not None:
        console.print(f"next: python -m gwg_dist.fit --config {folder / BEST_CONFIG}", soft_wrap=True)
    if not signal_number and ended == num:
        shutil.rmtree(folder / RAY, ignore_errors=True)
        return 0
    console.print(f"go on with: python -m gwg_dist.tune --resume {folder}", soft_wrap=True)
    if signal_number:
        return INTERRUPTED if signal_number == signal.SIGINT else REQUEUE
    return 1
