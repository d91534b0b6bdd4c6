"""A run's folder: what is where, and how its model comes back.

config.yaml        every setting, resolved
last.ckpt          the newest state; ``fit --resume`` goes on from it
previous.ckpt      the one before; where the newest is found damaged, it becomes damaged.ckpt and this one is used
best.ckpt          the state of the best validation likelihood
metrics/           CSV, a file for every start of the run
tensorboard/       the same for TensorBoard
samples.png        chains of the buffer; samples/ITERATION.png over time
results.json       the likelihoods that the closing table shows
evaluation/        the likelihoods that ``evaluate`` found; *.partial.pt: an estimate that was stopped and waits
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace
from rich.table import Table

from gwg_dist.callbacks import adapt
from gwg_dist.checkpoints import BEST, LAST, PREVIOUS, newest_checkpoint
from gwg_dist.cli import build_parser, instantiate
from gwg_dist.data import DiscreteData
from gwg_dist.evaluation import Assessment, Unfinished
from gwg_dist.evaluation.ais import OPTIMISTIC
from gwg_dist.module import EBMModule, check_checkpoint
from gwg_dist.strategy import job, started_by_us
from gwg_dist.tools.distributed import from_rank_0, launched_rank, rank
from gwg_dist.tools.errors import InputError

CONFIG, RESULTS = "config.yaml", "results.json"
RUN_DIR_VARIABLE = "GWG_DIST_RUN_DIR"
EVALUATION = "evaluation"
JOB = ".job"  # in the folder: what its launcher calls the job that began or went on with the run


logger = logging.getLogger("gwg_dist")


class LoadedRun(NamedTuple):
    """A model out of a run folder, on its device, with the weights to evaluate."""

    module: EBMModule
    data: DiscreteData
    checkpoint: dict[str, Any]
    path: Path


def load_run(run: str | Path, checkpoint: str = "best", *, device: str | None = None) -> LoadedRun:
    """Rebuild the model of a run, and the kernel that it adapted, from its config and one of its checkpoints.

    Args:
        run: the folder.
        checkpoint: "best", "last", or the path of a file.
        device: where to put it; a CUDA device where there is one.

    Raises:
        InputError: no run there, a checkpoint that is missing, damaged or of another model.
    """
    folder = Path(run)
    config_path = folder / CONFIG
    if not config_path.is_file():
        raise InputError(f"{folder} is no run folder: it has no {CONFIG}")
    path = find_checkpoint(folder, checkpoint)
    parser = build_parser()
    objects = instantiate(parser, parser.parse_args(["--config", str(config_path)]))
    module: EBMModule = objects.model
    path, contents = newest_checkpoint(path)
    load_weights(module, contents)
    adapt(module, contents)
    module.seed = contents["gwg_dist"]["seed"]
    try:
        module.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device} cannot be used: {str(error).splitlines()[0]}") from error
    return LoadedRun(module, objects.data, contents, path)


def find_checkpoint(folder: Path, checkpoint: str) -> Path:
    """The file that "best", "last" or a path means. A run without a trustworthy best has only a last."""
    names = {"best": BEST, "last": LAST}
    path = folder / names[checkpoint] if checkpoint in names else Path(checkpoint)
    if not path.is_file() and not (path.name == LAST and path.with_name(PREVIOUS).is_file()):
        others = ", ".join(name for name, file in names.items() if (folder / file).is_file()) or "none"
        raise InputError(f"there is no checkpoint {path}; the run has: {others}")
    return path


def make_folder(folder: Path) -> None:
    """Raises InputError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"run_dir: {folder} cannot be written to: {error}") from error


def load_weights(module: EBMModule, checkpoint: dict[str, Any]) -> None:
    """Take the weights that evaluation reads. Raises InputError where they are of another model."""
    check_checkpoint(checkpoint, module)
    module.load_state_dict(checkpoint["state_dict"])


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
        checkpoint = str(run / LAST) if has_state(run) else "last"
        expanded = ["--config", str(run / CONFIG), "--run_dir", str(run), "--ckpt_path", checkpoint, *expanded]
    return expanded


def run_folder(config: Namespace) -> tuple[Path, bool]:
    """The folder, and whether the run starts afresh.

    Ranks that a launcher started find the same default: the launching process hands it down, SLURM and torchrun have a
    name for the job. A job that its launcher starts again goes on with what it left. Raises InputError where another
    run would be overwritten.
    """
    if RUN_DIR_VARIABLE in os.environ and started_by_us():
        return Path(os.environ[RUN_DIR_VARIABLE]), config.ckpt_path is None
    folder = Path(config.run_dir) if config.run_dir is not None else default_folder(config, job_name(config))
    same_job = job() is not None and (folder / JOB).is_file() and (folder / JOB).read_text() == job()
    if same_job and has_state(folder):
        config.ckpt_path = "last"
    holds_a_run = has_state(folder) or (folder / BEST).exists() or (folder / CONFIG).exists()
    own = config.ckpt_path == "last" or (
        config.ckpt_path and Path(config.ckpt_path).resolve().parent == folder.resolve()
    )
    if holds_a_run and not own and not same_job and launched_rank() == 0:
        raise InputError(f"{folder} already holds a run: go on with --resume {folder}, or choose another --run_dir")
    os.environ[RUN_DIR_VARIABLE] = str(folder)
    return folder, config.ckpt_path is None


