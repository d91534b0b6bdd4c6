"""A trial as Ray calls it, and the processes it takes.

This module imports nothing that trains: a process that only waits for the workers of its trial starts sooner so.
"""

from __future__ import annotations

from typing import Any

import ray.train
import ray.tune

from gwg_dist.tune.sweep import Sweep, TrialStart

RAY = "ray"  # Ray's own files in the folder of a sweep; nothing is resumed from them
DRIVER_CPUS = 0.01  # CPUs of the process that waits for the workers of a trial


def run_trial(config: dict[str, Any], sweep: Sweep) -> None:
    """Ray Tune calls this: train here, or start the workers and wait for them."""
    start = TrialStart(**config["start"])
    if sweep.workers == 1:
        from gwg_dist.tune.worker import train

        train(sweep, start)
        return
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"sweep": sweep, "start": start},
        scaling_config=ray.train.ScalingConfig(
            num_workers=sweep.workers, use_gpu=bool(sweep.gpus), resources_per_worker=worker_resources(sweep)
        ),
        run_config=ray.train.RunConfig(
            name=f"workers-{ray.tune.get_context().get_trial_id()}",
            storage_path=str(sweep.folder / RAY),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=sweep.max_failures),
        ),
    )
    trainer.fit()


def trial_resources(sweep: Sweep) -> dict[str, float]:
    """Resources of the process of a trial: all of them, or next to nothing where it starts workers."""
    return {"cpu": sweep.cpus, "gpu": sweep.gpus or 0} if sweep.workers == 1 else {"cpu": DRIVER_CPUS}


def worker_resources(sweep: Sweep) -> dict[str, float]:
    """Resources per worker of a trial with several; the process that waits for them takes what they leave."""
    return {"CPU": round(sweep.cpus - DRIVER_CPUS, 4)} | ({"GPU": sweep.gpus} if sweep.gpus else {})


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train calls this in every worker of a trial."""
    from gwg_dist.tune.worker import train

    train(config["sweep"], config["start"])
