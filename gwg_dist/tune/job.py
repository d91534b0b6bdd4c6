"""What a sweep tells a trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gwg_dist.tune.records import trial_folder
from gwg_dist.tune.settings import Sweep


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep have in common.

    Args:
        sweep: settings of the sweep.
        folder: folder of the sweep, on a disk that all machines see.
        cwd: where the sweep was started; relative paths of settings count from there.
        gpus: GPUs per worker.
    """

    sweep: Sweep
    folder: Path
    cwd: str
    gpus: float

    @property
    def ray_folder(self) -> Path:
        """Where Ray keeps its own files. Nothing is resumed from them."""
        return self.folder / "ray"

    def trial_folder(self, number: int) -> Path:
        return trial_folder(self.folder, number)


@dataclass(frozen=True)
class TrialStart:
    """What one trial is told when it starts.

    Args:
        number: number of the trial; unlike Ray's name of it, it stays when the sweep is resumed.
        point: the point of the space, by dotted keys.
        left_out: keys of the point that the trial's classes do not have.
        args: command line of fit.
    """

    number: int
    point: dict[str, Any]
    left_out: tuple[str, ...]
    args: tuple[str, ...]
