"""Complete points with missing sites by a run's model.

python -m gwg_dist.complete RUN holes.csv                             an empty cell is missing; -1 in arrays
python -m gwg_dist.complete RUN test --hide .2                        accuracy on cells that are hidden for it
python -m gwg_dist.complete RUN test --mask 393-784 --what samples    the lower half of an image of 28x28
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.streams import quick_end


def complete(
    run: str,
    file: str,
    *,
    what: str = "mode",
    out: str | None = None,
    mask: str | None = None,
    hide: float = 0.0,
    num_chains: int = 4,
    num_steps: int = 0,
    seed: int = 0,
    checkpoint: str = "best",
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Fill in missing sites given the others, and write the points in the format of the run's data.

    Where a point has few completions they are summed exactly; otherwise chains that hold the given sites run, and it is
    said what they are worth. Hidden cells whose truth is known give an accuracy, beside the commonest category and a
    logistic regression.

    Args:
        run: folder of the run.
        file: points as the run's data set reads them, with missing sites, or a folder of images; or train,
            validation or test.
        what: "mode" writes the most probable category of each missing site, "samples" completed points, num_chains of
            each, "marginals" a .csv of probabilities.
        out: path of the file; RUN/completed-NAME by default. Nothing is overwritten.
        mask: sites to hide in every point, by name or number, such as 1-10,15.
        hide: share of the other sites to hide at random.
        num_chains: chains of each point.
        num_steps: MCMC steps of each; 0 takes 20 for each missing site, 500 to 5000.
        seed: seed of the chains, and of what is hidden.
        checkpoint: "best", "last", or the path of a file.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
    """
    with quick_end():
        from gwg_dist.training.completing import complete_run

    path = Path(out) if out is not None else None
    return complete_run(run, file, what, path, mask, hide, num_chains, num_steps, seed, checkpoint, device, trust)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(complete, args, prog="python -m gwg_dist.complete", description=__doc__)


if __name__ == "__main__":
    main()
