"""Show which sites a run's model couples: contacts of a protein, couplings of spins.

python -m gwg_dist.couplings RUN
python -m gwg_dist.couplings RUN --distances=structure.npz --gap=0
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.streams import quick_end


def couplings(
    run: str,
    *,
    distances: str | None = None,
    kind: str | None = None,
    chain: str | None = None,
    sequence: str | None = None,
    gap: int | None = None,
    min_separation: int | None = None,
    cutoff: float = 8.0,
    num_points: int = 1,
    checkpoint: str = "best",
    out: str | None = None,
    seed: int = 0,
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Write the couplings as .npz, a ranked table of pairs as .csv, and a picture, to RUN/couplings.

    Couplings of models of pairs are their own, in the gauge of zero sums. For every other model they are the mean
    second difference of E over training points. A pair's score is the Frobenius norm of its couplings with the average
    product correction; of binary sites it is abs(J), where J s_i s_j counts every pair once.

    Args:
        run: folder of the run.
        distances: distances between sites: .npz, .npy or .csv, or a structure as PDB or mmCIF; they give the share of
            true contacts. None takes those of the data, where they have some.
        kind: which distance of the file, "cb" (between Cβ), which None takes, or "heavy" (between any two heavy atoms).
        chain: chain of the structure.
        sequence: aligned sequence that the structure is of; None takes the reference of an alignment.
        gap: category that is left out of the norm; None takes the gap of an alignment, and leaves out none elsewhere.
        min_separation: pairs nearer than so many sites are not ranked, of an alignment so many columns of its file.
            None takes 6 for alignments and where distances are known, 1 elsewhere.
        cutoff: sites closer than so many Å are in contact.
        num_points: training points that second differences are averaged over; not used for models of pairs.
        checkpoint: "best", "last", or the path of a file.
        out: folder for the files, in which they must not be there yet; RUN/couplings by default.
        seed: seed of the choice of points.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
    """
    with quick_end():
        from gwg_dist.training.couplings import Truth, couplings_of_run

    truth = Truth(distances, kind, chain, sequence, cutoff)
    return couplings_of_run(
        run, truth, gap=gap, min_separation=min_separation, num_points=num_points, checkpoint=checkpoint,
        out=None if out is None else Path(out), seed=seed, device=device, trust=trust,
    )  # fmt: skip


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(couplings, args, prog="python -m gwg_dist.couplings", description=__doc__)


if __name__ == "__main__":
    main()
