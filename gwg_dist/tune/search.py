"""Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) over the space of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from gwg_dist.errors import InputError
from gwg_dist.tune.records import OPEN, Trial
from gwg_dist.tune.space import SearchSpace

try:
    import optuna
except ImportError as error:
    raise InputError("search optuna needs Optuna: pip install 'gwg-dist[tune]'") from error

# Proposals while other trials run take those for bad; its warning says that the option is young.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Optuna(Searcher):
    """Proposes points. Trials of earlier processes of a sweep are told first, open ones are handed out again.

    Args:
        space: what varies.
        mode: "max" or "min".
        num_trials: of the whole sweep.
        seed: of the proposals.
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
        super().__init__(metric="objective", mode=mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.config = config
        self.open = [trial for trial in before if trial.state == OPEN]
        self.next_number = max((trial.number for trial in before), default=-1) + 1
        self.num_left = num_trials - len(before)
        self.distributions = {key: distribution_of(space, key) for key in space}
        sampler = optuna.samplers.TPESampler(seed=seed + len(before), constant_liar=True)
        self.study = optuna.create_study(direction="maximize" if mode == "max" else "minimize", sampler=sampler)
        self.asked: dict[str, optuna.Trial | dict[str, Any]] = {}
        for trial in before:
            if trial.state != OPEN and trial.evaluations:
                self._add(trial.point, trial.evaluations[-1].objective(mode))

    def suggest(self, trial_id: str) -> Any:
        """The next point, or that there is none."""
        if self.open:
            trial = self.open.pop(0)
            self.asked[trial_id] = trial.point
            return self.config(trial.number, trial.point)
        if self.num_left < 1:
            return Searcher.FINISHED
        self.num_left -= 1
        asked = self.study.ask(self.distributions)
        self.asked[trial_id] = asked
        number, self.next_number = self.next_number, self.next_number + 1
        return self.config(number, {key: self._value(key, asked.params[key]) for key in self.space})

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        asked = self.asked.pop(trial_id, None)
        value = None if error or not result else result.get("objective")
        if isinstance(asked, dict):
            if value is not None:
                self._add(asked, value)
        elif asked is not None:
            state = optuna.trial.TrialState.FAIL if value is None else None
            self.study.tell(asked, value, state=state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from its folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _value(self, key: str, drawn: Any) -> Any:
        domain = self.space[key]
        return domain.values[drawn] if domain.kind == "choice" else domain.inside(drawn)

    def _add(self, point: dict[str, Any], value: float) -> None:
        """Tell of a trial that was not asked for here."""
        params = {
            key: domain.values.index(point[key]) if domain.kind == "choice" else point[key]
            for key, domain in self.space.items()
        }
        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=self.distributions, value=value))


def distribution_of(space: SearchSpace, key: str) -> Any:
    """A domain as Optuna has it; choices by their place, as they may be anything."""
    domain = space[key]
    if domain.kind == "choice":
        return optuna.distributions.CategoricalDistribution(range(len(domain.values)))
    kind = optuna.distributions.IntDistribution if domain.is_int else optuna.distributions.FloatDistribution
    return kind(*domain.values, log=domain.is_log)
