"""A trial, in the process that Ray gives it: a run of fit in the trial's folder that reports its evaluations."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import ray.train
import ray.tune
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

from gwg_dist.evaluation import Assessment
from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import launched_rank
from gwg_dist.tools.errors import DivergedError, InputError
from gwg_dist.tools.files import replacing
from gwg_dist.tools.terminal import console, quiet
from gwg_dist.training import run
from gwg_dist.training.folder import BEST, LAST, PREVIOUS, RESULTS, Place
from gwg_dist.training.settings import build_parser
from gwg_dist.tune.records import (
    COLLAPSED,
    LOG,
    State,
    TrialEvaluation,
    append_evaluation,
    mark_ended,
    read_evaluations,
    trial_folder,
    write_point,
)
from gwg_dist.tune.sweep import Sweep, TrialStart

ORIGIN = "origin.json"
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK")


def train(sweep: Sweep, start: TrialStart) -> None:
    """Go on with a trial from what its folder holds, to the end; called in every process of the trial.

    Args:
        sweep: settings of the sweep, with its folder.
        start: what this trial is told.
    """
    alone = sweep.workers == 1
    if alone:
        forget_launcher()
    os.chdir(start.cwd)
    folder = trial_folder(sweep.folder, start.number)
    folder.mkdir(parents=True, exist_ok=True)
    if launched_rank() == 0:
        donor = ray.tune.get_checkpoint() if alone else None
        if donor is not None:
            take_over(donor, folder, start.number)
        write_point(folder, start.number, start.point, start.left_out)
    reporter = Reporter(sweep, start)
    strategy = None if alone else RayDDPStrategy(broadcast_buffers=False)
    environment = None if alone else RayLightningEnvironment()
    with console_in(folder / (LOG if launched_rank() == 0 else f"log.{launched_rank()}.txt")) as log:
        try:
            quiet()
            parser = build_parser()
            parser.exit_on_error, parser.trusts_values = False, False
            config = parser.parse_args(list(start.args))
            place = Place(folder, config.ckpt_path)
            run.train(parser, config, place, callbacks=[reporter], strategy=strategy, environment=environment)
        except DivergedError as error:
            console.print(f"error: {error}", soft_wrap=True, markup=False)
            reporter.diverged()
        except Exception as error:
            told = isinstance(error, InputError)
            if not told:
                log.write(traceback.format_exc())
            message = str(error) if told else f"{type(error).__name__}: {error}"
            console.print(f"error: {message}", soft_wrap=True, markup=False)
            raise
    reporter.close()


@contextmanager
def console_in(path: Path) -> Iterator[TextIO]:
    """Within it what fit says goes to the end of a file."""
    terminal = console.file
    with open(path, "a", buffering=1) as log:
        console.file = log
        try:
            yield log
        finally:
            console.file = terminal


def forget_launcher() -> None:
    """Drop the variables of whatever started Ray on this machine: a trial of one process is nobody's rank."""
    for name in list(os.environ):
        if name in LAUNCHER_VARIABLES or name.startswith(("SLURM_", "TORCHELASTIC_")):
            del os.environ[name]


class Reporter(Callback):
    """Tells of every evaluation as soon as its checkpoint is on disk: at the start of the next iteration.

    A trial that is stopped, or handed to another, at a report is therefore never behind it. The last evaluation is
    written at the end of training and told after the final evaluation, so that nothing stops a trial that is through.

    Args:
        sweep: settings of the sweep, with its folder.
        start: what the trial is told.
    """

    def __init__(self, sweep: Sweep, start: TrialStart) -> None:
        self.sweep = sweep
        self.start = start
        self.folder = trial_folder(sweep.folder, start.number)
        self.last: TrialEvaluation | None = None
        self._iteration = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._iteration = trainer.global_step
        new = self._write_new(pl_module)
        if new is not None:
            tell(self.sweep, self.start, new)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_new(pl_module)

    def diverged(self) -> None:
        """Write that no more is to be had of this trial."""
        self.last = TrialEvaluation(self._iteration, None, why=State.DIVERGED)
        if launched_rank() == 0:
            append_evaluation(self.folder, self.last)
            mark_ended(self.folder, State.DIVERGED)

    def close(self) -> None:
        """Tell of the end; a trial that had only its final evaluation to make repeats its last one."""
        evaluations = [self.last] if self.last else read_evaluations(self.folder)
        if evaluations:
            tell(self.sweep, self.start, evaluations[-1])

    def _write_new(self, module: LightningModule) -> TrialEvaluation | None:
        """Write the newest evaluation and return it; None where it has been told of."""
        assert isinstance(module, EBMModule)
        latest = module.assessment
        if latest is None or (self.last is not None and self.last.iteration == latest[0]):
            return None
        self.last = evaluation_of(latest[1], self.sweep.metric, iteration=latest[0])
        if launched_rank() == 0:
            append_evaluation(self.folder, self.last)
        return self.last


def evaluation_of(assessment: Assessment, metric: str, *, iteration: int) -> TrialEvaluation:
    """The part of an assessment that a sweep keeps; a value that is not to be believed is none."""
    metrics = assessment.metrics()
    value, stderr, ess = metrics[metric], metrics["ais/log_z_stderr"], metrics["ais/ess"]
    if assessment.collapsed or not math.isfinite(value):
        return TrialEvaluation(iteration, None, stderr, ess, COLLAPSED)
    return TrialEvaluation(iteration, value, stderr, ess)


def tell(sweep: Sweep, start: TrialStart, evaluation: TrialEvaluation) -> None:
    """Tell Ray of an evaluation, with the checkpoint where other trials may want it; called on every rank."""
    result = evaluation.to_dict() | {"objective": evaluation.objective(sweep.mode)}
    folder = trial_folder(sweep.folder, start.number)
    if sweep.workers > 1:
        ray.train.report(result)
        return
    if sweep.scheduler != "pbt" or not (folder / LAST).is_file():
        ray.tune.report(result)
        return
    with tempfile.TemporaryDirectory() as name:
        parcel = Path(name)
        for part in (LAST, BEST):
            if (folder / part).is_file():
                shutil.copyfile(folder / part, parcel / part)
        (parcel / ORIGIN).write_text(json.dumps({"number": start.number, "iteration": evaluation.iteration}))
        ray.tune.report(result, checkpoint=ray.tune.Checkpoint.from_directory(parcel))


def take_over(donor: ray.tune.Checkpoint, folder: Path, number: int) -> None:
    """Put another trial's weights, chains and optimizer in the place of this one's.

    The folder holds this trial's own state already. It also holds the state of a donor whose checkpoint is gone: Ray
    keeps a checkpoint until the trial that waits for it starts, so this trial took it over, failed and starts again.
    """
    with donor.as_directory() as name:
        parcel = Path(name)
        if not (parcel / ORIGIN).is_file():
            return
        origin = json.loads((parcel / ORIGIN).read_text())
        if origin["number"] == number:
            return
        for part in (PREVIOUS, BEST, RESULTS):
            (folder / part).unlink(missing_ok=True)
        for part in (BEST, LAST):
            if (parcel / part).is_file():
                with replacing(folder / part) as beside:
                    shutil.copyfile(parcel / part, beside)
    with open(folder / LOG, "a") as log:
        log.write(f"took over iteration {origin['iteration']} of trial {origin['number']}\n")
