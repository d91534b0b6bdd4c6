"""Draw samples from a run's model.

python -m gwg_dist.sample RUN --num 64
python -m gwg_dist.sample RUN --num 1000 --start reference --num_steps 20000
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.streams import quick_end


def sample(
    run: str,
    *,
    num: int = 64,
    num_steps: int = 1000,
    start: str = "buffer",
    checkpoint: str = "best",
    out: str | None = None,
    seed: int = 0,
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Write ``num`` samples as integers to an .npz, and beside it as a picture, text, FASTA, or words of a table.

    Args:
        run: folder of the run.
        num: number of samples.
        num_steps: MCMC steps that each chain takes with the evaluated weights.
        start: "buffer", the checkpoint's persistent chains, or "reference", afresh; those need many more steps.
        checkpoint: "best", "last", or the path of a file.
        out: path of the .npz, or of the .csv or .fasta beside it; RUN/samples-NUM.npz by default, samples-NUM.npz here
            where RUN cannot be written to.
        seed: seed of the chains.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
    """
    with quick_end():
        from gwg_dist.training.sampling import sample_run

    path = Path(out) if out is not None else None
    return sample_run(run, num, num_steps, start, checkpoint, path, seed, device, trust)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(sample, args, prog="python -m gwg_dist.sample", description=__doc__)


if __name__ == "__main__":
    main()
