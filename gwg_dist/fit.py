"""Train a deep energy-based model on discrete data, and report its likelihood.

python -m gwg_dist.fit                                        handwritten digits, two minutes on two cores
python -m gwg_dist.fit --config configs/experiment/NAME.yaml  an experiment
python -m gwg_dist.fit --resume RUN                           go on with a run
Any key of --print_config can be set as --dotted.key=value, and classes by name: --model.energy=ResNetEnergy.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.seed import seed_everything
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from gwg_dist.callbacks import (
    CouplingError,
    Interruption,
    Report,
    SamplePictures,
    TrainingProgress,
    collapse_warning,
    console,
    evaluate_module,
    make_progress,
)  # fmt: skip
from gwg_dist.checkpoints import AtomicCheckpointIO, RunCheckpoints, read_checkpoint
from gwg_dist.cli import Parser, build_parser, errors_for_people, instantiate, plain, quiet, save_config
from gwg_dist.errors import DivergedError, InputError
from gwg_dist.module import check_resumable
from gwg_dist.runs import BEST, CONFIG, LAST, RESULTS, load_weights, make_folder, report_json, report_table, write_json

HALF_PRECISIONS = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
SHOWN = (RESULTS, "samples.png", "metrics", "tensorboard")
RUN_DIR_VARIABLE = "GWG_DIST_RUN_DIR"


def main(args: list[str] | None = None) -> None:
    """Parse, build, train, report. Exits with 2 for a mistake, 3 for divergence, 128 + n for signal n."""
    quiet()
    parser = build_parser(description=__doc__)
    config = parser.parse_args(expand_resume(sys.argv[1:] if args is None else args))
    with errors_for_people():
        folder, fresh = run_folder(config)
        fit(parser, config, folder, fresh=fresh)


def fit(parser: Parser, config: Namespace, folder: Path, *, fresh: bool) -> None:
    """Train what ``config`` says in ``folder``, evaluate the best weights, print the closing table."""
    if not 0 <= config.seed < 2**32:
        raise InputError(f"seed must lie in 0 to 2^32 - 1, got {config.seed}")
    if config.num_threads < 1:
        raise InputError(f"num_threads must be positive, got {config.num_threads}")
    torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, verbose=False)
    objects = instantiate(parser, config)
    module, data = objects.model, objects.data
    module.seed = data.seed = config.seed
    check(config, data.batch_size)
    if launched_rank() == 0:
        with console.status("reading the data"):
            data.prepare_data()
            _ = data.splits

    checkpoint = None if fresh else checkpoint_path(config, folder)
    start = 0
    if checkpoint is not None:
        contents = read_checkpoint(checkpoint)
        check_resumable(contents, module)
        start = contents["global_step"]
        del contents
    interruption = Interruption()
    keep_config = KeepConfig(lambda: save_config(parser, config, folder / CONFIG))
    try:
        trainer = make_trainer(config, objects, folder, [keep_config, interruption], start)
    except (ValueError, TypeError) as error:
        raise InputError(plain(str(error))) from error
    if launched_rank() == 0:
        make_folder(folder)
        console.print(
            f"run folder: {folder}" + (f", going on from iteration {start}" if checkpoint else ""), soft_wrap=True
        )
    began = time.monotonic()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except DivergedError as error:
        last = folder / LAST
        left = (
            f"{LAST} is of iteration {read_checkpoint(last)['global_step']}"
            if last.is_file()
            else "no checkpoint was written yet"
        )
        raise DivergedError(f"{error}; {left}") from error
    if interruption.received:
        stopped(trainer, folder, interruption.received)
    report(trainer, objects, folder, seconds=time.monotonic() - began)


def make_trainer(
    config: Namespace, objects: Namespace, folder: Path, more_callbacks: list[Callback], start: int
) -> Trainer:
    """The order of the callbacks matters: averages are updated before they are evaluated, all of it before a save."""
    settings: dict[str, Any] = dict(objects.trainer)
    callbacks = [
        objects.guard,
        objects.ema,
        CouplingError(),
        objects.evaluation,
        SamplePictures(folder, every=config.pictures_every),
        *(settings.pop("callbacks", None) or []),
        *more_callbacks,
        RunCheckpoints(folder, every=config.checkpoint_every, yardstick=yardstick(config)),
    ]
    if settings.get("enable_progress_bar") is not False:
        callbacks.append(TrainingProgress())
    if settings.get("logger") is None:
        settings["logger"] = [
            CSVLogger(folder, name="metrics", version=f"from_{start:07d}"),
            TensorBoardLogger(folder, name="tensorboard", version=""),
        ]
    several = str(settings["devices"]) not in ("1", "auto") or settings["num_nodes"] > 1
    if settings["strategy"] == "ddp" or (settings["strategy"] == "auto" and several):
        settings["strategy"] = DDPStrategy(broadcast_buffers=False)
    plugins = settings.pop("plugins", None) or []
    plugins = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    return Trainer(
        **settings, callbacks=callbacks, plugins=plugins, default_root_dir=folder, max_epochs=-1,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip


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


def final_evaluation(trainer: Trainer, objects: Namespace, folder: Path) -> tuple[Path, dict[str, Any], Report]:
    """The best weights; against the last ones where the newest evaluation had collapsed and could not be compared.

    The better by validation is returned, a trustworthy estimate before a collapsed one; where that is the last, it
    becomes best.ckpt.
    """
    module, data, latest = objects.model, objects.data, objects.evaluation.latest
    best, last = folder / BEST, folder / LAST
    undecided = latest is not None and latest[1].estimate.collapsed
    candidates = [path for path in (best, last) if path.is_file() and (path == best or undecided or not best.is_file())]
    found = []
    for path in candidates:
        checkpoint = read_checkpoint(path)
        load_weights(module, checkpoint)
        module.to(trainer.strategy.root_device)
        with make_progress() as progress:
            shown = progress if launched_rank() == 0 else None
            settings, iteration = objects.evaluation.final_settings, checkpoint["global_step"]
            report = evaluate_module(module, data.splits, settings, iteration=iteration, progress=shown)
        validation = report.likelihoods.get("val")
        found.append(
            ((not report.estimate.collapsed, validation.mean if validation else 0.0), path, checkpoint, report)
        )
    (trusted, _), path, checkpoint, report = max(found, key=lambda entry: entry[0])
    if path == last and trusted and launched_rank() == 0:
        beside = best.with_name(f".{best.name}.tmp")
        shutil.copyfile(last, beside)
        beside.replace(best)
    return path, checkpoint, report


def report(trainer: Trainer, objects: Namespace, folder: Path, *, seconds: float) -> None:
    """Evaluate the chosen weights with the final settings, on all ranks; print and write the results."""
    path, checkpoint, result = final_evaluation(trainer, objects, folder)
    if launched_rank() != 0:
        return
    write_json(report_json(result, checkpoint, path), folder / RESULTS)
    console.print(report_table(result, title=f"{path.name} (iteration {checkpoint['global_step']})"))
    if result.estimate.collapsed:
        console.print(f"[bold red]{collapse_warning(result.estimate)}[/]", soft_wrap=True)
    kept = checkpoint["chains"]["packed"] is not None
    if path.name == LAST:
        console.print("the evaluations during training could not decide; these are the last weights")
    console.print(
        f"{trainer.global_step} iterations, {seconds:.0f} s\n"
        f"results in {folder}: {', '.join(name for name in SHOWN if (folder / name).exists())}\n"
        f"next: python -m gwg_dist.sample {folder} --num 64{'' if kept else ' --start reference'}\n"
        f"      python -m gwg_dist.evaluate {folder} --num_temperatures 20000\n"
        f"      python -m gwg_dist.fit --resume {folder} --trainer.max_steps {2 * trainer.max_steps}",
        soft_wrap=True,
    )


# -- where a run lives, and whether it may ----------------------------------------------------------------------------


def expand_resume(args: list[str]) -> list[str]:
    """``--resume RUN`` stands for the run's config, its folder and its last checkpoint; later settings still win."""
    expanded: list[str] = []
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        if name != "--resume":
            expanded.append(arg)
            continue
        run = Path(value if equals else next(rest, ""))
        last = run / LAST
        checkpoint = str(last) if last.is_file() else "last"
        expanded = ["--config", str(run / CONFIG), "--run_dir", str(run), "--ckpt_path", checkpoint, *expanded]
    return expanded


