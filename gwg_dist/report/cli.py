"""The command line of a report."""

from __future__ import annotations

import sys

import gwg_dist.report
from gwg_dist.report.page import report
from gwg_dist.tools.commands import Parser, add_output_arguments, errors_for_people, make_parser
from gwg_dist.tools.terminal import output, quiet


def build_parser(prog: str = "python -m gwg_dist.report", description: str | None = None) -> Parser:
    """The parser of a report's settings."""
    parser = make_parser(prog, description)
    add_output_arguments(parser)
    parser.add_argument("runs", nargs="+", type=str, help="folders of runs; several are shown side by side")
    parser.add_function_arguments(report, skip={"runs"})
    return parser


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    quiet()
    parser = build_parser(description=gwg_dist.report.__doc__)
    config = parser.parse_args(sys.argv[1:] if args is None else args)
    with errors_for_people(), output(nothing=config.pop("quiet"), log_file=config.pop("log_file")):
        report(**config.as_dict())
