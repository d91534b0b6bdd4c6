"""What the folder of a run tells, read without its model: settings, metrics, estimates, pictures, hours."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gwg_dist.tools.errors import InputError
from gwg_dist.training.folder import BEST, CONFIG, EVALUATION, RESULTS, has_state
from gwg_dist.training.living import Owner, writer_of
from gwg_dist.training.log_z import estimates, evidence

METRICS, FIRST = "metrics", "from_"
MAX_PICTURES = 8
IDLE = 600.0  # seconds between two records that count as a break, not as training


class Series(NamedTuple):
    """A number over iterations.

    Args:
        iterations: rising.
        values: one for each; NaN for one that was not finite.
    """

    iterations: list[int]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]


class Clock(NamedTuple):
    """What the times of records tell.

    Args:
        hours: of training, of all starts of the run together, breaks left out.
        rate: iterations a second, between records.
    """

    hours: float
    rate: Series


class Record(NamedTuple):
    """When something was logged: the iteration, seconds, and whether it is of training, not of an estimate."""

    iteration: int
    time: float
    is_training: bool


@dataclass(frozen=True)
class Run:
    """What the folder of a run tells.

    Args:
        folder: where it is.
        settings: of the run, nested as its config.yaml is.
        metrics: numbers over iterations by name, of all starts of the run.
        results: what it found at its end; empty where it has not ended.
        estimate: what is known of its likelihood, see ``best_estimate``; empty where nothing is.
        estimate_file: where that was.
        clock: hours; None where no times were recorded.
        num_starts: how often it was started.
        pictures: iteration and file of pictures of its chains.
        writer: the process that trains it now; None where none does.
        saved: iteration of the checkpoint that was read; 0 for none.
    """

    folder: Path
    settings: dict[str, Any]
    metrics: dict[str, Series] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    estimate_file: str = ""
    clock: Clock | None = None
    num_starts: int = 0
    pictures: list[tuple[int, Path]] = field(default_factory=list)
    writer: Owner | None = None
    saved: int = 0

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def has_ended(self) -> bool:
        return bool(self.results)

    @property
    def iterations(self) -> int:
        """Iterations that are known to be done."""
        known = [series.iterations[-1] for series in self.metrics.values()]
        return max([*known, self.saved, self.results.get("training", {}).get("iterations", 0)])

    def setting(self, *keys: str) -> Any:
        """A setting by its path; None where there is none."""
        found: Any = self.settings
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def class_of(self, *keys: str) -> str:
        """The class that a setting picks, without its module; "" where it picks none."""
        found = self.setting(*keys, "class_path")
        return str(found).rpartition(".")[2] if found else ""

    def last(self, name: str) -> float | None:
        """The newest value of a metric, else what results.json kept of it; None where there is none."""
        if name in self.metrics:
            return self.metrics[name].last
        return self.results.get("training", {}).get("metrics", {}).get(name)


def collect(folder: Path) -> Run:
    """Read the folder of a run.

    Raises:
        InputError: no run there, a file that cannot be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is no run folder: it has no {CONFIG}")
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds no settings")
    results = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    estimate, file = best_estimate(folder)
    metrics, num_starts = read_metrics(folder / METRICS)
    return Run(
        folder, settings, metrics, results, estimate, file,
        read_clock(folder / "tensorboard"), num_starts, some_pictures(folder / "samples"), writer_of(folder),
    )  # fmt: skip


def checkpoint_name(folder: Path, asked: str) -> str | None:
    """The checkpoint to show: the one asked for, "last" where there is no best one; None where there is none at all."""
    if asked != "best" or (folder / BEST).is_file():
        return asked
    return "last" if has_state(folder) else None


