"""The Lightning trainer of a run, out of its settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy

from gwg_dist.callbacks import CouplingError, Interruption, SamplePictures, TrainingProgress
from gwg_dist.checkpoints import AtomicCheckpointIO, RunCheckpoints
from gwg_dist.data import DiscreteData
from gwg_dist.module import EBMModule
from gwg_dist.strategy import ChainDDP, launched_world
from gwg_dist.strategy import environment as launched_environment
from gwg_dist.tools.errors import InputError

HALF_PRECISIONS = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")


def make_trainer(
    config: Namespace,
    objects: Namespace,
    folder: Path,
    more_callbacks: list[Callback],
    start: int,
    *,
    strategy: Strategy | None = None,
    environment: ClusterEnvironment | None = None,
) -> Trainer:
    """Callbacks, loggers, strategy and Lightning's trainer around the objects of a run.

    The order of the callbacks matters: what asks for an interruption comes first; the kernel is adapted and averages
    are updated before they are evaluated, all of it before a save.
    Raises ValueError, TypeError or RuntimeError where a callback or Lightning refuses its settings.
    """
    settings: dict[str, Any] = dict(objects.trainer)
    theirs = settings.pop("callbacks", None) or []
    first = [callback for callback in more_callbacks if isinstance(callback, Interruption)]
    callbacks = [
        *first,
        objects.guard,
        objects.adaptation,
        objects.ema,
        CouplingError(),
        objects.evaluation,
        SamplePictures(folder, every=config.pictures_every),
        *(theirs if isinstance(theirs, list) else [theirs]),
        *(callback for callback in more_callbacks if callback not in first),
        RunCheckpoints(folder, every=config.checkpoint_every, yardstick=yardstick(config)),
    ]
    if settings.get("enable_progress_bar") is not False:
        callbacks.append(TrainingProgress())
    if settings.get("logger") is None:
        settings["logger"] = [
            CSVLogger(folder, name="metrics", version=f"from_{start:07d}"),
            TensorBoardLogger(folder, name="tensorboard", version=""),
        ]
    alone = str(settings["devices"]) == "1" or (settings["devices"] == "auto" and torch.cuda.device_count() < 2)
    several = not alone or settings["num_nodes"] > 1
    if strategy is not None:
        settings["strategy"] = strategy
    elif settings["strategy"] == "ddp" or (settings["strategy"] == "auto" and several):
        settings["strategy"] = ChainDDP(patience=config.join_seconds)
    given = settings.pop("plugins", None) or []
    plugins = [*(given if isinstance(given, list) else [given]), AtomicCheckpointIO()]
    found = environment if environment is not None else launched_environment()
    if found is not None:
        plugins.append(found)
    trainer = Trainer(
        **settings, callbacks=callbacks, plugins=plugins, default_root_dir=folder, max_epochs=-1,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
    # Lightning's handlers save, and broadcast, inside a signal: ranks at different points would wait for ever.
    trainer._signal_connector.register_signal_handlers = lambda: None
    for interruption in first:
        interruption.trainer = trainer
    return trainer


class KeepConfig(Callback):
    """Writes the settings once training has really begun, so that a run that cannot start leaves what was there."""

    def __init__(self, write: Callable[[], None]) -> None:
        self.write = write
        self.written = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self.written and trainer.is_global_zero:
            self.write()
        self.written = True


def yardstick(config: Namespace) -> str:
    """What a likelihood was measured on and how: likelihoods compare where this is the same."""
    data = {name: value for name, value in config.data.as_dict().get("init_args", {}).items() if name != "batch_size"}
    evaluation = {name: getattr(config.evaluation, name) for name in ("num_chains", "num_temperatures", "schedule")}
    return f"{config.data.class_path} {data} {evaluation}"


def take_launched_world(config: Namespace, args: list[str]) -> None:
    """Where torchrun or srun started the processes, their number is the launcher's.

    Raises InputError where the command line says another one; what a file says gives way.
    """
    world, typed = launched_world(), {arg.split("=")[0] for arg in args}
    if world is None:
        if config.trainer.num_nodes > 1 and not os.environ.keys() & {"NODE_RANK", "MASTER_ADDR"}:
            if "--trainer.num_nodes" in typed:
                raise InputError(
                    f"trainer.num_nodes is {config.trainer.num_nodes}, but neither srun nor torchrun started this "
                    "process, and NODE_RANK and MASTER_ADDR are not set"
                )
            config.trainer.num_nodes = 1
        return
    for key, found, what in (("devices", world[0], "processes on each machine"), ("num_nodes", world[1], "machines")):
        ours = str(config.trainer[key])
        if f"--trainer.{key}" in typed and ours.isdigit() and ours != str(found):
            raise InputError(f"trainer.{key} is {ours}, but the launcher started {found} {what}")
        config.trainer[key] = found


def check(config: Namespace, module: EBMModule, data: DiscreteData) -> None:
    """What no single class can see. Raises InputError."""
    if str(config.trainer.precision) in HALF_PRECISIONS:
        raise InputError(
            f"trainer.precision {config.trainer.precision} would round the energies that the acceptance test compares"
        )
    if config.trainer.max_steps < 1:
        raise InputError(f"trainer.max_steps must be positive, got {config.trainer.max_steps}")
    if config.join_seconds <= 0:
        raise InputError(f"join_seconds must be positive, got {config.join_seconds}")
    size = getattr(module.chains, "size", None)
    if isinstance(size, int) and size < data.batch_size:
        raise InputError(f"model.chains.size must be at least data.batch_size, got {size} and {data.batch_size}")
    if data.space != module.space:
        raise InputError(f"the energy is for {module.space}, but the data are in {data.space}")


def check_world(trainer: Trainer, config: Namespace) -> None:
    """What depends on the number of processes. Raises InputError."""
    world = trainer.world_size
    for name, number in (
        ("data.batch_size", config.data.init_args.get("batch_size", world)),
        ("evaluation.num_chains", config.evaluation.num_chains),
    ):
        if number < world:
            raise InputError(f"{name} must be at least the {world} processes, got {number}")
