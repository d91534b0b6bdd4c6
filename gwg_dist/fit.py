"""Train a deep energy-based model on discrete data, and report its likelihood.

python -m gwg_dist.fit                                        handwritten digits, two minutes on two cores
python -m gwg_dist.fit --config configs/experiment/NAME.yaml  an experiment
python -m gwg_dist.fit --resume RUN                           go on with a run
Any key of --print_config can be set as --dotted.key=value, and classes by name: --model.energy=ResNetEnergy.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.seed import seed_everything
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy

from gwg_dist.callbacks import Interruption, Report, collapse_warning, console, evaluate_module, make_progress
from gwg_dist.checkpoints import newest_checkpoint, read_checkpoint
from gwg_dist.cli import Parser, build_parser, errors_for_people, instantiate, plain, quiet, save_config
from gwg_dist.distributed import launched_rank
from gwg_dist.errors import DivergedError, InputError, Stopped
from gwg_dist.module import check_resumable
from gwg_dist.runs import (
    BEST,
    CONFIG,
    LAST,
    RESULTS,
    checkpoint_path,
    expand_resume,
    load_weights,
    make_folder,
    report_json,
    report_table,
    run_folder,
    write_json,
)  # fmt: skip
from gwg_dist.strategy import started_by_us
from gwg_dist.trainer import KeepConfig, check, check_world, make_trainer, take_launched_world

SHOWN = (RESULTS, "samples.png", "metrics", "tensorboard")
REQUEUE = 75  # EX_TEMPFAIL of sysexits: start me again


def main(args: list[str] | None = None) -> None:
    """Parse, build, train, report.

    Exits with 0 when done, 2 for a mistake, 3 for divergence, 1 where a peer or a disk failed; 75 where SIGTERM or
    SIGUSR1 ended it and the same command line with --resume goes on; 130 for Ctrl-C.
    """
    quiet()
    args = sys.argv[1:] if args is None else args
    parser = build_parser(description=__doc__)
    config = parser.parse_args(expand_resume(args))
    with errors_for_people(), Interruption() as interruption:
        take_launched_world(config, args)
        folder, fresh = run_folder(config)
        try:
            fit(parser, config, folder, fresh=fresh, callbacks=[interruption])
        except Stopped as stopped:
            leave(folder, stopped.number)
        if interruption.received:
            interruption.tell_others()
            leave(folder, interruption.received)


def fit(
    parser: Parser,
    config: Namespace,
    folder: Path,
    *,
    fresh: bool,
    callbacks: Sequence[Callback] = (),
    strategy: Strategy | None = None,
    environment: ClusterEnvironment | None = None,
) -> Trainer:
    """Train what ``config`` says in ``folder``; unless stopped, evaluate the best weights and print the closing table.

    Args:
        parser: of the settings, to keep them.
        config: the settings.
        folder: of the run.
        fresh: whether to begin, rather than go on from ``config.ckpt_path``.
        callbacks: more than those of every run.
        strategy: in place of the one the settings name.
        environment: who starts processes, where that cannot be seen.

    Raises:
        InputError: settings, files or processes that do not fit.
        DivergedError: see ``DivergenceGuard``.
        LostError: a peer died, or the last state could not be written.
    """
    if not 0 <= config.seed < 2**32:
        raise InputError(f"seed must lie in 0 to 2^32 - 1, got {config.seed}")
    if config.num_threads < 1:
        raise InputError(f"num_threads must be positive, got {config.num_threads}")
    torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, verbose=False)
    objects = instantiate(parser, config)
    module, data = objects.model, objects.data
    module.seed = data.seed = config.seed
    check(config, module, data)
    if launched_rank() == 0:
        with console.status("reading the data"):
            data.prepare_data()
            _ = data.splits

    checkpoint = None if fresh else checkpoint_path(config, folder)
    start = 0
    if checkpoint is not None:
        checkpoint, contents = newest_checkpoint(checkpoint)
        check_resumable(contents, module)
        start = contents["global_step"]
        del contents
    keep_config = KeepConfig(lambda: save_config(parser, config, folder / CONFIG))
    try:
        trainer = make_trainer(
            config, objects, folder, [*callbacks, keep_config], start, strategy=strategy, environment=environment
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(plain(str(error))) from error
    check_world(trainer, config)
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
    if any(isinstance(callback, Interruption) and callback.received for callback in callbacks):
        if launched_rank() == 0:
            console.print(f"stopped at iteration {trainer.global_step}")
    else:
        report(trainer, objects, folder, seconds=time.monotonic() - began)
    return trainer


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


def leave(folder: Path, number: int) -> None:
    """Say how to go on, and exit. A process that rank 0 started leaves the verdict to rank 0."""
    if launched_rank() == 0:
        console.print(f"go on with: python -m gwg_dist.fit --resume {folder}", soft_wrap=True)
    elif started_by_us():
        sys.exit(0)
    sys.exit(130 if number == signal.SIGINT else REQUEUE)


if __name__ == "__main__":
    main()
