"""The command line of a sweep."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

import gwg_dist.tune
from gwg_dist.data.paths import named_data
from gwg_dist.tools import trust
from gwg_dist.tools.commands import Parser, errors_for_people, make_parser
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import write_text
from gwg_dist.tools.terminal import quiet
from gwg_dist.training.folder import now
from gwg_dist.training.living import owned
from gwg_dist.tune.checks import SWEEP_FILE, check, check_grace, check_same, planned
from gwg_dist.tune.plan import Plan
from gwg_dist.tune.recipe import Recipe
from gwg_dist.tune.records import TRIALS
from gwg_dist.tune.space import parse_space
from gwg_dist.tune.sweep import Sweep

EXPERIMENT = "experiment.yaml"


NAMED_FILES = {"--config": "sweep", "-c": "sweep"}


class SweepParser(Parser):
    """The parser of a sweep's settings."""

    named_files = NAMED_FILES


def main(args: list[str] | None = None) -> None:
    """The command line.

    Exits with 2 for a mistake, 1 where trials failed, 130 for Ctrl-C, 75 for SIGTERM; --resume goes on.
    """
    quiet()
    args = list(sys.argv[1:] if args is None else args)
    cut = args.index("--") if "--" in args else len(args)
    parser = make_parser("python -m gwg_dist.tune", gwg_dist.tune.__doc__, SweepParser)
    parser.add_config_argument()
    parser.add_trust_argument()
    parser.add_argument("--resume", type=str | None, default=None, help="go on with the sweep in this folder")
    parser.add_class_arguments(Sweep)
    config = parser.parse_args(resume_args(args[:cut])).as_dict()
    settings, given = trust.split(args[cut + 1 :])
    trusted = dict.fromkeys([*trust.modules(config.pop("trust")), *given, *trust.typed(args)])
    resumed = config.pop("resume") is not None
    config.pop("config")
    with errors_for_people():
        config["settings"] = config["settings"] | fit_settings(named_data(settings, lambda _: True))
        code = run(Sweep(**config), resumed=resumed, trust=",".join(trusted))
    sys.exit(code)


def resume_args(args: list[str]) -> list[str]:
    """``--resume SWEEP`` stands for the sweep's settings and its folder as well; later settings still win."""
    for place, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == "--resume":
            folder = Path(value if equals else "".join(args[place + 1 : place + 2]))
            return ["--config", str(folder / SWEEP_FILE), f"--sweep_dir={folder}", *args]
    return args


def fit_settings(args: list[str]) -> dict[str, Any]:
    """``--key=value`` or ``--key value`` of fit. Raises InputError for anything else."""
    found: dict[str, Any] = {}
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        if not name.startswith("--"):
            raise InputError(f"after -- come settings of gwg_dist.fit, --key=value, got {arg!r}")
        given = value if equals else next(rest, None)
        if given is None:
            raise InputError(f"{name} needs a value")
        found[name[2:]] = given
    return found


def run(sweep: Sweep, *, resumed: bool, trust: str = "") -> int:
    """Run the trials in a folder of this process's own; returns the exit code. Raises InputError and LostError."""
    folder = Path(sweep.sweep_dir or f"runs/sweep-{now()}")
    job = os.environ.get("SLURM_JOB_ID")
    with owned(folder, new=sweep.sweep_dir is None, job=job, name="sweep_dir") as folder:
        return run_in(replace(sweep, sweep_dir=str(folder)), resumed=resumed, trust=trust)


def run_in(sweep: Sweep, *, resumed: bool, trust: str) -> int:
    """Check everything, then run the trials in the sweep's folder; they may name classes of the modules ``trust``."""
    folder = sweep.folder
    if resumed:
        check_same(sweep, folder)
    elif (folder / SWEEP_FILE).exists() or (folder / TRIALS).exists():
        raise InputError(f"{folder} already holds a sweep: go on with --resume {folder}, or choose another --sweep_dir")
    check(sweep)
    experiment = experiment_file(sweep, folder / EXPERIMENT if resumed else None)
    recipe = Recipe(experiment, sweep.settings, parse_space(sweep.space), trust=trust)
    points = planned(sweep, recipe.space)
    if sweep.scheduler == "pbt":
        recipe.check_mutable()
    base = recipe.check(sweep.metric)
    every, max_steps = base.evaluation.every, base.trainer.max_steps
    grace = check_grace(sweep, every, max_steps)

    from gwg_dist.tune.cluster import check_fits, cluster, import_ray

    import_ray(sweep.address)
    from gwg_dist.tune.drive import drive

    with cluster(sweep.address, threads=max(int(sweep.cpus), 1)) as machines:
        has_gpus = any(machine.get("GPU", 0) for machine in machines)
        gpus = sweep.gpus if sweep.gpus is not None else float(has_gpus)
        fitting = check_fits(machines, workers=sweep.workers, cpus=sweep.cpus, gpus=gpus)
        recipe.keep_experiment(folder.resolve() / EXPERIMENT)
        write_text(folder / SWEEP_FILE, yaml.safe_dump(asdict(sweep), sort_keys=False))
        settled = replace(sweep, sweep_dir=str(folder.resolve()), gpus=gpus)
        at_once = min(fitting, sweep.max_concurrent or fitting)
        return drive(Plan(settled, recipe, points, grace, every, max_steps, at_once))


def experiment_file(sweep: Sweep, copy: Path | None) -> Path | None:
    """The experiment: the sweep's own copy where there is one. Raises InputError where the file is missing."""
    if copy is not None and copy.is_file():
        return copy
    if sweep.experiment is not None and not Path(sweep.experiment).is_file():
        raise InputError(f"experiment: there is no file {sweep.experiment}")
    return Path(sweep.experiment) if sweep.experiment is not None else None
