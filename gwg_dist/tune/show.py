"""A sweep while it runs: a table that is kept up to date on a terminal, a line for every report elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial
from rich.live import Live

from gwg_dist.callbacks import console
from gwg_dist.tune.records import (
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
    trial_folder,
)  # fmt: skip
from gwg_dist.tune.results import describe, table
from gwg_dist.tune.trial import Job

REFRESH_SECONDS = 0.5


class Display(Callback):
    """Follows Ray's trials, marks those that a scheduler stops, and shows all.

    Args:
        job: of the sweep.
        keys: what varies.
        trials: of earlier processes of this sweep.
        num_trials: of the whole sweep.
        max_steps: iterations of a whole run.
    """

    def __init__(self, job: Job, keys: list[str], trials: list[Trial], *, num_trials: int, max_steps: int) -> None:
        self.job = job
        self.sweep = Path(job.sweep)
        self.keys = keys
        self.trials = {trial.number: trial for trial in trials}
        self.num_trials = num_trials
        self.max_steps = max_steps
        self.stopping = False
        self._drawn = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if console.is_terminal:
            self._live = Live(self._table(), console=console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a sweep is resumed from its folders

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        for ray_trial in trials:
            trial = self._trial(ray_trial)
            if trial.state in (RUNNING, PAUSED, OPEN):
                trial.state = {"RUNNING": RUNNING, "PAUSED": PAUSED}.get(ray_trial.status, trial.state)
        if self._live is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        ours = self._trial(trial)
        ours.state, ours.problem = RUNNING, ""
        ours.point, ours.left_out = trial.config["start"]["point"], tuple(trial.config["start"]["left_out"])

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict, **info: Any
    ) -> None:
        ours = self._trial(trial)
        evaluation = TrialEvaluation.from_dict(result)
        if evaluation in ours.evaluations:
            return
        ours.evaluations.append(evaluation)
        if self._live is None:
            console.print(describe(ours, evaluation, self.job.metric), soft_wrap=True)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Ray ends trials that are through, that a scheduler stops, and, where the sweep is told to stop, all."""
        ours = self._trial(trial)
        if self.stopping:
            ours.state = OPEN
        elif ours.evaluations and ours.evaluations[-1].why == "diverged":
            ours.state = "diverged"
        elif ours.iteration >= self.max_steps:
            ours.state = FINISHED
        else:
            ours.state = STOPPED
            mark_ended(trial_folder(self.sweep, ours.number), STOPPED)
        if self._live is None:
            console.print(f"trial {ours.number}: {ours.state} at iteration {ours.iteration}", soft_wrap=True)

    def on_trial_recover(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._failed(trial, "starts again")

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._failed(trial, FAILED)

    def _failed(self, ray_trial: RayTrial, what: str) -> None:
        ours = self._trial(ray_trial)
        ours.state = FAILED
        ours.problem = last_error(trial_folder(self.sweep, ours.number)) or "its process ended"
        if self._live is None:
            console.print(f"trial {ours.number}: {what}: {ours.problem}", soft_wrap=True, markup=False)

    def _trial(self, ray_trial: RayTrial) -> Trial:
        start = ray_trial.config["start"]
        number = start["number"]
        if number not in self.trials:
            self.trials[number] = Trial(
                number, start["point"], trial_folder(self.sweep, number), tuple(start["left_out"])
            )
        return self.trials[number]

    def _table(self) -> Any:
        trials = [self.trials[number] for number in sorted(self.trials)]
        return table(
            trials, self.keys, self.job.metric, self.job.mode, title=f"{len(trials)} of {self.num_trials} trials begun",
            rows=max(console.height - 8, 4),
        )  # fmt: skip
