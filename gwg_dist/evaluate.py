"""Estimate the log-likelihood of a run's model by annealed importance sampling.

python -m gwg_dist.evaluate RUN
python -m gwg_dist.evaluate RUN --num_temperatures 20000 --num_chains 500 --checkpoint last
torchrun --nproc-per-node=8 -m gwg_dist.evaluate RUN --num_chains 4000          the chains are spread over all processes
"""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from gwg_dist.callbacks import assess_module, console, make_progress
from gwg_dist.cli import run_command
from gwg_dist.distributed import rank, world_size
from gwg_dist.errors import InputError
from gwg_dist.evaluation import AISSettings, Assessment, collapse_warning, exact_log_z, unnormalised_log_prob
from gwg_dist.runs import LoadedRun, assessment_json, assessment_table, load_run, make_folder, write_json
from gwg_dist.strategy import meeting

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

    Where the space has at most 2^20 points, log Z is also summed exactly.

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
        path = Path(run) / "evaluation"
        if rank() == 0:
            make_folder(path)
            loaded.data.prepare_data()
        if world_size() > 1:
            dist.barrier()
        iteration = loaded.checkpoint["global_step"]
        with make_progress() as progress:
            shown = progress if rank() == 0 else None
            assessment = assess_module(loaded.module, loaded.data.splits, settings, iteration=iteration, progress=shown)
        assert isinstance(assessment, Assessment)
        path /= f"{loaded.path.stem}-{iteration:07d}-{num_chains}x{num_temperatures}-{schedule}.json"
        if rank() == 0:
            tell(loaded, assessment, path)
    return path


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
    for name, codes in (("val", loaded.data.splits.validation), ("test", loaded.data.splits.test)):
        values[name] = float(unnormalised_log_prob(module.target, codes).mean()) - log_z
    return values


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(evaluate, args, prog="python -m gwg_dist.evaluate", description=__doc__)


if __name__ == "__main__":
    main()
