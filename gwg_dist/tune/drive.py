"""Runs the trials of a sweep on Ray Tune and says what came out."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
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
from gwg_dist.tune.job import Job
from gwg_dist.tune.recipe import Recipe
from gwg_dist.tune.records import ENDS, FAILED, FINISHED, Trial, best_trial, last_error, read_trials
from gwg_dist.tune.results import BEST_CONFIG, print_table, table, write_results
from gwg_dist.tune.schedule import Halving, Population
from gwg_dist.tune.show import Display
from gwg_dist.tune.trial import run_trial, trial_resources

INTERRUPTED = 130


@dataclass(frozen=True)
class Plan:
    """What a sweep is about to run.

    Args:
        job: what all trials share.
        recipe: turns a point of the space into a run.
        points: the point of every trial, by number; empty where the search proposes it.
        grace: iterations before the first decision.
        every: iterations between two evaluations.
        max_steps: iterations of a whole run.
        at_once: trials that run at the same time.
    """

    job: Job
    recipe: Recipe
    points: list[dict[str, Any]]
    grace: int
    every: int
    max_steps: int
    at_once: int

    def config(self, number: int, point: dict[str, Any]) -> dict[str, Any]:
        """What Ray hands to a trial."""
        return {"start": asdict(self.recipe.start(number, point, workers=self.job.sweep.workers))}


class Stop(Stopper):
    """Ends all trials once a signal has come. A second one does not wait."""

    def __init__(self) -> None:
        self.received = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.received != 0


def drive(plan: Plan) -> int:
    """Run what is left of the sweep, write and print what there is; returns the exit code. Raises LostError."""
    sweep, folder = plan.job.sweep, plan.job.folder
    before = read_trials(folder)
    ended = {trial.number for trial in before if trial.state in ENDS}
    stop = Stop()
    display = Display(plan.job, list(plan.recipe.space), before, len(plan.points), plan.max_steps, stop.stop_all)
    num = len(plan.points) - len(ended)
    console.print(
        f"sweep folder: {folder}\n{num} trials of {len(plan.points)} to run, {plan.at_once} at once, "
        f"{sweep.workers} x ({sweep.cpus:g} CPUs, {plan.job.gpus:g} GPUs) each",
        soft_wrap=True,
    )
    if num:
        shutil.rmtree(plan.job.ray_folder, ignore_errors=True)
        log = folder / "ray.log"
        try:
            with handlers(stop), ray_log(log), display:
                make_tuner(plan, before, display, stop).fit()
        except (RayError, tune.TuneError) as error:
            raise LostError(
                f"Ray has failed, see {log}: {str(error).splitlines()[0]}; "
                f"go on with: python -m gwg_dist.tune --resume {folder}"
            ) from error
    return conclude(plan, display, stop.received)


def make_tuner(plan: Plan, before: list[Trial], display: Display, stop: Stop) -> tune.Tuner:
    """Ray's Tuner of all trials that have not ended."""
    job, sweep = plan.job, plan.job.sweep
    search, param_space, num = None, None, 1
    known = {trial.number: trial for trial in before}
    todo = [n for n in range(len(plan.points)) if n not in known or known[n].state not in ENDS]
    if sweep.search == "optuna":
        from gwg_dist.tune.search import Optuna

        search = Optuna(
            plan.recipe.space,
            mode=sweep.mode,
            num_trials=len(plan.points),
            seed=sweep.seed,
            before=before,
            config=plan.config,
        )
        num = len(todo)
    else:
        points = [known[n].point if n in known else plan.points[n] for n in todo]
        starts = [plan.config(n, point)["start"] for n, point in zip(todo, points, strict=True)]
        param_space = {"start": tune.grid_search(starts)}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, job=job), trial_resources(job)),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler(plan, before),
            num_samples=num,
            max_concurrent_trials=None if sweep.scheduler == "pbt" else plan.at_once,
            reuse_actors=sweep.workers == 1,
            trial_dirname_creator=lambda trial: f"{trial.config['start']['number']:04d}",
        ),
        run_config=tune.RunConfig(
            name=job.ray_folder.name,
            storage_path=str(job.folder),
            verbose=0,
            callbacks=[display],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            # A trial that waits holds up its donor at the next look, so that its checkpoint is not deleted before.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=plan.grace // plan.every + 3),
        ),
    )


def scheduler(plan: Plan, before: list[Trial]) -> TrialScheduler:
    """The scheduler that the settings name."""
    sweep = plan.job.sweep
    if sweep.scheduler == "asha":
        return Halving(
            grace=plan.grace,
            factor=sweep.reduction_factor,
            max_steps=plan.max_steps,
            mode=sweep.mode,
            before=before,
        )
    if sweep.scheduler == "pbt":
        return Population(
            every=plan.grace,
            share=1 / sweep.reduction_factor,
            max_steps=plan.max_steps,
            mode=sweep.mode,
            space=plan.recipe.space,
            config=plan.config,
            seed=sweep.seed,
        )
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
    handler, previous = logging.FileHandler(path, delay=True), logger.handlers
    handler.setLevel(logging.ERROR)
    logger.handlers = [handler]
    try:
        yield
    finally:
        logger.handlers = previous


def conclude(plan: Plan, display: Display, signal_number: int) -> int:
    """Print the closing table and what to type next, write the files; returns the exit code."""
    sweep, folder, recipe = plan.job.sweep, plan.job.folder, plan.recipe
    trials = read_trials(folder)
    for trial in trials:
        if trial.state not in ENDS and display.trials.get(trial.number, trial).state == FAILED:
            trial.state, trial.problem = FAILED, last_error(trial.folder)
    files = write_results(folder, trials, recipe.space, sweep.metric, sweep.mode, recipe.dump)
    counts = {state: sum(trial.state == state for trial in trials) for state in (*ENDS, FAILED)}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial has ended"
    title = f"{len(plan.points)} trials: {title}"
    print_table(table(trials, list(recipe.space), sweep.metric, sweep.mode, title=title))
    say = partial(console.print, soft_wrap=True)
    say(f"written to {folder}: {', '.join(files)}")
    best = best_trial(trials, sweep.mode)
    if best is None and trials:
        say("no trial has an estimate that is to be believed: more evaluation.num_temperatures may help")
    if best is not None:
        say(f"next: python -m gwg_dist.fit --config {folder / BEST_CONFIG}")
        if best.state == FINISHED:
            say(f"      python -m gwg_dist.evaluate {best.folder} --num_temperatures 20000")
    if not signal_number and sum(counts[state] for state in ENDS) == len(plan.points):
        shutil.rmtree(plan.job.ray_folder, ignore_errors=True)
        return 0
    say(f"go on with: python -m gwg_dist.tune --resume {folder}")
    if signal_number == signal.SIGINT:
        return INTERRUPTED
    return REQUEUE if signal_number else 1
