"""A sweep while it runs: a table that is kept up to date on a terminal, a line for every report elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial
from rich.live import Live

from gwg_dist.tools.terminal import console
from gwg_dist.tune.plan import Plan
from gwg_dist.tune.records import ENDS, State, Trial, TrialEvaluation, last_error, mark_ended, read_trials, trial_folder
from gwg_dist.tune.results import describe, rank, table
from gwg_dist.tune.sweep import TrialStart

REFRESH_SECONDS = 1.0
STATES = {RayTrial.RUNNING: State.RUNNING, RayTrial.PAUSED: State.PAUSED, RayTrial.ERROR: State.FAILED}


class Display(Callback):
    """Shows the trials as their folders and Ray say they stand, and marks those that a scheduler stops.

    Args:
        plan: what the sweep runs.
        stopping: whether the sweep was told to stop.
    """

    def __init__(self, plan: Plan, stopping: Callable[[], bool]) -> None:
        self.plan = plan
        self.stopping = stopping
        self._states: dict[int, State] = {}
        self._starts: dict[int, TrialStart] = {}
        self._last: dict[int, TrialEvaluation] = {}
        self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._states = {number: state for number, state in self._states.items() if state == State.FAILED}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a sweep is resumed from its folders

    def trials(self) -> list[Trial]:
        """All trials that have begun, by number; of one that has not ended, Ray knows whether it runs or has failed."""
        trials = read_trials(self.plan.sweep.folder)
        for trial in trials:
            if trial.state not in ENDS:
                trial.state = self._states.get(trial.number, State.OPEN)
                trial.problem = last_error(trial.folder) if trial.state == State.FAILED else ""
        return trials

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        self._states = {start_of(trial).number: STATES.get(trial.status, State.OPEN) for trial in trials}
        if self._live is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._drawn = time.monotonic()
            sweep, begun = self.plan.sweep, sorted(self.trials(), key=lambda trial: rank(trial, self.plan.sweep.mode))
            title = f"{len(begun)} of {len(self.plan.points)} trials begun"
            self._live.update(table(begun, sweep, self.plan.recipe.space, title=title), refresh=True)

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Keep what the trial was told: a population changes it before the report that led to it is shown."""
        self._starts[start_of(trial).number] = start_of(trial)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        start, evaluation = self._starts[start_of(trial).number], TrialEvaluation.from_dict(result)
        if self._last.get(start.number) != evaluation:
            self._last[start.number] = evaluation
            self._say(describe(start, evaluation, self.plan.sweep.metric))

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Ray ends trials that are through, that a scheduler stops, and, where the sweep is told to stop, all."""
        number = start_of(trial).number
        last = self._last.get(number, TrialEvaluation(0, None))
        if self.stopping():
            state = State.OPEN
        elif last.why == State.DIVERGED:
            state = State.DIVERGED
        elif last.iteration >= self.plan.max_steps:
            state = State.FINISHED
        else:
            state = State.STOPPED
            mark_ended(trial_folder(self.plan.sweep.folder, number), state)
        self._say(f"trial {number}: {state} at iteration {last.iteration}")

    def on_trial_recover(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._failed(trial, "starts again")

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._failed(trial, "failed")

    def _failed(self, trial: RayTrial, what: str) -> None:
        number = start_of(trial).number
        reason = last_error(trial_folder(self.plan.sweep.folder, number)) or "its process ended"
        self._say(f"trial {number}: {what}: {reason}")

    def _say(self, line: str) -> None:
        """Print a line where there is no table."""
        if self._live is None:
            console.print(line, soft_wrap=True, markup=False)


def start_of(trial: RayTrial) -> TrialStart:
    """What one of Ray's trials was told."""
    return TrialStart(**trial.config["start"])
