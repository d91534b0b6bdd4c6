"""Runs the trials of a sweep on Ray Tune and says what came out."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.stopper import Stopper

from gwg_dist.tools import trust
from gwg_dist.tools.commands import LOST, code_of_signal
from gwg_dist.tools.errors import LostError
from gwg_dist.tools.terminal import console
from gwg_dist.tune.plan import Plan
from gwg_dist.tune.records import ENDS, State, Trial, best_trial, read_trials
from gwg_dist.tune.results import BEST_CONFIG, print_table, table, write_results
from gwg_dist.tune.schedule import make_scheduler, number_of
from gwg_dist.tune.show import Display
from gwg_dist.tune.trial import RAY, run_trial, trial_resources


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
    sweep, folder, num, stop = plan.sweep, plan.sweep.folder, len(plan.points), Stop()
    before = read_trials(folder)
    num_left = num - sum(trial.state in ENDS for trial in before)
    display = Display(plan, stop.stop_all)
    each = f"{sweep.workers} x ({sweep.cpus:g} CPUs, {sweep.gpus:g} GPUs) each"
    console.print(f"sweep folder: {folder}", soft_wrap=True)
    console.print(f"{num_left} trials of {num} to run, {plan.at_once} at once, {each}", soft_wrap=True)
    if num_left:
        shutil.rmtree(folder / RAY, ignore_errors=True)
        log = folder / "ray.log"
        try:
            with handlers(stop), ray_log(log), display:
                make_tuner(plan, before, display, stop).fit()
        except (RayError, tune.TuneError) as error:
            reason = f"Ray has failed, see {log}: {str(error).splitlines()[0]}"
            raise LostError(f"{reason}; go on with: python -m gwg_dist.tune --resume {folder}") from error
    return conclude(plan, display, stop.received)


def make_tuner(plan: Plan, before: list[Trial], display: Display, stop: Stop) -> tune.Tuner:
    """Ray's Tuner of all trials that have not ended."""
    sweep = plan.sweep
    search, param_space = None, None
    points = dict(enumerate(plan.points)) | {trial.number: trial.point for trial in before}
    for trial in before:
        if trial.state in ENDS:
            del points[trial.number]
    if sweep.search == "optuna":
        from gwg_dist.tune.search import Optuna

        space, num = plan.recipe.space, len(plan.points)
        search = Optuna(space, mode=sweep.mode, num_trials=num, seed=sweep.seed, before=before, config=plan.config)
    else:
        param_space = {"start": tune.grid_search([plan.config(n, points[n])["start"] for n in sorted(points)])}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, sweep=sweep), trial_resources(sweep)),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=make_scheduler(plan, before),
            num_samples=len(points) if search else 1,
            max_concurrent_trials=None if sweep.scheduler == "pbt" else plan.at_once,
            reuse_actors=sweep.workers == 1,
            trial_dirname_creator=lambda trial: f"{number_of(trial):04d}",
        ),
        run_config=tune.RunConfig(
            name=RAY,
            storage_path=str(sweep.folder),
            verbose=0,
            callbacks=[display],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            # A trial that waits holds up its donor at the next look, so its checkpoint is not deleted before.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=plan.grace // plan.every + 3),
        ),
    )


@contextmanager
def handlers(stop: Stop) -> Iterator[None]:
    """Within it Ctrl-C, SIGTERM and SIGHUP end the sweep; nohup ignores the last."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    previous = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
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
    sweep, folder, recipe = plan.sweep, plan.sweep.folder, plan.recipe
    trials = display.trials()
    files = write_results(folder, trials, sweep, recipe.space, recipe.dump)
    counts = {state: sum(trial.state == state for trial in trials) for state in (*ENDS, State.FAILED)}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial has ended"
    print_table(table(trials, sweep, recipe.space, title=f"{len(plan.points)} trials: {title}"))
    say = partial(console.print, soft_wrap=True)
    say(f"written to {folder}: {', '.join(files)}")
    best = best_trial(trials, sweep.mode)
    if best is None and trials:
        say("no trial has an estimate that is to be believed: more evaluation.num_temperatures may help")
    trusting = trust.option(trust.modules(recipe.trust))
    if best is not None:
        say(f"next: python -m gwg_dist.fit --config {folder / BEST_CONFIG}{trusting}")
        if best.state == State.FINISHED:
            say(f"      python -m gwg_dist.evaluate {best.folder} --num_temperatures 20000{trusting}")
    if not signal_number and sum(counts[state] for state in ENDS) == len(plan.points):
        shutil.rmtree(folder / RAY, ignore_errors=True)
        return 0
    say(f"go on with: python -m gwg_dist.tune --resume {folder}{trusting}")
    return code_of_signal(signal_number) if signal_number else LOST
