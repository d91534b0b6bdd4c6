"""Train a deep energy-based model on discrete data, and report its likelihood.

python -m gwg_dist.fit                                        handwritten digits, a minute or two on one core
python -m gwg_dist.fit my.npz                                 your own data: .npz, .npy, .csv, .tsv, a folder of images
python -m gwg_dist.fit --config NAME                          an experiment that ships with the package, or a YAML file
python -m gwg_dist.fit --resume RUN                           go on with a run
Any key of --print_config can be set as --dotted.key=value, and classes by name: --model.energy=ResNetEnergy.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from gwg_dist.tools import trust
from gwg_dist.tools.commands import Parser, code_of_signal, errors_for_people, expand_option
from gwg_dist.tools.errors import Stopped
from gwg_dist.tools.help import ASKS_FOR_HELP, show_help
from gwg_dist.tools.streams import quick_end
from gwg_dist.tools.terminal import output, quiet, say

if TYPE_CHECKING:
    from gwg_dist.training.folder import Place
    from gwg_dist.training.interruption import Interruption

PROG = "python -m gwg_dist.fit"


def main(args: list[str] | None = None) -> None:
    """Parse, build, train, report.

    Exits with 0 when done, 2 for a mistake, 3 for divergence, 1 where a peer or a disk failed; 75 where SIGTERM,
    SIGUSR1 or SIGHUP ended it, or nobody reads its output any more, and --resume goes on; 130 for Ctrl-C.
    """
    typed = sys.argv[1:] if args is None else args
    if typed in ASKS_FOR_HELP:
        show_help(PROG, lambda: make_parser().format_help())
        return
    with quick_end():
        from gwg_dist.tools.distributed import launched_rank
        from gwg_dist.training.folder import find_place, resume_arguments
        from gwg_dist.training.interruption import Interruption
        from gwg_dist.training.living import owned
        from gwg_dist.training.processes import job, take_launched_world
        from gwg_dist.training.ranges import check
        from gwg_dist.training.run import train

        quiet()  # now, because Lightning sets its loggers up when it is imported
        parser = make_parser()
    with errors_for_people():
        config = parser.parse_args(expand_option(typed, "--resume", resume_arguments))
    place = None
    shown = output(nothing=config.quiet, log_file=config.log_file)
    with errors_for_people(), shown, Interruption(patience=config.stop_seconds) as interruption:
        try:
            check(config)
            take_launched_world(config, typed)
            place = find_place(config)
            first = launched_rank() == 0
            with owned(place.folder, new=place.new, job=job()) if first else nullcontext(place.folder) as folder:
                place = place._replace(folder=folder)
                if config.run_dir is None and sys.argv[len(sys.argv) - len(typed) :] == typed:
                    sys.argv += ["--run_dir", str(folder)]  # processes that Lightning starts repeat this command line
                train(parser, config, place, interruption=interruption)
        except Stopped:
            leave(place, interruption, trust.option_for(config))


def make_parser() -> Parser:
    """The parser of this verb; it takes seconds to import what its settings are settings of."""
    from gwg_dist.training.settings import build_parser

    return build_parser(PROG, __doc__)


def leave(place: Place | None, interruption: Interruption, trusting: str) -> None:
    """Say how to go on, and exit; a process that rank 0 started leaves the exit code to rank 0."""
    from gwg_dist.tools.distributed import launched_rank
    from gwg_dist.training.folder import has_state

    interruption.tell_others()
    if interruption.is_child:
        sys.exit(0)
    if launched_rank() == 0:
        if place is not None and has_state(place.folder):
            say(f"go on with: {PROG} --resume {place.folder}{trusting}")
        else:
            say("stopped before there was anything to save")
    sys.exit(code_of_signal(interruption.received))


if __name__ == "__main__":
    main()
