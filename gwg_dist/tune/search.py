"""Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) over the space of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from gwg_dist.tune.records import State, Trial
from gwg_dist.tune.space import Domain, SearchSpace

# Proposals while other trials run take those for bad; its warning says that the option is young.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Optuna(OptunaSearch):
    """Proposes points. Trials of earlier processes of a sweep are told first, open ones are handed out again.

    Args:
        space: what varies.
        mode: "max" or "min".
        num_trials: trials of the whole sweep.
        seed: seed of the proposals.
        before: trials of earlier processes of this sweep.
        config: what Ray hands to a trial, of its number and point.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        mode: str,
        num_trials: int,
        seed: int,
        before: list[Trial],
        config: Callable[[int, dict[str, Any]], dict[str, Any]],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        begun = {trial.number: trial for trial in before}
        again = [trial for trial in before if trial.state == State.OPEN]
        super().__init__(
            {key: distribution_of(domain) for key, domain in space.items()},
            metric="objective",
            mode=mode,
            sampler=optuna.samplers.TPESampler(seed=seed + len(before), constant_liar=True),
            points_to_evaluate=[encoded(space, trial.point) for trial in again],
        )
        self.space = space
        self.config = config
        self.numbers = [trial.number for trial in again] + [n for n in range(num_trials) if n not in begun]
        for trial in before:
            if trial.state != State.OPEN and trial.evaluations:
                self.add_evaluated_point(encoded(space, trial.point), trial.evaluations[-1].objective(mode))

    def suggest(self, trial_id: str) -> Any:
        """What Ray hands to the next trial, or that there is none."""
        if not self.numbers:
            return Searcher.FINISHED
        drawn = super().suggest(trial_id) or {}
        return self.config(self.numbers.pop(0), decoded(self.space, drawn))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from its folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def encoded(space: SearchSpace, point: dict[str, Any]) -> dict[str, Any]:
    """A point as Optuna has it: a choice by its place, as it may be anything."""
    choices = {key: domain.values.index(point[key]) for key, domain in space.items() if domain.kind == "choice"}
    return {key: point[key] for key in space} | choices


def decoded(space: SearchSpace, drawn: dict[str, Any]) -> dict[str, Any]:
    """The point that Optuna has drawn."""
    return {
        key: domain.values[drawn[key]] if domain.kind == "choice" else domain.inside(drawn[key])
        for key, domain in space.items()
    }


def distribution_of(domain: Domain) -> optuna.distributions.BaseDistribution:
    """A domain as Optuna has it."""
    if domain.kind == "choice":
        return optuna.distributions.CategoricalDistribution(range(len(domain.values)))
    kind = optuna.distributions.IntDistribution if domain.is_int else optuna.distributions.FloatDistribution
    return kind(*domain.values, log=domain.is_log)
