"""The command line of a comparison."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import gwg_dist.compare
from gwg_dist.compare.measure import Unit, measure
from gwg_dist.compare.problems import Posed, Problem
from gwg_dist.compare.settings import Comparison, slug
from gwg_dist.compare.show import caption_of, kernel_table, rate_table, title_of
from gwg_dist.compare.summary import elsewhere, summaries
from gwg_dist.tools.commands import Parser, add_output_arguments, errors_for_people, make_parser, plain
from gwg_dist.tools.devices import usable_device
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, write_json, write_text
from gwg_dist.tools.provenance import provenance
from gwg_dist.tools.terminal import console, make_progress, output, quiet, say, track

SETTINGS, UNITS, RESULTS, TABLE = "compare.yaml", "units", "results.json", "table.txt"
NOT_KEPT = ("config", "out", "quick", "quiet", "log_file", "trust")
QUICK_STEPS, QUICK_CHAINS, QUICK_POSE = 64, 4, 20
DEAR = ("long_steps", "iterations")  # fields of problems that posing them takes the time of
TABLE_WIDTH = 190


class CompareParser(Parser):
    """The parser of a comparison's settings."""

    named_files = {"--config": "compare", "-c": "compare"}  # noqa: RUF012
    picked = {"problem": Problem}  # noqa: RUF012


def build_parser(prog: str = "python -m gwg_dist.compare", description: str | None = None) -> Parser:
    """The parser of a comparison's settings, with their defaults."""
    parser = make_parser(prog, description, CompareParser)
    parser.add_config_argument()
    parser.add_trust_argument()
    add_output_arguments(parser)
    help = "one seed, a few steps: whether everything works, not a measurement"
    parser.add_argument("--quick", action="store_true", help=help)
    parser.add_class_arguments(Comparison, sub_configs=True)
    return parser


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake, 130 for Ctrl-C; the same command with --out goes on."""
    quiet()
    parser = build_parser(description=gwg_dist.compare.__doc__)
    config = parser.parse_args(sys.argv[1:] if args is None else args)
    kept = config.clone()
    for name in NOT_KEPT:
        kept.pop(name, None)
    text = parser.dump(kept, skip_unset=False, format="yaml")
    with errors_for_people(), output(nothing=config.pop("quiet"), log_file=config.pop("log_file")):
        quick = config.pop("quick")
        try:
            objects = parser.instantiate(config)
            objects.pop("config", None)
            objects.pop("trust", None)
            settings = Comparison(**objects.as_dict())
        except ValueError as error:
            raise InputError(plain(str(error))) from error
        compare(shortened(settings) if quick else settings, text=text + ("# --quick\n" if quick else ""))


def compare(settings: Comparison, *, text: str = "") -> Path:
    """Measure what is not measured yet, then write the tables, the numbers and the pictures; the folder.

    Args:
        settings: of the comparison.
        text: the settings as YAML; a folder that holds others is not gone on with.

    Raises:
        InputError: a folder of another comparison, a device that cannot be used, a kernel that the problem refuses. No
            folder is made then.
    """
    folder = Path(settings.out or f"runs/compare-{time.strftime('%Y%m%d-%H%M%S')}")
    check_folder(folder, text)
    device = usable_device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        posed = settings.problem.pose(settings.num_exact, device)
    except ValueError as error:
        raise InputError(f"problem: {error}") from error
    check(settings, posed)
    make_folder(folder / UNITS, name="out")
    write_text(folder / SETTINGS, text)
    machine = provenance(device)  # of the code that measures: the working tree may be another one at the end
    logger = logging.getLogger("gwg_dist")
    level = logger.level
    logger.setLevel(logging.WARNING)  # how chains run is in the units
    try:
        units = measured(settings, posed, folder)
    finally:
        logger.setLevel(level)
    finish(settings, posed, units, folder, machine)
    return folder


def check_folder(folder: Path, text: str) -> None:
    """Raise InputError where the folder has what was measured with other settings than ``text``."""
    path = folder / SETTINGS
    if path.is_file() and path.read_text() != text and any((folder / UNITS).glob("*.json")):
        raise InputError(f"out: {folder} holds another comparison, see its {SETTINGS}; choose another folder")


def check(settings: Comparison, posed: Posed) -> None:
    """Raise InputError for a kernel that cannot be compared, before anything is measured."""
    for name, entry in settings.kernels.items():
        refusal = entry.sampler.refusal(posed.target)
        if refusal is not None:
            raise InputError(f"kernels.{name}: {refusal}")


def measured(settings: Comparison, posed: Posed, folder: Path) -> dict[str, list[Unit]]:
    """Every kernel with every seed; what the folder has already is not measured again."""
    found: dict[str, list[Unit]] = {name: [] for name in settings.kernels}
    todo = [(name, seed) for seed in settings.seeds for name in settings.kernels]
    with make_progress() as progress, track(progress, "comparing", len(todo)) as advance:
        for number, (name, seed) in enumerate(todo):
            advance(number)
            path = folder / UNITS / f"{slug(name)}-{seed}.json"
            unit = read_unit(path, name)
            if unit is None:
                entry = settings.kernels[name]
                with track(progress, f"{name}, seed {seed}", entry.steps or settings.steps) as tick:
                    unit = measure(name, entry, posed, settings, seed=seed, tick=tick)
                write_json(path, unit.to_dict())
                say(line(unit))
            found[name].append(unit)
    return found


def read_unit(path: Path, kernel: str) -> Unit | None:
    """What was measured of a kernel before; None where there is nothing, half of it, or another kernel's."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        unit = Unit.from_dict(json.loads(path.read_text()))
        return unit if unit.kernel == kernel else None
    return None


