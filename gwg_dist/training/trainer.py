"""The Lightning trainer of a run, out of its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy

from gwg_dist.callbacks import CouplingError, KernelChange, SamplePictures, Symptoms, TrainingMetrics, TrainingProgress
from gwg_dist.evaluation import check_num_chains
from gwg_dist.tools import trust
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import surviving
from gwg_dist.training.checkpoints import AtomicCheckpointIO, RunCheckpoints
from gwg_dist.training.interruption import Interruption
from gwg_dist.training.limit import time_limit
from gwg_dist.training.logs import MetricsFile, TensorBoardFile
from gwg_dist.training.overhead import NoProfiler, without_empty_hooks
from gwg_dist.training.processes import ChainDDP, SameStart
from gwg_dist.training.processes import environment as launched_environment


def make_trainer(
    config: Namespace,
    objects: Namespace,
    folder: Path,
    *,
    start: int = 0,
    callbacks: Sequence[Callback] = (),
    interruption: Interruption | None = None,
    strategy: Strategy | None = None,
    environment: ClusterEnvironment | None = None,
) -> Trainer:
    """Callbacks, loggers, strategy and Lightning's trainer around the objects of a run.

    The order of the callbacks matters: what asks for an interruption comes first; the kernel and the pace are adapted
    and averages are updated before they are evaluated, all of it before a save.

    Args:
        config: settings of the run.
        objects: what ``instantiate`` made of them.
        folder: folder of the run.
        start: iteration that the run goes on from.
        callbacks: callbacks beside those of every run.
        interruption: what tells the run to stop.
        strategy: strategy in place of the one that the settings name.
        environment: what started the processes, where that cannot be seen.

    Raises:
        ValueError, TypeError, RuntimeError, MisconfigurationException: Lightning or a callback refuses its settings.
    """
    settings: dict[str, Any] = dict(objects.trainer)
    all_callbacks = [
        *([] if interruption is None else [interruption]),
        *callbacks_of(config, objects, folder, settings, start=start, callbacks=callbacks),
    ]
    settings["logger"] = loggers_of(settings.get("logger"), folder, start=start)
    settings["strategy"] = strategy or strategy_of(config, settings)
    environment = environment or launched_environment()
    plugins = [*_listed(settings.pop("plugins", None)), AtomicCheckpointIO(), *([environment] if environment else [])]
    without_empty_hooks(all_callbacks)
    trainer = Trainer(
        **{"profiler": NoProfiler(), **{name: value for name, value in settings.items() if value is not None}},
        callbacks=all_callbacks,
        plugins=plugins,
        default_root_dir=folder,
        max_epochs=-1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    # Lightning's handlers save, and broadcast, inside a signal: ranks at different points would wait for ever.
    trainer._signal_connector.register_signal_handlers = lambda: None
    if interruption is not None:
        interruption.trainer = trainer
        objects.evaluation.stop = interruption.agreed
    return trainer


def callbacks_of(
    config: Namespace,
    objects: Namespace,
    folder: Path,
    settings: dict[str, Any],
    *,
    start: int,
    callbacks: Sequence[Callback],
) -> list[Callback]:
    """The callbacks of a run in their order; what is theirs is taken out of the trainer's ``settings``."""
    every = 50 if settings["log_every_n_steps"] is None else settings["log_every_n_steps"]
    theirs = _listed(settings.pop("callbacks", None))
    return [
        SameStart(start),
        objects.regularisation,
        Symptoms(objects.guard),
        objects.guard,
        objects.adaptation,
        KernelChange(),
        objects.pace,
        objects.ema,
        TrainingMetrics(every),
        CouplingError(every),
        objects.evaluation,
        objects.stop,
        SamplePictures(folder, every=config.pictures_every),
        *theirs,
        *callbacks,
        *time_limit(settings.pop("max_time", None), trust.option_for(config)),
        RunCheckpoints(folder, every=config.checkpoint_every, yardstick=yardstick(config)),
        *([] if settings.get("enable_progress_bar") is False else [TrainingProgress()]),
    ]


def loggers_of(given: Any, folder: Path, *, start: int) -> Any:
    """The loggers that the settings name and those of every run; False turns all of them off."""
    if given is False:
        return False
    return [
        *(logger for logger in _listed(given) if logger is not True),
        MetricsFile(folder, name="metrics", version=f"from_{start:07d}"),
        TensorBoardFile(folder, name="tensorboard", version=""),
    ]


def strategy_of(config: Namespace, settings: dict[str, Any]) -> Strategy | str:
    """``ChainDDP`` where several processes train, what the settings name otherwise."""
    alone = str(settings["devices"]) == "1" or (settings["devices"] == "auto" and torch.cuda.device_count() < 2)
    several = not alone or settings["num_nodes"] > 1
    if settings["strategy"] == "ddp" or (settings["strategy"] == "auto" and several):
        return ChainDDP(patience=config.join_seconds)
    return settings["strategy"]


def check_ranks(objects: Namespace, num: int) -> None:
    """Raise InputError where ``num`` processes are too many for the batch or for the chains of an estimate."""
    objects.data.check_ranks(num)
    try:
        check_num_chains(objects.evaluation.settings.num_chains, num)
    except ValueError as error:
        raise InputError(f"evaluation.{error}") from error


class KeepConfig(Callback):
    """Writes the settings once training has really begun, so that a run that cannot start leaves what was there.

    Args:
        write: called once, on rank 0.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self.write = write
        self.written = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self.written and trainer.is_global_zero:
            with surviving("the settings"):
                self.write()
        self.written = True


def yardstick(config: Namespace) -> str:
    """What a likelihood was measured on and how: likelihoods compare where this is the same."""
    data = {name: value for name, value in config.data.as_dict().get("init_args", {}).items() if name != "batch_size"}
    names = ("num_chains", "num_temperatures", "schedule", "both_sides")
    evaluation = {name: getattr(config.evaluation, name) for name in names}
    return f"{config.data.class_path} {data} {evaluation}"


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
