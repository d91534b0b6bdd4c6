"""What a sweep keeps on disk, and what it makes of it: one folder a trial, readable while trials run.

SWEEP/sweep.yaml          the settings of the sweep
SWEEP/experiment.yaml     the experiment, as it was
SWEEP/trials/NUMBER/      a run's folder, and in it
    trial.json            its point of the space
    reports.jsonl         a line for every evaluation
    ended                 why no more is wanted, where it has no results.json: stopped or diverged
    log.txt               what fit says
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from gwg_dist.tools.files import write_json
from gwg_dist.training.folder import RESULTS

TRIALS, TRIAL, REPORTS, ENDED, LOG = "trials", "trial.json", "reports.jsonl", "ended", "log.txt"
WORST = 1e30  # stands for a value that is not to be believed; finite, as schedulers average
COLLAPSED = "collapsed"


class State(StrEnum):
    """How a trial stands. Open: there is more to do, now or when the sweep is resumed."""

    FINISHED = "finished"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    OPEN = "open"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"


ENDS = (State.FINISHED, State.STOPPED, State.DIVERGED)


@dataclass(frozen=True)
class TrialEvaluation:
    """One evaluation of a trial: a line of its folder, and what Ray is told.

    Args:
        iteration: iterations that the run had made.
        value: the metric; None where it is not to be believed, because the AIS weights have collapsed, the value is
            not finite or training has diverged.
        stderr: standard error of log Z, nats.
        ess: effective number of AIS chains.
        why: collapsed or diverged, where there is no value.
    """

    iteration: int
    value: float | None
    stderr: float = math.nan
    ess: float = math.nan
    why: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrialEvaluation:
        """The evaluation among the values of a line or of a result of Ray. Raises KeyError where one is missing."""
        return cls(**{each.name: values[each.name] for each in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def objective(self, mode: str) -> float:
        """What schedulers and searches see: worse than every true value where there is none."""
        if self.value is None:
            return -WORST if mode == "max" else WORST
        return self.value


@dataclass
class Trial:
    """A trial as its folder shows it; ``left_out`` are keys of the point that its classes do not have."""

    number: int
    point: dict[str, Any]
    folder: Path
    left_out: tuple[str, ...] = ()
    state: str = State.OPEN
    evaluations: list[TrialEvaluation] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the point that this trial's classes have."""
        return {key: value for key, value in self.point.items() if key not in self.left_out}

    @property
    def iteration(self) -> int:
        return self.evaluations[-1].iteration if self.evaluations else 0

    def best(self, mode: str) -> TrialEvaluation | None:
        """The best evaluation that is to be believed."""
        sound = [evaluation for evaluation in self.evaluations if evaluation.value is not None]
        return max(sound, key=lambda evaluation: signed(evaluation, mode), default=None)


def signed(evaluation: TrialEvaluation, mode: str) -> float:
    """The objective, large where good."""
    return evaluation.objective(mode) * (1 if mode == "max" else -1)


def best_trial(trials: list[Trial], mode: str) -> Trial | None:
    """The trial of the best evaluation, of those that have not diverged; None where none is to be believed."""
    sound = [trial for trial in trials if trial.state != State.DIVERGED]
    found = [(signed(best, mode), trial) for trial in sound if (best := trial.best(mode))]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def trial_folder(sweep: Path, number: int) -> Path:
    """The folder of a trial."""
    return sweep / TRIALS / f"{number:04d}"


def write_point(folder: Path, number: int, point: dict[str, Any], left_out: tuple[str, ...]) -> None:
    """Write what the trial varies from now on."""
    write_json(folder / TRIAL, {"number": number, "point": point, "left_out": left_out})


def append_evaluation(folder: Path, evaluation: TrialEvaluation) -> None:
    """Add a line, in one write."""
    with open(folder / REPORTS, "a") as file:
        file.write(json.dumps(evaluation.to_dict()) + "\n")


def mark_ended(folder: Path, state: str) -> None:
    """Write that no more is wanted of this trial."""
    (folder / ENDED).write_text(state)


def read_evaluations(folder: Path) -> list[TrialEvaluation]:
    """In the order they were made. What a restart measured again counts once, a torn last line not at all."""
    found: list[TrialEvaluation] = []
    for line in text_of_file(folder / REPORTS).splitlines():
        try:
            evaluation = TrialEvaluation.from_dict(json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue
        if evaluation not in found:
            found.append(evaluation)
    return found


def read_trial(folder: Path) -> Trial | None:
    """A trial out of its folder; None where it has not begun."""
    begun, results = read_json(folder / TRIAL), read_json(folder / RESULTS)
    if not begun:
        return None
    ended = text_of_file(folder / ENDED).strip()
    state = State.FINISHED if results else ended if ended in ENDS else State.OPEN
    evaluations = read_evaluations(folder)
    return Trial(begun["number"], begun["point"], folder, tuple(begun["left_out"]), state, evaluations, results)


def read_trials(sweep: Path) -> list[Trial]:
    """All trials that have begun, by number."""
    found = [read_trial(folder) for folder in (sweep / TRIALS).glob("*")]
    return sorted((trial for trial in found if trial is not None), key=lambda trial: trial.number)


def last_error(folder: Path) -> str:
    """The last error in a trial's log; empty where there is none."""
    lines = text_of_file(folder / LOG).splitlines()
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")


def text_of_file(path: Path) -> str:
    """The text of a file; empty where there is none."""
    return path.read_text(errors="replace") if path.is_file() else ""


def read_json(path: Path) -> dict[str, Any]:
    """The values in a file; empty where it is missing or was cut off, by a crash or a full disk."""
    try:
        return json.loads(text_of_file(path))
    except ValueError:
        return {}
