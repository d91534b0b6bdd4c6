"""What a page shows: its command lines, which must parse, and its Python, which must run."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gwg_dist.bench.cli import bench
from gwg_dist.compare.cli import build_parser as compare_parser
from gwg_dist.report.cli import build_parser as report_parser
from gwg_dist.tools.commands import Parser
from gwg_dist.training.settings import build_parser
from gwg_dist.tune.cli import Sweep, SweepParser
from tests.conftest import ROOT

BROUGHT = {
    name: [f"--data={data}", f"--data.path={name}"]
    for name, data in (
        ("my.npz", "Arrays"),
        ("my.csv", "Table"),
        ("my.fasta", "Alignment"),
        ("my.a3m", "Alignment"),
        ("pictures", "Images"),
    )
}
"""What a reader brings along, which is not here; it is written as the class that reads it."""

Command = tuple[str, str]
"""A module of the package and what follows it on the line."""


def commands(text: str) -> list[Command]:
    """The lines ``python -m gwg_dist.VERB ...`` and ``torchrun ... -m gwg_dist.VERB ...``."""
    return re.findall(r"^ *(?:python|torchrun .*) -m (gwg_dist\.\w+)(.*)$", text, re.MULTILINE)


def python_blocks(text: str) -> list[Command]:
    """(title, code) of every Python block; the title is "" where it has none. Included files are no such blocks."""
    return re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


def run_python(code: str, cwd: Path) -> str:
    """What the code prints, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{cwd}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_command(module: str, arguments: str) -> None:
    """Parse a command line as its verb would, whose function has its name; a mistake exits with 2.

    What --resume stands for is not looked at.
    """
    args = shlex.split(arguments, comments=True)
    if module == "gwg_dist.fit":
        check_fit(args)
        return
    if module == "gwg_dist.compare":
        compare_parser().parse_args(args)
        return
    if module == "gwg_dist.report":
        report_parser().parse_args(args)
        return
    if "--" in args:
        assert module in ("gwg_dist.launch", "gwg_dist.tune")
        check_fit(args[args.index("--") + 1 :])
        args = args[: args.index("--")]
    if module == "gwg_dist.tune":
        pytest.importorskip("ray")
        parser = SweepParser(prog=module, allow_abbrev=False)
        parser.add_config_argument()
        parser.add_trust_argument()
        parser.add_argument("--resume")
        parser.add_class_arguments(Sweep)
    else:
        parser = Parser(prog=module, allow_abbrev=False)
        name = module.removeprefix("gwg_dist.")
        function = bench if name == "bench" else getattr(importlib.import_module(module), name)
        flags = {
            "gwg_dist.bench": {"quick", "sweep"},
            "gwg_dist.doctor": {"quick"},
            "gwg_dist.evaluate": {"json"},
            "gwg_dist.score": {"mutations"},
        }.get(module, set())
        parser.add_function_arguments(function, as_positional=True, skip={"fit", *flags})
        for flag in flags:
            parser.add_argument(f"--{flag}", action="store_true")
    parser.parse_args(args)


def check_fit(args: list[str]) -> None:
    """Settings of a run."""
    args = [part for arg in args if arg != "--print_config" for part in BROUGHT.get(arg.removeprefix("--data="), [arg])]
    if "--resume" in args:
        where = args.index("--resume")
        assert args[where + 1 : where + 2], "--resume names no run"
        args[where : where + 2] = []
    build_parser().parse_args(args)
