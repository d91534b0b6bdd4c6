"""A run's folder: what is where, whose it is, and what a run goes on from.

config.yaml        every setting, resolved
last.ckpt          the newest state; ``fit --resume`` goes on from it
previous.ckpt      the one before; where the newest is found damaged, it becomes damaged.ckpt and this one is used
best.ckpt          the state of the best validation likelihood
metrics/           CSV, a file for every start of the run
tensorboard/       the same for TensorBoard
samples.png        chains of the buffer; samples/ITERATION.png over time
results.json       the likelihoods that the closing table shows
family.json        models of pairs of categories: statistics of samples beside those of the data; family.png shows them
evaluation/        the likelihoods that ``evaluate`` found; *.partial.pt: an estimate that was stopped and waits
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from jsonargparse import Namespace

from gwg_dist.tools.distributed import launched_rank
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import write_text
from gwg_dist.tools.terminal import say
from gwg_dist.training.processes import job, started_by_us, under_srun

CONFIG, RESULTS, EVALUATION = "config.yaml", "results.json", "evaluation"
LAST, PREVIOUS, BEST, DAMAGED = "last.ckpt", "previous.ckpt", "best.ckpt", "damaged.ckpt"
FILES = (CONFIG, RESULTS, LAST, PREVIOUS, BEST)
JOB = ".job"  # holds what its launcher calls the job that began or went on with the run
SHOWN = (RESULTS, "family.json", "family.png", "samples.png", "metrics", "tensorboard")


class Place(NamedTuple):
    """Where a run lives, and what it goes on from.

    Args:
        folder: folder of the run.
        checkpoint: file to go on from, or "last" for the folder's newest where it has one; None begins afresh.
        new: whether this process made the name up, so that another folder does as well.
    """

    folder: Path
    checkpoint: str | None
    new: bool = False

    def start(self) -> Path | None:
        """The file to go on from; None where there is none."""
        if self.checkpoint == "last":
            return self.folder / LAST if has_state(self.folder) else None
        return None if self.checkpoint is None else Path(self.checkpoint)

    def is_own(self) -> bool:
        """Whether the run goes on from what this very folder holds."""
        if self.checkpoint in (None, "last"):
            return self.checkpoint == "last"
        return Path(self.checkpoint).resolve().parent == self.folder.resolve()


def resume_arguments(run: str) -> list[str]:
    """What ``--resume RUN`` stands for: the run's config, its folder and its last checkpoint."""
    checkpoint = str(Path(run) / LAST) if has_state(Path(run)) else "last"
    return ["--config", str(Path(run) / CONFIG), "--run_dir", run, "--ckpt_path", checkpoint]


def find_place(config: Namespace) -> Place:
    """The folder of a run out of its settings.

    A job that its launcher starts again goes on with what it left. Raises InputError where another run would be
    overwritten, or where ranks have no name for the folder in common.
    """
    if config.run_dir is None and started_by_us():
        raise InputError("run_dir: give one, so that the processes that this program starts use the same folder")
    new = config.run_dir is None and common_name(config) is None
    folder = Path(config.run_dir or default_folder(config, common_name(config) or now()))
    same_job = job() is not None and (folder / JOB).is_file() and (folder / JOB).read_text() == job()
    place = Place(folder, "last" if same_job and has_state(folder) else config.ckpt_path)
    if new:
        return place._replace(new=True)
    holds_a_run = has_state(folder) or (folder / BEST).exists() or (folder / CONFIG).exists()
    if holds_a_run and not same_job and not place.is_own() and launched_rank() == 0:
        raise InputError(f"{folder} already holds a run: go on with --resume {folder}, or choose another --run_dir")
    return place


def find_checkpoint(folder: Path, checkpoint: str) -> Path:
    """Path of the checkpoint called "best" or "last", or of a given file.

    best.ckpt is missing until one estimate could be trusted: then it is the last one, and it is said. Raises InputError
    where there is no such checkpoint.
    """
    if checkpoint == "best" and not (folder / BEST).is_file() and has_state(folder):
        say(f"{folder} has no {BEST}, as no estimate of its likelihood could be trusted: the last weights are taken")
        checkpoint = "last"
    names = {"best": BEST, "last": LAST}
    path = folder / names[checkpoint] if checkpoint in names else Path(checkpoint)
    if not path.is_file() and not (path.name == LAST and path.with_name(PREVIOUS).is_file()):
        others = ", ".join(name for name, file in names.items() if (folder / file).is_file()) or "none"
        raise InputError(f"there is no checkpoint {path}; the run has: {others}")
    return path


def has_state(folder: Path) -> bool:
    """Whether the folder holds a state to go on from."""
    return (folder / LAST).is_file() or (folder / PREVIOUS).is_file()


def mark_job(folder: Path) -> None:
    """Write down which job this is, so that its next start goes on."""
    name = job()
    if name is not None:
        write_text(folder / JOB, name)


def default_folder(config: Namespace, job: str) -> Path:
    """runs/DATA-JOB."""
    return Path("runs") / f"{config.data.class_path.rsplit('.', 1)[-1].lower()}-{job}"


def common_name(config: Namespace) -> str | None:
    """The name that all processes of a job have for it; None where this process starts the others, if there are any.

    Raises InputError where there are others and no name.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 or config.trainer.num_nodes > 1
    slurm = os.environ.get("SLURM_JOB_ID") if several or under_srun() else None  # else a shell in a job of SLURM's
    name = slurm or os.environ.get("TORCHELASTIC_RUN_ID")
    if name not in (None, "none"):
        return name
    if several:
        raise InputError("run_dir: give one, or a --rdzv-id to torchrun, so that all ranks use the same folder")
    return None


def now() -> str:
    """The time, as part of a folder's name."""
    return time.strftime("%Y%m%d-%H%M%S")
