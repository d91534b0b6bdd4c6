"""A run within a benchmark: trained in this process, with nothing printed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from gwg_dist.tools.terminal import console
from gwg_dist.training.folder import find_place
from gwg_dist.training.run import train
from gwg_dist.training.settings import build_parser


def train_quietly(args: Sequence[str]) -> None:
    """Do what ``python -m gwg_dist.fit`` does with these arguments. Raises what it raises."""
    was_quiet, console.quiet = console.quiet, True
    try:
        with redirect_stdout(StringIO()):
            parser = build_parser()
            config = parser.parse_args(args)
            train(parser, config, find_place(config))
    finally:
        console.quiet = was_quiet
