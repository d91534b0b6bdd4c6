"""Train a deep energy-based model on discrete data, and report its likelihood.

python -m gwg_dist.fit                                        handwritten digits, two minutes on two cores
python -m gwg_dist.fit --config NAME                          an experiment that ships with the package, or a YAML file
python -m gwg_dist.fit --resume RUN                           go on with a run
Any key of --print_config can be set as --dotted.key=value, and classes by name: --model.energy=ResNetEnergy.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.seed import seed_everything
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy

from gwg_dist.callbacks import Interruption, assess_module
from gwg_dist.checkpoints import DAMAGED, newest_checkpoint, read_checkpoint
from gwg_dist.cli import Parser, build_parser, errors_for_people, instantiate, plain, save_config
from gwg_dist.evaluation import Assessment, Unfinished, collapse_warning
from gwg_dist.module import EBMModule, check_resumable
from gwg_dist.runs import (
    BEST,
    CONFIG,
    EVALUATION,
    LAST,
    RESULTS,
    Waiting,
    assessment_json,
    assessment_table,
    checkpoint_path,
    expand_resume,
    load_weights,
    make_folder,
    mark_job,
    run_folder,
    write_json,
)  # fmt: skip
from gwg_dist.tools.distributed import from_rank_0, launched_rank
from gwg_dist.tools.errors import DivergedError, InputError, Stopped
from gwg_dist.tools.seeding import STREAMS
from gwg_dist.tools.terminal import console, make_progress, quiet
from gwg_dist.trainer import KeepConfig, check, check_world, make_trainer, take_launched_world

SHOWN = (RESULTS, "samples.png", "metrics", "tensorboard")
OTHER_STREAMS = (
    "the checkpoint is of an older gwg_dist: chains go on as they were; from here on the order of the data and the "
    "draws of estimates are not those that the older version would have made"
)
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
    folder = None
    with errors_for_people(), Interruption() as interruption:
        try:
            take_launched_world(config, args)
            folder, fresh = run_folder(config)
            fit(parser, config, folder, fresh=fresh, callbacks=[interruption])
        except Stopped:
            leave(folder, interruption)


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
        Stopped: a signal came; the state is saved.
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

    asked = None if fresh else checkpoint_path(config, folder)
    checkpoint = None if asked is None else resumable(asked, module)
    start = module.start_iteration
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
        mark_job(folder)
        if checkpoint != asked and asked is not None and asked.is_file():
            asked.replace(asked.with_name(DAMAGED))  # or it would become the previous one
        console.print(
            f"run folder: {folder}" + (f", going on from iteration {start}" if checkpoint else ""), soft_wrap=True
        )
    began = time.monotonic()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except DivergedError as error:
        raise DivergedError(f"{error}; {what_is_left(folder)}") from error
    stops = [callback.agreed for callback in callbacks if isinstance(callback, Interruption)]
    if stops and stops[0]():
        if launched_rank() == 0:
            console.print(f"stopped at iteration {trainer.global_step}")
        raise Stopped(0)
    report(trainer, objects, folder, seconds=time.monotonic() - began, stop=stops[0] if stops else None)
    return trainer


def resumable(asked: Path, module: EBMModule) -> Path:
    """The checkpoint that training goes on from: ``asked``, or the one before it where that is damaged.

    Sets ``module.start_iteration``. Raises InputError where training cannot go on from it with these settings.
    """
    checkpoint, contents = newest_checkpoint(asked)
    check_resumable(contents, module)
    module.start_iteration = contents["global_step"]
    if launched_rank() == 0 and contents["gwg_dist"].get("streams") != STREAMS:
        console.print(OTHER_STREAMS, soft_wrap=True)
    return checkpoint


def what_is_left(folder: Path) -> str:
    """Of a run that has diverged."""
    try:
        path, checkpoint = newest_checkpoint(folder / LAST)
    except InputError:
        return "no checkpoint was written yet"
    return f"{path.name} is of iteration {checkpoint['global_step']}"


def final_evaluation(
    trainer: Trainer, objects: Namespace, folder: Path, stop: Callable[[], bool] | None
) -> tuple[Path, dict[str, Any], Assessment]:
    """The best weights; against the last ones where the newest evaluation could not decide.

    The better by validation is returned, a trustworthy estimate before a collapsed one; where that is the last, it
    becomes best.ckpt. Raises Stopped where ``stop`` says so; the next call goes on with the estimate it stopped in.
    """
    module, data, undecided = objects.model, objects.data, objects.evaluation.undecided
    best, last = folder / BEST, folder / LAST
    found = []
    candidates = (readable([best, last] if undecided else [best]) or [last]) if launched_rank() == 0 else []
    for path in from_rank_0(candidates):
        path, checkpoint = newest_checkpoint(path)
        load_weights(module, checkpoint)
        module.to(trainer.strategy.root_device)
        waiting = Waiting(folder / EVALUATION / f"closing-{path.stem}.partial.pt", checkpoint)
        with make_progress() as progress:
            shown = progress if launched_rank() == 0 else None
            settings, iteration = objects.evaluation.final_settings, checkpoint["global_step"]
            assessment = assess_module(
                module, data.splits, settings, iteration=iteration, progress=shown, stop=stop, unfinished=waiting.read()
            )
        if isinstance(assessment, Unfinished):
            waiting.write(assessment)
            raise Stopped(0)
        waiting.delete()
        validation = assessment.likelihoods.get("val")
        found.append(((not assessment.collapsed, validation.mean if validation else 0.0), path, checkpoint, assessment))
    (trusted, _), path, checkpoint, assessment = max(found, key=lambda entry: entry[0])
    if path == last and trusted and launched_rank() == 0:
        beside = best.with_name(f".{best.name}.tmp")
        shutil.copyfile(last, beside)
        beside.replace(best)
    return path, checkpoint, assessment


def readable(paths: list[Path]) -> list[Path]:
    """Those of the checkpoints that are there and whole."""
    found = []
    for path in paths:
        if path.is_file():
            try:
                read_checkpoint(path)
            except InputError as error:
                console.print(f"left out: {error}", soft_wrap=True, markup=False)
            else:
                found.append(path)
    return found


def report(
    trainer: Trainer, objects: Namespace, folder: Path, *, seconds: float, stop: Callable[[], bool] | None
) -> None:
    """Evaluate the chosen weights with the final settings, on all ranks; print and write the results."""
    path, checkpoint, assessment = final_evaluation(trainer, objects, folder, stop)
    if launched_rank() != 0:
        return
    console.print(assessment_table(assessment, title=f"{path.name} (iteration {checkpoint['global_step']})"))
    write_json(assessment_json(assessment, checkpoint, path), folder / RESULTS)
    if assessment.collapsed:
        console.print(f"[bold red]{collapse_warning(assessment)}[/]", soft_wrap=True)
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


def leave(folder: Path | None, interruption: Interruption) -> None:
    """Say how to go on, and exit. A process that rank 0 started leaves the verdict to rank 0."""
    interruption.tell_others()
    if interruption.is_child:
        sys.exit(0)
    if launched_rank() == 0 and folder is not None:
        console.print(f"go on with: python -m gwg_dist.fit --resume {folder}", soft_wrap=True)
    sys.exit(130 if interruption.received == signal.SIGINT else REQUEUE)


if __name__ == "__main__":
    main()
