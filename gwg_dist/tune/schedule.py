"""Who goes on, who stops, who copies whom: Ray's schedulers on the iterations of a run, and on trials by their number.

Ray's own trial names are new in every process that drives a sweep; numbers stay, so what trials reported before a sweep
was resumed still counts.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, PopulationBasedTraining, TrialScheduler

from gwg_dist.tune.records import Trial
from gwg_dist.tune.space import SearchSpace

TIME = "iteration"
KEPT_CHECKPOINTS = 3  # of a trial; one may still be on its way to Ray


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al., 2020): at a rung, the best 1/n of those that came so far go on.

    Args:
        grace: iterations before the first rung.
        factor: n, and how much further the next rung is.
        max_steps: iterations of a whole run; there is no rung at the end.
        mode: "max" or "min".
        before: trials of earlier processes of this sweep.
    """

    def __init__(self, *, grace: int, factor: int, max_steps: int, mode: str, before: list[Trial]) -> None:
        super().__init__(
            time_attr=TIME, metric="objective", mode=mode, max_t=max(max_steps - 1, 1), grace_period=grace,
            reduction_factor=factor, stop_last_trials=False,
        )  # fmt: skip
        for trial in before:
            name: Any = named(trial.number)
            super().on_trial_add(None, name)  # pyright: ignore[reportArgumentType]
            for evaluation in trial.evaluations:
                values = {TIME: evaluation.iteration, "objective": evaluation.objective(mode)}
                super().on_trial_result(None, name, values)  # pyright: ignore[reportArgumentType]

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        super().on_trial_add(tune_controller, by_number(trial))

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict) -> str:
        return super().on_trial_result(tune_controller, by_number(trial), result)

    def on_trial_complete(self, tune_controller: Any, trial: RayTrial, result: dict) -> None:
        super().on_trial_complete(tune_controller, by_number(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        super().on_trial_remove(tune_controller, by_number(trial))


class Population(PopulationBasedTraining):
    """Population based training (Jaderberg et al., 2017): the worst take over the best ones' state, and vary a setting.

    Args:
        every: iterations between two looks.
        share: of trials that are worst, and that are best.
        max_steps: iterations of a whole run; a trial that is through is left alone.
        mode: "max" or "min".
        space: what varies.
        start: what a trial is told, of its number and point.
        seed: of the mutations.
    """

    def __init__(
        self,
        *,
        every: int,
        share: float,
        max_steps: int,
        mode: str,
        space: SearchSpace,
        start: Callable[[int, dict[str, Any]], dict[str, Any]],
        seed: int,
    ) -> None:
        super().__init__(
            time_attr=TIME, metric="objective", mode=mode, perturbation_interval=every, quantile_fraction=share,
            custom_explore_fn=lambda config: config, log_config=False,
        )  # fmt: skip
        self.max_steps = max_steps
        self.space = space
        self.start = start
        self.rng = random.Random(seed)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict) -> str:
        if result[TIME] >= self.max_steps:
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)
        self._forget_checkpoints(trial)
        return decision

    def _forget_checkpoints(self, trial: RayTrial) -> None:
        """Delete a trial's checkpoints that nobody will start from. Ray would delete some that two trials share."""
        wanted = [other.checkpoint for other in self._trial_state]
        wanted += [state.last_checkpoint for state in self._trial_state.values()]
        paths = {Path(path) for checkpoint in wanted if (path := getattr(checkpoint, "path", ""))}
        assert trial.storage is not None
        for old in sorted(Path(trial.storage.trial_fs_path).glob("checkpoint_*"))[:-KEPT_CHECKPOINTS]:
            if old not in paths:
                shutil.rmtree(old, ignore_errors=True)

    def _get_new_config(self, trial: RayTrial, trial_to_clone: RayTrial) -> tuple[dict, dict]:
        """The donor's point, every value varied; the trial's own number."""
        donor = trial_to_clone.config["start"]["point"]
        point = {key: domain.mutate(donor[key], self.rng) for key, domain in self.space.items()}
        return trial.config | {"start": self.start(trial.config["start"]["number"], point)}, {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a sweep is resumed from its folders


def named(number: int) -> SimpleNamespace:
    """What Ray's bookkeeping needs of a trial."""
    return SimpleNamespace(trial_id=str(number))


def by_number(trial: RayTrial) -> Any:
    """The same of one of Ray's."""
    return named(trial.config["start"]["number"])
