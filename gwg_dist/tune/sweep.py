"""The settings of a sweep, and what it tells a trial.

Nothing that trains is imported here: trials read this in processes that only wait for others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep.

    Args:
        metric: what trials are compared by; val/log_likelihood, in nats. There is no default.
        experiment: a file of settings of gwg_dist.fit.
        settings: more settings of gwg_dist.fit for all trials, by dotted keys.
        space: what varies, by dotted keys: choice, uniform, log_uniform, int or log_int; with points for a grid.
        search: random, grid or optuna.
        scheduler: asha stops trials that are behind; pbt lets them take over the best ones' state; none.
        mode: max or min.
        num_trials: trials of the whole sweep; 0 is 16, or all of a grid.
        workers: processes per trial.
        cpus: CPUs per worker.
        gpus: GPUs per worker; by default one where the cluster has any.
        max_concurrent: trials that run at once; 0 is as many as fit.
        grace_iterations: iterations before a trial may be stopped, with pbt between two looks; 0 is evaluation.every.
        reduction_factor: n: asha lets the best 1/n go on, pbt lets the worst 1/n copy the best 1/n.
        max_failures: how often a trial that fails is started again.
        seed: seed of the search; the seed of the trials is a setting of fit.
        sweep_dir: folder of the sweep, on a disk that all machines see; runs/sweep-TIME by default.
        address: address of a running Ray cluster; by default one is started on this machine.
    """

    metric: str = ""
    experiment: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    search: str = "random"
    scheduler: str = "asha"
    mode: str = "max"
    num_trials: int = 0
    workers: int = 1
    cpus: float = 1.0
    gpus: float | None = None
    max_concurrent: int = 0
    grace_iterations: int = 0
    reduction_factor: int = 3
    max_failures: int = 2
    seed: int = 0
    sweep_dir: str | None = None
    address: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of a sweep whose ``sweep_dir`` is known."""
        return Path(self.sweep_dir or "")


@dataclass(frozen=True)
class TrialStart:
    """What one trial is told when it starts.

    Args:
        number: number of the trial; unlike Ray's name of it, it stays when the sweep is resumed.
        point: the point of the space, by dotted keys.
        left_out: keys of the point that the trial's classes do not have.
        args: command line of fit.
        cwd: where relative paths of the command line count from.
    """

    number: int
    point: dict[str, Any]
    left_out: tuple[str, ...]
    args: tuple[str, ...]
    cwd: str

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the point that the trial's classes have."""
        return {key: value for key, value in self.point.items() if key not in self.left_out}
