"""Estimate the log-likelihood of a run's model from both sides, and say whether it can be quoted.

python -m gwg_dist.evaluate RUN
python -m gwg_dist.evaluate RUN --until_gap 0.5 --max_minutes 30      more chains and temperatures until the sides meet
python -m gwg_dist.evaluate RUN --num_temperatures 20000 --num_chains 500 --checkpoint last
torchrun --nproc-per-node=8 -m gwg_dist.evaluate RUN --num_chains 4000          the chains are spread over all processes
"""

from __future__ import annotations

import sys
from pathlib import Path

from gwg_dist.tools.commands import code_of_signal, run_command
from gwg_dist.tools.errors import Stopped
from gwg_dist.tools.streams import quick_end


def evaluate(
    run: str,
    *,
    checkpoint: str = "best",
    num_chains: int = 500,
    num_temperatures: int = 5000,
    schedule: str = "linear",
    pilot: int = 0,
    estimator: str = "ais",
    sides: str = "both",
    starts: str | None = None,
    until_gap: float | None = None,
    max_minutes: float = 30.0,
    device: str | None = None,
    out: str | None = None,
    trust: str = "",
    json: bool = False,
) -> Path | None:
    """Print the likelihoods of the data in nats with a verdict on them, and write them to RUN/evaluation/.

    Forward annealed importance sampling puts log Z too low on average. From the run's persistent chains it is estimated
    backwards as well, and by Bennett's ratio of both directions. Where these agree, and chains and annealed ends are of
    one model, the likelihood can be quoted. Where the space has at most 2^20 points, or the model at most 20 hidden
    units, or up to 24 and a sum over them takes no longer than 20 s, log Z is also summed exactly. An estimate that a
    signal stops or that is killed waits in that folder, and the same command goes on with it.

    Args:
        run: folder of the run.
        checkpoint: "best", "last", or the path of a file.
        num_chains: AIS chains, on all processes together.
        num_temperatures: gradient evaluations a chain, of each side; before the second side chains make half as many.
        schedule: schedule of beta: "linear", "sigmoid", "geometric", or "adaptive", which needs pilot.
        pilot: gradient evaluations a chain of a run before, which tunes the kernel for each beta; 0 for none.
        estimator: way of the first side: "ais", or "smc", which resamples chains within 20 systems of num_chains / 20.
        sides: "both", or "forward" for the optimistic side alone, in two fifths of the time.
        starts: file of samples that the second side begins at, as ``sample`` writes it; the run's chains by default.
        until_gap: nats within which the sides are to agree: chains and temperatures are doubled until they do.
        max_minutes: minutes after which no further round is begun or finished, with ``until_gap``.
        device: "cpu", "cuda", "cuda:1", ...; a CUDA device where there is one.
        out: path of the .json; a file in RUN/evaluation by default.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.
        json: print the numbers as JSON on standard output, and nothing else there.
    """
    with quick_end():
        from gwg_dist.training.estimate import Order, evaluate_run

    settings = {"num_chains": num_chains, "num_temperatures": num_temperatures, "schedule": schedule, "pilot": pilot}
    settings["estimator"] = estimator
    return evaluate_run(
        Order(run, checkpoint, settings, sides, starts, until_gap, max_minutes, device, out, trust, json)
    )


def main(args: list[str] | None = None) -> None:
    """The command line.

    Exits with 2 for a mistake; 75 where SIGTERM or SIGUSR1 ended it and 130 for Ctrl-C: the same command goes on.
    """
    try:
        run_command(evaluate, args, prog="python -m gwg_dist.evaluate", description=__doc__)
    except Stopped as stopped:
        sys.exit(code_of_signal(stopped.number))


if __name__ == "__main__":
    main()
