"""A run, from its settings to its closing table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.seed import seed_everything
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy

from gwg_dist.data import describe
from gwg_dist.module import EBMModule
from gwg_dist.tools.commands import Parser, plain
from gwg_dist.tools.distributed import launched_rank
from gwg_dist.tools.errors import DivergedError, InputError, Stopped
from gwg_dist.tools.files import clear_scraps, make_folder
from gwg_dist.tools.seeding import STREAMS
from gwg_dist.tools.terminal import console, say
from gwg_dist.training.budget import budget_of
from gwg_dist.training.changes import changes
from gwg_dist.training.checkpoints import newest_checkpoint, read_checkpoint, what_is_left
from gwg_dist.training.contents import check_checkpoint, check_resumable
from gwg_dist.training.energy_output import check_energy_output
from gwg_dist.training.folder import BEST, CONFIG, DAMAGED, FILES, LAST, Place, mark_job
from gwg_dist.training.interruption import Interruption
from gwg_dist.training.limit import nothing_left
from gwg_dist.training.logs import in_folder
from gwg_dist.training.memory import check_fits, needs, summary
from gwg_dist.training.ranges import check
from gwg_dist.training.recipe import say_choices
from gwg_dist.training.results import report
from gwg_dist.training.settings import as_text, instantiate, recall, save_config, without_effect
from gwg_dist.training.trainer import KeepConfig, check_ranks, make_trainer

OTHER_STREAMS = (
    "the checkpoint is of an older gwg_dist: chains go on as they were; from here on the order of the data and the "
    "draws of estimates are not those that the older version would have made"
)


def train(
    parser: Parser,
    config: Namespace,
    place: Place,
    *,
    interruption: Interruption | None = None,
    callbacks: Sequence[Callback] = (),
    strategy: Strategy | None = None,
    environment: ClusterEnvironment | None = None,
) -> Trainer:
    """Train what ``config`` says; unless stopped, evaluate the best weights and print the closing table.

    Args:
        parser: parser of the settings, which can write them down.
        config: settings of the run.
        place: folder of the run, and what it goes on from.
        interruption: what tells the run to stop.
        callbacks: callbacks beside those of every run.
        strategy: strategy in place of the one that the settings name.
        environment: what started the processes, where that cannot be seen.

    Raises:
        InputError: settings, files or processes that do not fit.
        DivergedError: see ``DivergenceGuard``.
        LostError: a peer died, or the last state could not be written.
        Stopped: a signal came; the state is saved.
    """
    began = time.monotonic()
    asked = place.start()
    if place.is_own():
        recall(parser, config, place.folder / CONFIG)
    in_folder(config, place.folder)
    objects = build(parser, config)
    checkpoint, start = (None, 0) if asked is None else resumable(asked, objects.model)
    if config.weights_from is not None and checkpoint is None:
        take_weights(objects.model, config.weights_from)
    budget = budget_of(config, objects, began=began, start=start)
    keep_config = KeepConfig(lambda: save_config(parser, config, place.folder / CONFIG))
    with plainly():
        trainer = make_trainer(
            config,
            objects,
            place.folder,
            start=start,
            callbacks=[*budget, *callbacks, keep_config],
            interruption=interruption,
            strategy=strategy,
            environment=environment,
        )
    check_ranks(objects, trainer.world_size)
    if launched_rank() == 0:
        prepare_folder(place.folder, asked, checkpoint)
        tell_beginning(parser, config, place, start=start, goes_on=checkpoint is not None)
        if not budget:  # which says its choices once they are known
            say_choices(objects.choices)
            if through := nothing_left(start, trainer.max_steps):
                say(through)
    began = time.monotonic()
    fit(trainer, objects, place.folder, checkpoint)
    if interruption is not None and interruption.agreed():
        if launched_rank() == 0:
            say(f"stopped at iteration {trainer.global_step}")
        raise Stopped(0)
    stop = None if interruption is None else interruption.agreed
    report(trainer, objects, place.folder, seconds=time.monotonic() - began, stop=stop)
    return trainer


@contextmanager
def plainly() -> Iterator[None]:
    """Within it what Lightning says against a setting is an InputError in one line."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise InputError(plain(str(error))) from error


