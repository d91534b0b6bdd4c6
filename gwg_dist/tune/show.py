"""A sweep while it runs: a table that is kept up to date on a terminal, a line for every report elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial
from rich.live import Live

from gwg_dist.callbacks import console
from gwg_dist.tune.job import Job, TrialStart
from gwg_dist.tune.records import (
    DIVERGED,
    ENDS,
    FAILED,
    FINISHED,
    OPEN,
    PAUSED,
    RUNNING,
    STOPPED,
    Trial,
    TrialEvaluation,
    last_error,
    mark_ended,
)
from gwg_dist.tune.results import describe, table

REFRESH_SECONDS = 0.5


class Display(Callback):
    """Follows Ray's trials, marks those that a scheduler stops, and shows all.

    Args:
        job: what all trials share.
        keys: the keys that vary.
        before: trials of earlier processes of this sweep.
        num_trials: trials of the whole sweep.
        max_steps: iterations of a whole run.
        stopping: whether the sweep was told to stop.
    """

    def __init__(
        self,
        job: Job,
        keys: list[str],
        before: list[Trial],
        num_trials: int,
        max_steps: int,
        stopping: Callable[[], bool],
    ) -> None:
        self.job = job
        self.keys = keys
        self.trials = {trial.number: trial for trial in before}
        self.num_trials = num_trials
        self.max_steps = max_steps
        self.stopping = stopping
        self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a sweep is resumed from its folders

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        for ray_trial in trials:
            trial = self._trial(ray_trial)
            if trial.state not in (*ENDS, FAILED):
                trial.state = {"RUNNING": RUNNING, "PAUSED": PAUSED}.get(ray_trial.status, trial.state)
        if self._live is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        ours, start = self._trial(trial), TrialStart(**trial.config["start"])
        ours.state, ours.problem = RUNNING, ""
        ours.point, ours.left_out = start.point, start.left_out

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict, **info: Any
    ) -> None:
        ours, evaluation = self._trial(trial), TrialEvaluation.from_dict(result)
        if evaluation not in ours.evaluations:
            ours.evaluations.append(evaluation)
            self._say(describe(ours, evaluation, self.job.sweep.metric))

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Ray ends trials that are through, that a scheduler stops, and, where the sweep is told to stop, all."""
        ours = self._trial(trial)
        if self.stopping():
            ours.state = OPEN
        elif ours.evaluations and ours.evaluations[-1].why == DIVERGED:
            ours.state = DIVERGED
        elif ours.iteration >= self.max_steps:
            ours.state = FINISHED
        else:
            ours.state = STOPPED
            mark_ended(ours.folder, STOPPED)
        self._say(f"trial {ours.number}: {ours.state} at iteration {ours.iteration}")

    def on_trial_recover(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._failed(trial, "starts again")

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._failed(trial, FAILED)

    def _failed(self, ray_trial: RayTrial, what: str) -> None:
        ours = self._trial(ray_trial)
        ours.state, ours.problem = FAILED, last_error(ours.folder) or "its process ended"
        self._say(f"trial {ours.number}: {what}: {ours.problem}")

    def _say(self, line: str) -> None:
        """Print a line where there is no table."""
        if self._live is None:
            console.print(line, soft_wrap=True, markup=False)

    def _trial(self, ray_trial: RayTrial) -> Trial:
        """Our record of one of Ray's trials."""
        start = TrialStart(**ray_trial.config["start"])
        ours = Trial(start.number, start.point, self.job.trial_folder(start.number), start.left_out)
        return self.trials.setdefault(start.number, ours)

    def _table(self) -> Any:
        trials = [self.trials[number] for number in sorted(self.trials)]
        title, sweep = f"{len(trials)} of {self.num_trials} trials begun", self.job.sweep
        return table(trials, self.keys, sweep.metric, sweep.mode, title=title, rows=max(console.height - 8, 4))
