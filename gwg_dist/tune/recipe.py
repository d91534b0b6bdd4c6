"""From a point of the space to the settings of a run, and whether all of them would run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from gwg_dist.data import DiscreteData
from gwg_dist.tools.errors import InputError
from gwg_dist.training.ranges import check
from gwg_dist.training.recipe import settle
from gwg_dist.training.settings import build_parser, instantiate, instantiate_data
from gwg_dist.training.trainer import yardstick
from gwg_dist.tune.space import SearchSpace, end_points, sorted_keys
from gwg_dist.tune.sweep import TrialStart

MAX_COMBINATIONS = 32  # of ends, that are tried before a sweep
# Settings that the sweep makes itself, and what to say to who gives one.
RESERVED = {
    "config": "give experiment",
    "trust": "give it to tune",
    "run_dir": "see sweep_dir",
    "ckpt_path": "trials go on by themselves",
    "checkpoint_every": "trials are kept at every evaluation",
    "trainer.devices": "see workers",
    "trainer.num_nodes": "see workers",
    "trainer.strategy": "see workers",
    "trainer.enable_progress_bar": "trials write to their log.txt",
}
# A run may change these while it goes on. A checkpoint would refuse any other, or overrule it, or another would change
# what is measured.
MUTABLE = ("model.learning_rate", "model.num_steps", "model.sampler", "model.objective", "model.chains.restart_prob")
MUTABLE += ("ema.decay", "guard")


# A trial that diverges has failed: going on more slowly would measure other settings than its own.
STOP = {"on_divergence": "stop"}


class Recipe:
    """The settings of every trial: an experiment, fixed settings, and a point of the space.

    A setting below a class that the space picks is left out where the class has none of that name.

    Args:
        experiment: a YAML file of settings of fit.
        settings: dotted keys for all trials.
        space: what varies.
        trust: modules outside gwg_dist whose classes the settings may name, with commas between; "*" for all.

    Raises:
        InputError: a key that is the sweep's own, or in both.
    """

    def __init__(
        self, experiment: Path | None, settings: dict[str, Any], space: SearchSpace, *, trust: str = ""
    ) -> None:
        self.trust = trust
        self.experiment = experiment
        self.fixed = settings
        self.space = space
        for where, keys in (("settings", settings), ("space", space)):
            for key in keys:
                if key in RESERVED:
                    raise InputError(f"{where}: {key} is set by the sweep: {RESERVED[key]}")
        for key in space:
            if key in settings:
                raise InputError(f"space: {key} is fixed in settings as well")
        self._parser = build_parser()
        self._parser.exit_on_error = False
        self._parser.trusts_values = False  # settings and space stand in a file
        self._data: dict[str, DiscreteData] = {}
        self._left_out: set[tuple[str, str, str]] = set()

    def keep_experiment(self, path: Path) -> None:
        """Copy the experiment's file to ``path``; trials read that copy."""
        if self.experiment is not None:
            if self.experiment.resolve() != path:
                shutil.copyfile(self.experiment, path)
            self.experiment = path

    def settings(self, point: dict[str, Any]) -> dict[str, Any]:
        """Dotted keys with their values, classes first."""
        values = {**self.fixed, **point}
        return {key: values[key] for key in sorted_keys(values) if not self._is_left_out(key, point)}

    def start(self, number: int, point: dict[str, Any], *, workers: int) -> TrialStart:
        """What a trial is told: fit keeps its state at every evaluation and writes nothing on the terminal."""
        settings = self.settings(point)
        more = {
            "ckpt_path": "last",
            "checkpoint_every": self.config(point).evaluation.every,
            "trainer.enable_progress_bar": False,
            "trainer.devices": 1 if workers == 1 else "auto",
            "trainer.num_nodes": 1,
            "trainer.strategy": "auto",
        }
        left_out = tuple(key for key in point if key not in settings)
        return TrialStart(number, point, left_out, tuple(self._args(STOP | settings | more)), os.getcwd())

    def config(self, point: dict[str, Any]) -> Namespace:
        """The resolved settings, with what each trial will choose for its data. Raises InputError."""
        config = self._parse(self.settings(point))
        name = json.dumps(config.data.as_dict(), default=str, sort_keys=True)
        if name not in self._data:
            self._data[name] = instantiate_data(self._parser, config)
        settle(self._parser, config, self._data[name])
        return config

    def dump(self, point: dict[str, Any]) -> str:
        """The resolved settings as YAML that fit takes."""
        config = self.config(point)
        for name in ("config", "trust", "run_dir", "ckpt_path"):
            config.pop(name, None)
        return self._parser.dump(config, skip_unset=False, format="yaml")

    def check(self, metric: str) -> Namespace:
        """Build every end of the space as a run would; returns the settings of one point.

        Raises InputError with the key where one would not run or could not be compared with the others.
        """
        self._check_fixed()
        self._find_left_out()
        first = {key: domain.ends()[0] for key, domain in self.space.items()}
        measured: set[str] = set()
        for point in end_points(self.space, MAX_COMBINATIONS):
            try:
                self._build(point, measured, metric)
            except InputError as error:
                raise InputError(f"space: {self._culprit(point)}: {error}") from error
        base = self.config(first)
        for key, domain in self.space.items():
            for value in domain.ends():
                config = self.config(first | {key: value})
                if yardstick(config) != yardstick(base):
                    raise InputError(f"space: {key} changes what the likelihood is measured on or how")
                if rhythm(config) != rhythm(base):
                    raise InputError(f"space: {key} must be the same for all trials, which are compared on their way")
        return base

    def check_mutable(self) -> None:
        """Raises InputError for a key that cannot change while a trial goes on."""
        for key in self.space:
            if not any(key == free or key.startswith(f"{free}.") for free in MUTABLE):
                raise InputError(
                    f"space: {key} cannot change while a trial goes on, as pbt would have it; "
                    f"these can: {', '.join(MUTABLE)}"
                )

    def _args(self, settings: dict[str, Any]) -> list[str]:
        """The command line of fit."""
        config = [] if self.experiment is None else ["--config", str(self.experiment)]
        trusting = [f"--trust={self.trust}"] if self.trust else []
        return config + trusting + [f"--{key}={text_of(value)}" for key, value in settings.items()]

    def _parse(self, settings: dict[str, Any]) -> Namespace:
        try:
            return self._parser.parse_args(self._args(settings))
        except ArgumentError as error:
            raise InputError(self._parser.explain(str(error))) from error

    def _picked(self, key: str) -> list[str]:
        """The keys of the space that pick a class which ``key`` is a setting of."""
        return [parent for parent in self.space if key.startswith(f"{parent}.")]

    def _is_left_out(self, key: str, point: dict[str, Any]) -> bool:
        return any((parent, text_of(point.get(parent)), key) in self._left_out for parent in self._picked(key))

    def _check_fixed(self) -> None:
        """Check the experiment and the settings that do not hang on a choice, alone."""
        try:
            self._parse({key: self.fixed[key] for key in sorted_keys(self.fixed) if not self._picked(key)})
        except InputError as error:
            raise InputError(f"settings: {error}" if self.fixed else f"experiment: {error}") from error

    def _find_left_out(self) -> None:
        """Try every setting of a class that the space picks with every choice of that class."""
        for key in (*self.space, *self.fixed):
            where, values = ("space", self.space[key].ends()) if key in self.space else ("settings", (self.fixed[key],))
            for parent in self._picked(key):
                if self.space[parent].kind == "choice":
                    refusals = {text_of(c): self._refusal(parent, c, key, values) for c in self.space[parent].values}
                    if all(refusals.values()):
                        reason = next(iter(refusals.values()))
                        raise InputError(f"{where}: {key} fits no choice of {parent}: {reason}")
                    self._left_out |= {(parent, choice, key) for choice, reason in refusals.items() if reason}

    def _refusal(self, parent: str, choice: Any, key: str, values: tuple[Any, ...]) -> str:
        """Why a choice takes none of the values of one of its settings; empty where it takes one."""
        why = ""
        for value in values:
            try:
                self._parse({parent: choice, key: value})
            except InputError as error:
                why = str(error)
            else:
                return ""
        return why

    def _build(self, point: dict[str, Any], measured: set[str], metric: str) -> None:
        """Do what a run does before it trains. Raises InputError."""
        config = self.config(point)
        max_steps, every = rhythm(config)
        if not 0 < every <= max_steps:
            raise InputError(f"evaluation.every must lie in 1 to trainer.max_steps ({max_steps}), got {every}")
        check(config)
        objects = instantiate(self._parser, config)
        data = json.dumps(config.data.as_dict(), default=str, sort_keys=True)
        if data not in measured:
            objects.data.seed = config.seed
            objects.data.prepare_data()
            if metric.startswith("val/") and not len(objects.data.splits.validation):
                raise InputError(f"metric: {metric} needs validation data, and there are none")
            measured.add(data)

    def _culprit(self, point: dict[str, Any]) -> str:
        """The one value that is enough for a point to be refused, or all of them."""
        for key in point:
            values = {name: point[name] for name in (*self._picked(key), key)}
            try:
                self._build(values, set(), "")
            except InputError:
                return f"{key}={text_of(point[key])}"
        return ", ".join(f"{key}={text_of(value)}" for key, value in point.items())


def rhythm(config: Namespace) -> tuple[int, int]:
    """How many iterations a run makes, and after how many it is evaluated."""
    return config.trainer.max_steps, config.evaluation.every


def text_of(value: Any) -> str:
    """A value as it stands on a command line."""
    return value if isinstance(value, str) else os.fspath(value) if isinstance(value, Path) else json.dumps(value)