def mark_job(folder: Path) -> None:
    """Remember which job this is, so that its next start goes on."""
    name = job()
    if name is not None:
        (folder / JOB).write_text(name)


def default_folder(config: Namespace, job: str) -> Path:
    """runs/DATA-JOB."""
    return Path("runs") / f"{config.data.class_path.rsplit('.', 1)[-1].lower()}-{job}"


def job_name(config: Namespace) -> str:
    """What all processes of a job call it. Raises InputError where they have no name in common."""
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    if job not in (None, "none"):
        return job
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or config.trainer.num_nodes > 1:
        raise InputError("run_dir: give one, or a --rdzv-id to torchrun, so that all ranks use the same folder")
    return now()


def now() -> str:
    """The time, as part of a folder's name."""
    return time.strftime("%Y%m%d-%H%M%S")


def has_state(folder: Path) -> bool:
    """Whether there is something to go on from."""
    return (folder / LAST).is_file() or (folder / PREVIOUS).is_file()


def checkpoint_path(config: Namespace, folder: Path) -> Path | None:
    """The file that --ckpt_path means; "last" is None where the run has none yet."""
    if config.ckpt_path != "last":
        return Path(config.ckpt_path)
    return folder / LAST if has_state(folder) else None


# -- what a run found -------------------------------------------------------------------------------------------------


def assessment_table(assessment: Assessment, *, title: str) -> Table:
    """Likelihoods in nats, with what to think of them in the caption."""
    estimate = assessment.estimate
    table = Table(title=title, caption=OPTIMISTIC, title_justify="left", caption_justify="left")
    for column in ("split", "points", "reference", "log-likelihood", "± log Z", "± data"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, value in assessment.likelihoods.items():
        table.add_row(
            name, f"{value.num}", f"{assessment.reference[name]:.2f}", f"[bold]{value.mean:.2f}[/]",
            f"{value.stderr:.2f}", f"{value.data_stderr:.2f}",
        )  # fmt: skip
    table.add_section()
    num = len(estimate.log_weights)
    table.add_row("AIS", f"{num} chains", f"T = {estimate.num_temperatures}", f"log Z {estimate.log_z:.2f}",
                  f"{estimate.stderr:.2f}", f"ESS {estimate.ess:.0f}")  # fmt: skip
    return table


def assessment_json(assessment: Assessment, checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same as plain numbers."""
    return {
        "checkpoint": path.name,
        "iteration": checkpoint["global_step"],
        "unit": "nats",
        "note": OPTIMISTIC,
        "likelihood": {name: value._asdict() for name, value in assessment.likelihoods.items()},
        "reference": assessment.reference,
        "ais": {
            "log_z": assessment.estimate.log_z,
            "stderr": assessment.estimate.stderr,
            "ess": assessment.estimate.ess,
            "collapsed": assessment.collapsed,
            "num_chains": len(assessment.estimate.log_weights),
            "num_temperatures": assessment.estimate.num_temperatures,
        },
    }


class Waiting:
    """The file in which an estimate that was stopped waits for the next identical command.

    What it holds fits no other weights, seed, settings or number of ranks: then the estimate begins again.

    Args:
        path: of the file.
        checkpoint: the estimate is of its weights.
    """

    def __init__(self, path: Path, checkpoint: dict[str, Any]) -> None:
        self.path = path
        digest = hashlib.sha256(str(checkpoint["gwg_dist"]["seed"]).encode())
        for name, tensor in sorted(checkpoint["state_dict"].items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        self.model = digest.hexdigest()

    def read(self) -> Unfinished | None:
        """The estimate that waits for these weights; called on every rank."""
        found = None
        if rank() == 0 and self.path.is_file():
            try:
                held = torch.load(self.path, map_location="cpu", weights_only=True)
                if held.pop("model") == self.model:
                    found = Unfinished(**held)
            except Exception as error:  # torch.load raises whatever the damaged bytes lead to
                logger.warning("%s cannot be read, the estimate begins again: %s", self.path, type(error).__name__)
        return from_rank_0(found)

    def write(self, unfinished: Unfinished) -> None:
        """Whole or not at all; by rank 0."""
        if rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.tmp")
            torch.save({"model": self.model, **unfinished._asdict()}, beside)
            os.replace(beside, self.path)

    def delete(self) -> None:
        """The estimate is done; by rank 0."""
        if rank() == 0:
            self.path.unlink(missing_ok=True)


def write_json(values: dict[str, Any], path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(beside, path)