def read_json(path: Path) -> dict[str, Any]:
    """The numbers of a file. Raises InputError where it is damaged."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}; move it away to do without") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it holds a {type(values).__name__}; move it away to do without")
    return values


def best_estimate(folder: Path) -> tuple[dict[str, Any], str]:
    """What training or ``evaluate`` found of the newest weights, and the file; empty where nothing was found.

    Of several estimates of the same weights the one of most ``evidence`` is taken, and of two alike the newer one.

    Raises:
        InputError: a file that is damaged.
    """
    for path in folder.glob(f"{EVALUATION}/*.json"):
        read_json(path)
    found = max(
        estimates(folder),
        key=lambda each: (each[1].get("iteration", 0), evidence(each[1]), each[2]),
        default=None,
    )
    return ({}, "") if found is None else (found[1], str(found[0].relative_to(folder)))


def read_metrics(folder: Path) -> tuple[dict[str, Series], int]:
    """Every metric over iterations, and the number of starts; of iterations that were done again, the later ones.

    Raises:
        InputError: a file that is no table of metrics.
    """
    starts = sorted((first_of(path), path) for path in folder.glob("*/metrics.csv"))
    ends = [float(first) for first, _ in starts[1:]] + [math.inf]
    found: dict[str, dict[int, float]] = {}
    for (_, path), end in zip(starts, ends, strict=False):
        for iteration, name, value in rows_of(path):
            if iteration <= end:
                found.setdefault(name, {})[iteration] = value
    ordered = {name: dict(sorted(values.items())) for name, values in found.items()}
    return {name: Series(list(values), list(values.values())) for name, values in ordered.items()}, len(starts)


def first_of(path: Path) -> int:
    """The iteration at which the start began that wrote a file of metrics: its folder's name says it."""
    number = path.parent.name.removeprefix(FIRST)
    return int(number) if number.isdigit() else 0


def rows_of(path: Path) -> Iterator[tuple[int, str, float]]:
    """(iteration, name, value) of a file of metrics. Raises InputError for one that is damaged."""
    line = 1
    try:
        with open(path, newline="") as file:
            table = csv.DictReader(file)
            for row in table:
                line = table.line_num
                for name, text in row.items():
                    if name not in ("step", "epoch") and text:
                        value = float(text)
                        yield int(row["step"]), name, value if math.isfinite(value) else math.nan
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        what = f"line {line}: {str(error).splitlines()[0]}"
        raise InputError(f"{path} is damaged: {what}; move it away to do without") from error


def read_clock(folder: Path) -> Clock | None:
    """Hours and speed by the times in the files of TensorBoard; None where there are none, or they cannot be read."""
    files = sorted(folder.glob("**/events.out.tfevents.*")) if folder.is_dir() else []
    seconds = 0.0
    rate: dict[int, float] = {}
    for path in files:
        for before, after in pairwise(records_of(path)):
            passed = after.time - before.time
            if 0 < passed < IDLE:
                seconds += passed
                if after.is_training and after.iteration > before.iteration:  # the time of an estimate is not counted
                    rate[after.iteration] = (after.iteration - before.iteration) / passed
    if not seconds:
        return None
    ordered = dict(sorted(rate.items()))
    return Clock(seconds / 3600, Series(list(ordered), list(ordered.values())))


def records_of(path: Path) -> list[Record]:
    """Every record of a file of TensorBoard; those before the damage where it is damaged."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto import event_pb2

    found: list[Record] = []
    try:
        for raw in RawEventFileLoader(str(path)).Load():
            event = event_pb2.Event.FromString(raw)  # pyright: ignore[reportAttributeAccessIssue]
            if event.summary.value:
                tag = event.summary.value[0].tag
                found.append(Record(event.step, event.wall_time, tag.startswith("train/")))
    except Exception:  # the library raises whatever the damaged bytes lead to; hours are not worth a report
        return found
    return found


def some_pictures(folder: Path) -> list[tuple[int, Path]]:
    """At most eight of the pictures of chains, evenly spread, the first and the last among them."""
    files = sorted((int(path.stem), path) for path in folder.glob("*.png") if path.stem.isdigit())
    if len(files) <= MAX_PICTURES:
        return files
    return [files[round(n * (len(files) - 1) / (MAX_PICTURES - 1))] for n in range(MAX_PICTURES)]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys, classes by their names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found |= flat(value, f"{name}.")
        else:
            shown = str(value).rpartition(".")[2] if key == "class_path" else value
            found[name.removesuffix(".class_path").replace(".init_args", "")] = shown
    return found


def differing(runs: list[Run]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, by dotted key; None for one that a run does not have."""
    of_runs = [flat(run.settings) for run in runs]
    keys = dict.fromkeys(key for settings in of_runs for key in settings)
    values = {key: [settings.get(key) for settings in of_runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}
