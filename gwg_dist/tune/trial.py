"""A trial as Ray calls it: what it is told, and the processes it takes.

Processes that only wait for others come by here; what trains is imported where it trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.tune

DRIVER_CPUS = 0.01  # of the process that waits for the workers of a trial


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep have in common.

    Args:
        sweep: the sweep's folder, on a disk that all machines see.
        cwd: where the sweep was started; relative paths of settings count from there.
        metric: the key of a report.
        mode: "max" or "min".
        workers: processes of a trial.
        cpus: of each.
        gpus: of each.
        max_failures: how often a trial's workers are started again.
        passes_on: whether a trial's checkpoint goes to other trials.
    """

    sweep: str
    cwd: str
    metric: str
    mode: str
    workers: int
    cpus: float
    gpus: float
    max_failures: int
    passes_on: bool


@dataclass(frozen=True)
class Start:
    """Which trial: its number, its point of the space, keys of it that it does not have, its command line of fit."""

    number: int
    point: dict[str, Any]
    left_out: tuple[str, ...]
    args: tuple[str, ...]


def run_trial(config: dict[str, Any]) -> None:
    """What Ray Tune calls: train here, or start the workers and wait for them."""
    job, start = Job(**config["job"]), Start(**config["start"])
    if job.workers == 1:
        from gwg_dist.tune.worker import train_alone

        train_alone(job, start)
        return
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": config["job"], "start": config["start"]},
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.workers, use_gpu=job.gpus > 0, resources_per_worker=worker_resources(job.cpus, job.gpus)
        ),
        run_config=ray.train.RunConfig(
            name=f"workers-{ray.tune.get_context().get_trial_id()}",
            storage_path=str(Path(job.sweep) / "ray"),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=job.max_failures),
        ),
    )
    trainer.fit()


def worker_resources(cpus: float, gpus: float) -> dict[str, float]:
    """Of a worker of a trial with several; the process that waits for them lives on what they leave."""
    return {"CPU": round(cpus - DRIVER_CPUS, 4)} | ({"GPU": gpus} if gpus else {})


def train_worker(config: dict[str, Any]) -> None:
    """What Ray Train calls in every worker of a trial."""
    from gwg_dist.tune.worker import train_together

    train_together(Job(**config["job"]), Start(**config["start"]))