def line(unit: Unit) -> str:
    """One unit, said when it is done."""
    times = ", ".join(f"{name} {each.time:.3g}" for name, each in unit.observed.items())
    return f"{unit.kernel}, seed {unit.seed}: accepted {unit.accept_prob:.2f}, autocorrelation times in steps: {times}"


def finish(
    settings: Comparison, posed: Posed, units: dict[str, list[Unit]], folder: Path, machine: dict[str, Any]
) -> None:
    """Print the tables and write everything."""
    found = summaries(units)
    title = title_of(settings.problem, posed, machine)
    strange = elsewhere(units, machine)
    tables = (kernel_table(found, title=title), rate_table(found, caption=caption_of(strange)))
    shown = console if console.is_terminal else Console(file=console.file, width=TABLE_WIDTH)
    with open(folder / TABLE, "w") as file:
        for table in tables:
            if not console.quiet:
                shown.print(table)
            Console(file=file, width=TABLE_WIDTH).print(table)
    results = {
        "machine": machine,
        "elsewhere": strange,
        "problem": title,
        "samples": posed.source,
        "settings": (folder / SETTINGS).read_text(),
        "kernels": [each.to_dict() for each in found],
    }
    write_json(folder / RESULTS, results)
    try:
        from gwg_dist.compare.pictures import draw

        draw(folder, units, found)
    except ImportError:
        say("no pictures: they need matplotlib, pip install 'gwg-dist[plot]'")
    say(f"written to {folder}")


def shortened(settings: Comparison) -> Comparison:
    """The same comparison in seconds, to see that it works."""
    kernels = {name: replace(entry, steps=None, every=None) for name, entry in settings.kernels.items()}
    dear: dict[str, Any] = {name: QUICK_POSE for name in DEAR if name in vars(settings.problem)}
    problem = replace(settings.problem, **dear)
    return replace(settings, problem=problem, kernels=kernels, steps=QUICK_STEPS, every=1, warmup=20, rounds=1,
                   num_chains=QUICK_CHAINS, num_exact=4 * QUICK_CHAINS, seeds=settings.seeds[:1])  # fmt: skip
