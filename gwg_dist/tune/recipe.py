"""From a point of the space to the settings of a run, and whether all of them would run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from gwg_dist.cli import build_parser, instantiate
from gwg_dist.errors import InputError
from gwg_dist.trainer import check, yardstick
from gwg_dist.tune.space import SearchSpace, end_points, sorted_keys

MAX_COMBINATIONS = 32  # of ends, that are tried before a sweep
# A sweep's own affair, and what to say of it.
RESERVED = {
    "config": "give experiment", "run_dir": "see sweep_dir", "ckpt_path": "trials go on by themselves",
    "checkpoint_every": "trials are kept at every evaluation", "trainer.devices": "see workers",
    "trainer.num_nodes": "see workers", "trainer.strategy": "see workers",
    "trainer.enable_progress_bar": "trials write to their log.txt",
}  # fmt: skip
# What a run may change while it goes on; everything else would be refused by a checkpoint, taken from it, or would
# change what is measured.
MUTABLE = (
    "model.learning_rate", "model.num_steps", "model.sampler", "model.objective", "model.chains.restart_prob",
    "ema.decay", "guard",
)  # fmt: skip


class Recipe:
    """The settings of every trial: an experiment, fixed settings, and a point of the space.

    A part of a class that is picked by the space is left out where the class has none of that name.

    Args:
        experiment: a YAML file of settings of fit.
        settings: dotted keys for all trials.
        space: what varies.

    Raises:
        InputError: a key that is the sweep's own, or in both.
    """

    def __init__(self, experiment: Path | None, settings: dict[str, Any], space: SearchSpace) -> None:
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
        self._left_out: set[tuple[str, str, str]] = set()

    def settings(self, point: dict[str, Any]) -> dict[str, Any]:
        """Dotted keys with their values, classes first."""
        values = {**self.fixed, **point}
        kept = {}
        for key in sorted_keys(values):
            parents = [parent for parent in self.space if key.startswith(f"{parent}.") and parent in point]
            if not any((parent, text_of(point[parent]), key) in self._left_out for parent in parents):
                kept[key] = values[key]
        return kept

    def args(self, point: dict[str, Any]) -> list[str]:
        """The same as a command line of fit."""
        config = [] if self.experiment is None else ["--config", str(self.experiment)]
        return [*config, *(f"--{key}={text_of(value)}" for key, value in self.settings(point).items())]

    def trial_args(self, point: dict[str, Any], *, workers: int) -> list[str]:
        """The command line of a trial: kept at every evaluation, nothing on the terminal."""
        every = self.config(point).evaluation.every
        return [
            *self.args(point), "--ckpt_path=last", f"--checkpoint_every={every}", "--trainer.enable_progress_bar=false",
            f"--trainer.devices={1 if workers == 1 else 'auto'}", "--trainer.num_nodes=1", "--trainer.strategy=auto",
        ]  # fmt: skip

    def config(self, point: dict[str, Any]) -> Namespace:
        """The resolved settings. Raises InputError."""
        return self._parse(self.args(point))

    def dump(self, point: dict[str, Any]) -> str:
        """The resolved settings as YAML that fit takes."""
        config = self.config(point)
        for name in ("config", "run_dir", "ckpt_path"):
            config.pop(name, None)
        return self._parser.dump(config, skip_unset=False, format="yaml")

    def check(self, metric: str) -> Namespace:
        """Build every end of the space as a run would; returns the settings of one point.

        Raises InputError with the key where one would not run or could not be compared with the others.
        """
        self._config_of_fixed()
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
                if progress_of(config) != progress_of(base):
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

    def _parse(self, args: list[str]) -> Namespace:
        try:
            return self._parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(self._parser.explain(str(error))) from error

    def _config_of_fixed(self) -> None:
        """The experiment and what does not hang on a choice, alone."""
        independent = [key for key in self.fixed if not any(key.startswith(f"{parent}.") for parent in self.space)]
        config = [] if self.experiment is None else ["--config", str(self.experiment)]
        try:
            self._parse([*config, *(f"--{key}={text_of(self.fixed[key])}" for key in sorted_keys(independent))])
        except InputError as error:
            raise InputError(f"settings: {error}" if self.fixed else f"experiment: {error}") from error

    def _find_left_out(self) -> None:
        """Try every part of a class that the space picks with every choice of that class."""
        for parent, domain in self.space.items():
            parts = [key for key in (*self.space, *self.fixed) if key.startswith(f"{parent}.")]
            for key in parts if domain.kind == "choice" else []:
                values = self.space[key].ends() if key in self.space else (self.fixed[key],)
                refusals = [self._refusal(parent, choice, key, values) for choice in domain.values]
                if all(refusals):
                    where = "space" if key in self.space else "settings"
                    raise InputError(f"{where}: {key} fits no choice of {parent}: {refusals[0]}")
                self._left_out |= {
                    (parent, text_of(choice), key)
                    for choice, refusal in zip(domain.values, refusals, strict=True) if refusal
                }  # fmt: skip

    def _refusal(self, parent: str, choice: Any, key: str, values: tuple[Any, ...]) -> str:
        """Why the choice takes none of the values of its part; empty where it takes one."""
        config = [] if self.experiment is None else ["--config", str(self.experiment)]
        why = ""
        for value in values:
            try:
                self._parse([*config, f"--{parent}={text_of(choice)}", f"--{key}={text_of(value)}"])
            except InputError as error:
                why = str(error)
            else:
                return ""
        return why

    def _build(self, point: dict[str, Any], measured: set[str], metric: str) -> None:
        """What a run does before it trains. Raises InputError."""
        config = self.config(point)
        every, max_steps = config.evaluation.every, config.trainer.max_steps
        if not 0 < every <= max_steps:
            raise InputError(f"evaluation.every must lie in 1 to trainer.max_steps ({max_steps}), got {every}")
        objects = instantiate(self._parser, config)
        check(config, objects.model, objects.data)
        data = json.dumps(config.data.as_dict(), default=str, sort_keys=True)
        if data not in measured:
            objects.data.seed = config.seed
            objects.data.prepare_data()
            if metric.startswith("val/") and not len(objects.data.splits.validation):
                raise InputError(f"metric: {metric} needs validation data, and there are none")
            measured.add(data)

    def _culprit(self, point: dict[str, Any]) -> str:
        """The one value that is enough for a point to be refused, or all of them."""
        for key, value in point.items():
            parents = {parent: point[parent] for parent in point if key.startswith(f"{parent}.")}
            try:
                self._build({**parents, key: value}, set(), "")
            except InputError:
                return f"{key}={text_of(value)}"
        return ", ".join(f"{key}={text_of(value)}" for key, value in point.items())


def progress_of(config: Namespace) -> tuple[Any, ...]:
    """How long a run is and when it is measured."""
    return config.trainer.max_steps, config.evaluation.every


def text_of(value: Any) -> str:
    """A value as it stands on a command line."""
    return value if isinstance(value, str) else os.fspath(value) if isinstance(value, Path) else json.dumps(value)
