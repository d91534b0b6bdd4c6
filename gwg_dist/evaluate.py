"""Estimate the log-likelihood of a run's model by annealed importance sampling.

python -m gwg_dist.evaluate RUN
python -m gwg_dist.evaluate RUN --num_temperatures 20000 --num_chains 500 --checkpoint last
torchrun --nproc-per-node=8 -m gwg_dist.evaluate RUN --num_chains 4000          the chains are spread over all processes
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch.distributed as dist

from gwg_dist.batch import weighted_mean
from gwg_dist.callbacks import Interruption, assess_module
from gwg_dist.cli import run_command
from gwg_dist.evaluation import (
    AISSettings,
    Assessment,
    Unfinished,
    collapse_warning,
    exact_log_z,
    unnormalised_log_prob,
)
from gwg_dist.fit import REQUEUE
from gwg_dist.runs import (
    EVALUATION,
    LoadedRun,
    Waiting,
    assessment_json,
    assessment_table,
    load_run,
    make_folder,
    write_json,
)
from gwg_dist.strategy import meeting
from gwg_dist.tools.distributed import rank, world_size
from gwg_dist.tools.errors import InputError, Stopped
from gwg_dist.tools.terminal import console, make_progress

MAX_EXACT_STATES = 2**20


def evaluate(
    run: str,
    *,
    checkpoint: str = "best",
    num_chains: int = 500,
    num_temperatures: int = 5000,
    schedule: str = "linear",
    device: str | None = None,
) -> Path:
    """Print validation and test log-likelihoods in nats, and write them to RUN/evaluation/.

    Where the space has at most 2^20 points, log Z is also summed exactly. An estimate that a signal stops waits in that
    folder, and the same command goes on with it.

    Args:
        run: the run's folder.
        checkpoint: "best", "last", or the path of a file.
        num_chains: AIS chains.
        num_temperatures: gradient evaluations a chain.
        schedule: of beta, "linear" or "sigmoid".
        device: "cpu", "cuda", "cuda:1", ...; a CUDA device where there is one.
    """
    try:
        settings = AISSettings(num_chains, num_temperatures, schedule)
    except ValueError as error:
        raise InputError(str(error)) from error
    with meeting(device) as mine:
        if num_chains < world_size():
            raise InputError(f"num_chains must be at least the {world_size()} processes, got {num_chains}")
        loaded = load_run(run, checkpoint, device=mine)
        name = f"{loaded.path.stem}-{loaded.checkpoint['global_step']:07d}-{num_chains}x{num_temperatures}-{schedule}"
        path = Path(run) / EVALUATION / f"{name}.json"
        if rank() == 0:
            make_folder(path.parent)
            loaded.data.prepare_data()
        if world_size() > 1:
            dist.barrier()
        with Interruption(loaded.module.device) as interruption:
            outcome = estimate(loaded, settings, path.with_suffix(".partial.pt"), interruption)
            if isinstance(outcome, Assessment) and rank() == 0:
                tell(loaded, outcome, path)
    if isinstance(outcome, Unfinished):
        raise Stopped(interruption.received)
    return path


def estimate(
    loaded: LoadedRun, settings: AISSettings, path: Path, interruption: Interruption
) -> Assessment | Unfinished:
    """Go on with the estimate that waits at ``path``, or begin; one that is stopped waits there for the next call."""
    waiting = Waiting(path, loaded.checkpoint)
    begun = waiting.read()
    if begun is not None and rank() == 0:
        console.print(f"going on after {begun.t} of {begun.num_temperatures} temperatures", soft_wrap=True)
    with make_progress() as progress:
        outcome = assess_module(
            loaded.module, loaded.data.splits, settings, iteration=loaded.checkpoint["global_step"],
            progress=progress if rank() == 0 else None, stop=interruption.agreed, unfinished=begun,
        )  # fmt: skip
    if isinstance(outcome, Assessment):
        waiting.delete()
        return outcome
    waiting.write(outcome)
    if rank() == 0:
        text = f"stopped after {outcome.t} of {outcome.num_temperatures} temperatures; the same command goes on"
        console.print(text, soft_wrap=True)
    return outcome


def tell(loaded: LoadedRun, assessment: Assessment, path: Path) -> None:
    """Print the estimate, the exact values where there are any, and write both."""
    values = assessment_json(assessment, loaded.checkpoint, loaded.path)
    title = f"{loaded.path.name} (iteration {loaded.checkpoint['global_step']})"
    console.print(assessment_table(assessment, title=title))
    if assessment.collapsed:
        console.print(f"[bold red]{collapse_warning(assessment)}[/]", soft_wrap=True)
    if loaded.module.space.num_states <= MAX_EXACT_STATES:
        values["exact"] = exact = exact_values(loaded)
        console.print(f"exact, by enumeration: log Z {exact['log_z']:.4f}, test {exact['test']:.4f} nats")
    write_json(values, path)
    console.print(f"written to {path}", soft_wrap=True)


def exact_values(loaded: LoadedRun) -> dict[str, float]:
    """log Z and the mean log-likelihoods without an estimate."""
    module = loaded.module.cpu()
    log_z = exact_log_z(module.target)
    values = {"log_z": log_z}
    for name, split in (("val", "validation"), ("test", "test")):
        codes, weights = loaded.data.splits.parts[split]
        values[name] = float(weighted_mean(unnormalised_log_prob(module.target, codes), weights)) - log_z
    return values


def main(args: list[str] | None = None) -> None:
    """The command line.

    Exits with 2 for a mistake; 75 where SIGTERM or SIGUSR1 ended it and 130 for Ctrl-C: the same command goes on.
    """
    try:
        run_command(evaluate, args, prog="python -m gwg_dist.evaluate", description=__doc__)
    except Stopped as stopped:
        sys.exit(130 if stopped.number == signal.SIGINT else REQUEUE)


if __name__ == "__main__":
    main()