def run_folder(config: Namespace) -> tuple[Path, bool]:
    """The folder, and whether the run starts afresh.

    Ranks that a launcher started find the same default: the launching process hands it down, and SLURM and torchrun
    have a name for the job. Raises InputError where another run would be overwritten.
    """
    if RUN_DIR_VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[RUN_DIR_VARIABLE]), config.ckpt_path is None
    if config.run_dir is not None:
        folder = Path(config.run_dir)
    else:
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
        if job in (None, "none"):
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise InputError("run_dir: give one, or a --rdzv-id to torchrun, so that all ranks use the same folder")
            job = time.strftime("%Y%m%d-%H%M%S")
        folder = Path("runs") / f"{config.data.class_path.rsplit('.', 1)[-1].lower()}-{job}"
    holds_a_run = (folder / LAST).exists() or (folder / BEST).exists() or (folder / CONFIG).exists()
    own = config.ckpt_path == "last" or (
        config.ckpt_path and Path(config.ckpt_path).resolve().parent == folder.resolve()
    )
    if holds_a_run and not own and launched_rank() == 0:
        raise InputError(f"{folder} already holds a run: go on with --resume {folder}, or choose another --run_dir")
    os.environ[RUN_DIR_VARIABLE] = str(folder)
    return folder, config.ckpt_path is None


def checkpoint_path(config: Namespace, folder: Path) -> Path | None:
    """The file that --ckpt_path means; "last" is None where the run has none yet."""
    if config.ckpt_path != "last":
        return Path(config.ckpt_path)
    last = folder / LAST
    return last if last.is_file() else None


def launched_rank() -> int:
    """This process's rank as its launcher says, before there is a process group."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)


def check(config: Namespace, batch_size: int) -> None:
    """What no single class can see."""
    if str(config.trainer.precision) in HALF_PRECISIONS:
        raise InputError(
            f"trainer.precision {config.trainer.precision} would round the energies that the acceptance test compares"
        )
    if config.trainer.max_steps < 1:
        raise InputError(f"trainer.max_steps must be positive, got {config.trainer.max_steps}")
    chains = config.model.chains.init_args if config.model.chains is not None else Namespace()
    size = chains.get("size")
    if isinstance(size, int) and size < batch_size:
        raise InputError(f"model.chains.size must be at least data.batch_size, got {size} and {batch_size}")


def stopped(trainer: Trainer, folder: Path, number: int) -> None:
    """Say where the run stands and exit as a process that the signal ended."""
    if launched_rank() == 0:
        console.print(
            f"stopped at iteration {trainer.global_step}; go on with: python -m gwg_dist.fit --resume {folder}"
        )
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
