"""Export a run's model: safetensors, .npz, or the params.dat of adabmDCA.

python -m gwg_dist.export RUN                                               RUN/model.safetensors
python -m gwg_dist.export RUN --format params.dat --out family.dat.gz       and chains.fasta beside it
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.streams import quick_end


def export(
    run: str,
    *,
    format: str = "safetensors",
    out: str | None = None,
    gauge: str = "as-is",
    alphabet: str | None = None,
    checkpoint: str = "best",
    trust: str = "",
) -> Path:
    """Write the model of a run as one file in which nothing is pickled.

    safetensors and npz hold the weights, the reference, the settings and the samples that the checkpoint keeps, for
    every model; gwg_dist import makes a run of them. params.dat is for models of pairs; the log of the reference is
    added to the fields, and the samples are in chains.fasta beside it.

    Args:
        run: folder of the run.
        format: "safetensors", "npz" or "params.dat".
        out: path of the file; RUN/model.safetensors, RUN/model.npz or RUN/params.dat by default, .dat.gz is compressed.
            Nothing is overwritten.
        gauge: of params.dat: "as-is", or "zero-sum", which the field compares couplings in.
        alphabet: of params.dat: "protein", "rna", "dna" or the letters; those of the run's data by default.
        checkpoint: "best", "last", or the path of a file.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
    """
    with quick_end():
        from gwg_dist.training.exporting import export_run

    return export_run(run, format, Path(out) if out is not None else None, gauge, alphabet, checkpoint, trust)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(export, args, prog="python -m gwg_dist.export", description=__doc__)


if __name__ == "__main__":
    main()
