"""Score given points by a run's model: energies, log-likelihoods, mutations.

python -m gwg_dist.score RUN points.npz
python -m gwg_dist.score RUN test --out scores.csv                              a split of the run's own data
python -m gwg_dist.score RUN family.fasta --mutations --reference DYR_ECOLI     all changes of one site
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.streams import quick_end


def score(
    run: str,
    file: str,
    *,
    out: str | None = None,
    mutations: bool = False,
    reference: str = "1",
    measurements: str | None = None,
    column: str | None = None,
    offset: int = 0,
    checkpoint: str = "best",
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Write energies and log-likelihoods of points as a .csv, with the error that log Z brings.

    log Z is that of the newest estimate in the run's folder, summed exactly where the space is small. Where there is
    none, numbers are not normalised, and it is said.

    Args:
        run: folder of the run.
        file: points as the run's data set reads them: .npz, .npy, .csv, FASTA, a folder of images; or train,
            validation or test.
        out: path of the .csv; RUN/scores-NAME.csv by default. Nothing is overwritten.
        mutations: score all changes of one site of one point instead, log p(x') - log p(x), with a picture.
        reference: the point that is changed, by its name or its number in the file, from 1.
        measurements: .csv of measured mutations, A24G or the columns site, from and to, for Spearman's correlation.
        column: the column of measured values; value, score, fitness or DMS_score by default.
        offset: the number of the first site in the measurements minus that in the model.
        checkpoint: "best", "last", or the path of a file.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
    """
    if measurements is not None and not mutations:
        raise InputError("measurements are of mutations: add --mutations")
    with quick_end():
        from gwg_dist.training.scoring import score_mutations, score_run

    path = Path(out) if out is not None else None
    if mutations:
        return score_mutations(run, file, path, reference, measurements, column, offset, checkpoint, device, trust)
    return score_run(run, file, path, checkpoint, device, trust)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(score, args, prog="python -m gwg_dist.score", description=__doc__)


if __name__ == "__main__":
    main()
