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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gwg_dist.tools.files import write_json
from gwg_dist.training.folder import RESULTS

TRIALS, TRIAL, REPORTS, ENDED, LOG = "trials", "trial.json", "reports.jsonl", "ended", "log.txt"
WORST = 1e30  # stands for the value of a report that is not to be believed; finite, as schedulers average

# States of a trial. The first three are ends.
FINISHED, STOPPED, DIVERGED = "finished", "stopped", "diverged"
RUNNING, PAUSED, FAILED, OPEN = "running", "paused", "failed", "open"
ENDS = (FINISHED, STOPPED, DIVERGED)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a trial.

    Args:
        iteration: of the run.
        value: of the metric; None where it is not to be believed, because the AIS weights have collapsed, the value is
            not finite or training has diverged.
        stderr: of log Z, nats.
        ess: effective number of AIS chains.
        why: collapsed or diverged, where there is no value.
    """

    iteration: int
    value: float | None
    stderr: float = math.nan
    ess: float = math.nan
    why: str = ""

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
    state: str = OPEN
    evaluations: list[Evaluation] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What of the point means something to this trial."""
        return {key: value for key, value in self.point.items() if key not in self.left_out}

    @property
    def iteration(self) -> int:
        return self.evaluations[-1].iteration if self.evaluations else 0

    def best(self, mode: str) -> Evaluation | None:
        """The best evaluation that is to be believed."""
        sound = [evaluation for evaluation in self.evaluations if evaluation.value is not None]
        return max(sound, key=lambda evaluation: signed(evaluation, mode)) if sound else None


def signed(evaluation: Evaluation, mode: str) -> float:
    """The objective, large where good."""
    return evaluation.objective(mode) * (1 if mode == "max" else -1)


def best_trial(trials: list[Trial], mode: str) -> Trial | None:
    """The trial of the best evaluation, of those that have not diverged; None where none is to be believed."""
    sound = [trial for trial in trials if trial.state != DIVERGED]
    found = [(signed(best, mode), trial) for trial in sound if (best := trial.best(mode)) is not None]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def trial_folder(sweep: Path, number: int) -> Path:
    """Where a trial lives."""
    return sweep / TRIALS / f"{number:04d}"


def write_point(folder: Path, number: int, point: dict[str, Any], left_out: tuple[str, ...]) -> None:
    """What the trial varies, from now on."""
    write_json(folder / TRIAL, {"number": number, "point": point, "left_out": left_out})


def append_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """One line, in one write."""
    with open(folder / REPORTS, "a") as file:
        file.write(json.dumps(evaluation.__dict__) + "\n")


def mark_ended(folder: Path, state: str) -> None:
    """No more is wanted of this trial."""
    (folder / ENDED).write_text(state)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """In the order they were made. What a restart measured again counts once, a torn last line not at all."""
    path = folder / REPORTS
    found: list[Evaluation] = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            evaluation = Evaluation(**json.loads(line))
        except (ValueError, TypeError):
            continue
        if evaluation not in found:
            found.append(evaluation)
    return found


def read_trial(folder: Path) -> Trial | None:
    """A trial out of its folder; None where it has not begun."""
    try:
        content = json.loads((folder / TRIAL).read_text())
    except (OSError, ValueError):
        return None
    results = json.loads((folder / RESULTS).read_text()) if (folder / RESULTS).is_file() else {}
    ended = (folder / ENDED).read_text().strip() if (folder / ENDED).is_file() else ""
    state = FINISHED if results else ended if ended in ENDS else OPEN
    return Trial(
        content["number"],
        content["point"],
        folder,
        tuple(content["left_out"]),
        state,
        read_evaluations(folder),
        results,
    )


def read_trials(sweep: Path) -> list[Trial]:
    """All trials that have begun, by number."""
    found = [read_trial(folder) for folder in sorted((sweep / TRIALS).glob("*"))]
    return sorted((trial for trial in found if trial is not None), key=lambda trial: trial.number)


def last_error(folder: Path) -> str:
    """The last thing a trial's log says of an error."""
    path = folder / LOG
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