def fit(trainer: Trainer, objects: Namespace, folder: Path, checkpoint: Path | None) -> None:
    """The iterations, from a checkpoint where there is one.

    Raises:
        DivergedError: with what is left in ``folder``.
        InputError: settings that Lightning refuses as it begins.
    """
    try:
        trainer.fit(objects.model, datamodule=objects.data, ckpt_path=checkpoint, weights_only=True)
    except DivergedError as error:
        raise DivergedError(f"{error}; {what_is_left(folder)}") from error
    except MisconfigurationException as error:
        raise InputError(plain(str(error))) from error


def tell_beginning(parser: Parser, config: Namespace, place: Place, *, start: int, goes_on: bool) -> None:
    """Say where the run is, where it goes on from, and which settings are not those that it had there."""
    say(f"run folder: {place.folder}" + (f", going on from iteration {start}" if goes_on else ""))
    if goes_on and place.is_own():
        for line in changes(as_text(parser, config), place.folder / CONFIG):
            say(line)


def build(parser: Parser, config: Namespace) -> Namespace:
    """The checked objects of a run, with its threads and seeds set; rank 0 has read the data."""
    check(config)
    torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, verbose=False)
    asked = config.clone()
    objects = instantiate(parser, config)
    for key in without_effect(parser, asked, objects) if launched_rank() == 0 else ():
        say(f"{key} has no effect: {config.model.objective.class_path} needs no chains")
    remark = objects.model.sampler.remark(objects.model.num_steps) if objects.model.objective.needs_chains else None
    if remark is not None and launched_rank() == 0:
        say(f"model.num_steps: {remark} (--model.chains=TemperedChains)")
    objects.model.seed = objects.data.seed = config.seed
    if launched_rank() == 0:
        with console.status("reading the data"):
            objects.data.prepare_data()
            lines = describe(objects.data)
            found = needs(objects)
            check_fits(found)
            lines.append(summary(found))
        for line in lines:
            say(line)
        check_energy_output(objects.model, objects.data)
    return objects


def resumable(asked: Path, module: EBMModule) -> tuple[Path, int]:
    """The checkpoint that training goes on from, and its iteration: ``asked``, or the one before where that is damaged.

    Raises InputError where training cannot go on from it with these settings.
    """
    checkpoint, contents = newest_checkpoint(asked)
    check_resumable(contents, module)
    if launched_rank() == 0 and contents["gwg_dist"].get("streams") != STREAMS:
        say(OTHER_STREAMS)
    return checkpoint, contents["global_step"]


def take_weights(module: EBMModule, place: str) -> None:
    """Give the energy the weights of a run's best, else last, checkpoint, or of a checkpoint's file.

    Raises:
        InputError: there is none, or it is of another energy.
    """
    path = Path(place)
    if path.is_dir():
        path = path / (BEST if (path / BEST).is_file() else LAST)
    try:
        contents = read_checkpoint(path)
        check_checkpoint(contents, module)
    except InputError as error:
        raise InputError(f"weights_from: {error}") from error
    prefix = "energy."
    weights = {name: value for name, value in contents["state_dict"].items() if name.startswith(prefix)}
    module.energy.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items()})
    if launched_rank() == 0:
        say(f"weights at the beginning: those of {path}")


def prepare_folder(folder: Path, asked: Path | None, checkpoint: Path | None) -> None:
    """Make the run's folder, mark whose it is, clear it of scraps and of a damaged checkpoint."""
    make_folder(folder, name="run_dir")
    mark_job(folder)
    clear_scraps(folder, FILES)
    if checkpoint != asked and asked is not None and asked.is_file():
        asked.replace(asked.with_name(DAMAGED))  # or it would become the previous one
