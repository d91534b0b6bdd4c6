"""Say which category one site of given points has: a label, by p(label | rest).

python -m gwg_dist.classify RUN test                     the test part of the run's own data
python -m gwg_dist.classify RUN points.csv --site=class --out=labels.csv
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.streams import quick_end


def classify(
    run: str,
    file: str,
    *,
    site: str | None = None,
    out: str | None = None,
    checkpoint: str = "last",
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Write the most probable label of every point and the probabilities of all as a .csv; tell the accuracy.

    p(label = k | rest) ∝ ref(k) exp(-E(x with label k)) takes one evaluation a category, and no log Z. Any model will
    do whose data have the label as one of their sites: the column of a table, ``Digits`` with labels.

    Args:
        run: folder of the run.
        file: points as the run's data set reads them, in which the label may be missing, or a folder of images; or
            train, validation or test.
        site: the label's site, by its name or its number from 1; the last one by default.
        out: path of the .csv; RUN/labels-NAME.csv by default. Nothing is overwritten.
        checkpoint: "last", "best" or the path of a file. The best is that of the likelihood of the whole point, which
            a run that learns the label alone does not learn.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
    """
    with quick_end():
        from gwg_dist.training.classifying import classify_run

    return classify_run(run, file, site, Path(out) if out is not None else None, checkpoint, device, trust)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(classify, args, prog="python -m gwg_dist.classify", description=__doc__)


if __name__ == "__main__":
    main()
