"""Who goes on, who stops, who copies whom: Ray's schedulers on the iterations of a run.

Ray gives a trial a new name in every process that drives a sweep, and forgets what it reported when that process dies.
Numbers stay, so evaluations from before a sweep was resumed still count.
"""

from __future__ import annotations

import random
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from gwg_dist.tune.plan import Plan
from gwg_dist.tune.records import Trial

TIME, OBJECTIVE = "iteration", "objective"


def make_scheduler(plan: Plan, before: list[Trial]) -> TrialScheduler:
    """The scheduler that the settings name."""
    sweep = plan.sweep
    if sweep.scheduler == "asha":
        factor = sweep.reduction_factor
        return Halving(grace=plan.grace, factor=factor, max_steps=plan.max_steps, mode=sweep.mode, before=before)
    return Population(plan) if sweep.scheduler == "pbt" else FIFOScheduler()


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
            metric=OBJECTIVE,
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
                result = {TIME: evaluation.iteration, OBJECTIVE: evaluation.objective(mode)}
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
    """

    def __init__(self, plan: Plan) -> None:
        sweep, rng = plan.sweep, random.Random(plan.sweep.seed)

        def explore(donor: dict[str, Any]) -> dict[str, Any]:
            """The donor's point, every value varied."""
            start = donor["start"]
            point = {key: domain.mutate(start["point"][key], rng) for key, domain in plan.recipe.space.items()}
            return plan.config(start["number"], point)

        super().__init__(
            time_attr=TIME,
            metric=OBJECTIVE,
            mode=sweep.mode,
            perturbation_interval=plan.grace,
            quantile_fraction=1 / sweep.reduction_factor,
            custom_explore_fn=explore,
            log_config=False,
        )
        self.max_steps = plan.max_steps

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict) -> str:
        """Ray's decision; a trial that is through is left alone."""
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
