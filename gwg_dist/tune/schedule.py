"""Who goes on, who stops, who copies whom: Ray's schedulers on the iterations of a run.

Ray gives a trial a new name in every process that drives a sweep, and forgets what it reported when that process dies.
Numbers stay, so evaluations from before a sweep was resumed still count.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, PopulationBasedTraining, TrialScheduler

from gwg_dist.tune.records import Trial
from gwg_dist.tune.space import SearchSpace

TIME = "iteration"


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al., 2020): at a rung, the best 1/n of those that came so far go on.

    Args:
        grace: iterations before the first rung.
        factor: n, and how much further the next rung is.
        max_steps: iterations of a whole run; there is no rung at the end.
        mode: "max" or "min".
        before: trials of earlier processes of this sweep; their evaluations fill the rungs.
    """

    def __init__(self, *, grace: int, factor: int, max_steps: int, mode: str, before: list[Trial]) -> None:
        super().__init__(
            time_attr=TIME,
            metric="objective",
            mode=mode,
            max_t=max(max_steps - 1, 1),
            grace_period=grace,
            reduction_factor=factor,
            stop_last_trials=False,
        )
        controller: Any = None  # these trials have none
        for trial in before:
            super().on_trial_add(controller, numbered(trial.number))
            for evaluation in trial.evaluations:
                result = {TIME: evaluation.iteration, "objective": evaluation.objective(mode)}
                super().on_trial_result(controller, numbered(trial.number), result)

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        super().on_trial_add(tune_controller, numbered(number_of(trial)))

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict) -> str:
        return super().on_trial_result(tune_controller, numbered(number_of(trial)), result)

    def on_trial_complete(self, tune_controller: Any, trial: RayTrial, result: dict) -> None:
        super().on_trial_complete(tune_controller, numbered(number_of(trial)), result)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        super().on_trial_remove(tune_controller, numbered(number_of(trial)))


class Population(PopulationBasedTraining):
    """Population based training (Jaderberg et al., 2017): the worst take over the best ones' state, and vary a setting.

    Ray's own mutations may leave a range, whose ends are all that was checked; ``Domain.mutate`` stays inside.

    Args:
        every: iterations between two looks.
        share: share of the trials that are worst, and that are best.
        max_steps: iterations of a whole run; a trial that is through is left alone.
        mode: "max" or "min".
        space: what varies.
        config: what Ray hands to a trial, of its number and point.
        seed: seed of the mutations.
    """

    def __init__(
        self,
        *,
        every: int,
        share: float,
        max_steps: int,
        mode: str,
        space: SearchSpace,
        config: Callable[[int, dict[str, Any]], dict[str, Any]],
        seed: int,
    ) -> None:
        rng = random.Random(seed)

        def explore(donor: dict[str, Any]) -> dict[str, Any]:
            """The donor's point, every value varied."""
            start = donor["start"]
            return config(start["number"], {key: d.mutate(start["point"][key], rng) for key, d in space.items()})

        super().__init__(
            time_attr=TIME,
            metric="objective",
            mode=mode,
            perturbation_interval=every,
            quantile_fraction=share,
            custom_explore_fn=explore,
            log_config=False,
        )
        self.max_steps = max_steps

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict) -> str:
        if result[TIME] >= self.max_steps:
            return TrialScheduler.CONTINUE
        number = number_of(trial)
        decision = super().on_trial_result(tune_controller, trial, result)
        trial.config["start"]["number"] = number  # a trial that took over a donor's settings took its number as well
        return decision

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a sweep is resumed from its folders


def number_of(trial: RayTrial) -> int:
    """The number of one of Ray's trials."""
    return trial.config["start"]["number"]


def numbered(number: int) -> RayTrial:
    """A trial for Ray's bookkeeping alone, whose name is its number."""
    return RayTrial("numbered", trial_id=str(number), stub=True)
