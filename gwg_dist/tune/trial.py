"""A trial as Ray calls it, and the processes it takes.

This module imports nothing that trains: a process that only waits for the workers of its trial starts sooner so.
"""

from __future__ import annotations

from typing import Any

import ray.train
import ray.tune

from gwg_dist.tune.job import Job, TrialStart

DRIVER_CPUS = 0.01  # CPUs of the process that waits for the workers of a trial


def run_trial(config: dict[str, Any], job: Job) -> None:
    """Ray Tune calls this: train here, or start the workers and wait for them."""
    start = TrialStart(**config["start"])
    if job.sweep.workers == 1:
        from gwg_dist.tune.worker import train_alone

        train_alone(job, start)
        return
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "start": start},
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.sweep.workers, use_gpu=job.gpus > 0, resources_per_worker=worker_resources(job)
        ),
        run_config=ray.train.RunConfig(
            name=f"workers-{ray.tune.get_context().get_trial_id()}",
            storage_path=str(job.ray_folder),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=job.sweep.max_failures),
        ),
    )
    trainer.fit()


def trial_resources(job: Job) -> dict[str, float]:
    """Resources of the process of a trial: all of them, or next to nothing where it starts workers."""
    return {"cpu": job.sweep.cpus, "gpu": job.gpus} if job.sweep.workers == 1 else {"cpu": DRIVER_CPUS}


def worker_resources(job: Job) -> dict[str, float]:
    """Resources per worker of a trial with several; the process that waits for them takes what they leave."""
    return {"CPU": round(job.sweep.cpus - DRIVER_CPUS, 4)} | ({"GPU": job.gpus} if job.gpus else {})


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train calls this in every worker of a trial."""
    from gwg_dist.tune.worker import train_together

    train_together(config["job"], config["start"])
