"""The command line of a sweep."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from gwg_dist.cli import Parser, errors_for_people, quiet
from gwg_dist.errors import InputError
from gwg_dist.runs import make_folder
from gwg_dist.tune.recipe import Recipe
from gwg_dist.tune.results import replace_text
from gwg_dist.tune.space import SearchSpace, grid_points, parse_space, random_points

SWEEP, EXPERIMENT = "sweep.yaml", "experiment.yaml"
SEARCHES = ("random", "grid", "optuna")
SCHEDULERS = ("asha", "pbt", "none")
METRICS = ("val/log_likelihood", "ais/ess", "ais/log_z_stderr")
MODES = ("max", "min")
NUM_TRIALS = 16
# What all trials of a sweep share, whenever they run.
KEPT = ("experiment", "settings", "space", "search", "metric", "mode", "seed")


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep.

    Args:
        metric: what trials are compared by; val/log_likelihood, in nats. There is no default.
        experiment: a file of settings of gwg_dist.fit.
        settings: more settings of gwg_dist.fit for all trials, by dotted keys.
        space: what varies, by dotted keys: choice, uniform, log_uniform, int or log_int; with points for a grid.
        search: random, grid or optuna.
        scheduler: asha stops trials that are behind; pbt lets them take over the best ones' state; none.
        mode: max or min.
        num_trials: of the whole sweep; 0 is 16, or all of a grid.
        workers: processes of a trial.
        cpus: of each worker.
        gpus: of each worker; by default one where the cluster has any.
        max_concurrent: trials at once; 0 is as many as fit.
        grace_iterations: no trial is stopped before; pbt: between two looks; 0 is evaluation.every.
        reduction_factor: n: asha lets the best 1/n go on, pbt lets the worst 1/n copy the best 1/n.
        max_failures: how often a trial is started again.
        seed: of the search. That of the trials is a setting of fit.
        sweep_dir: the folder of the sweep, on a disk that all machines see; runs/sweep-TIME by default.
        address: of a running Ray cluster; by default one is started on this machine.
    """

    metric: str = ""
    experiment: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    search: str = "random"
    scheduler: str = "asha"
    mode: str = "max"
    num_trials: int = 0
    workers: int = 1
    cpus: float = 1.0
    gpus: float | None = None
    max_concurrent: int = 0
    grace_iterations: int = 0
    reduction_factor: int = 3
    max_failures: int = 2
    seed: int = 0
    sweep_dir: str | None = None
    address: str | None = None


class SweepParser(Parser):
    """Suggests a sweep's own keys alone."""

    config_kind = "sweep"

    def known_keys(self) -> list[str]:
        return [action.dest for action in self._actions if action.dest and not action.dest.endswith(".help")]


def main(args: list[str] | None = None) -> None:
    """The command line.

    Exits with 2 for a mistake, 1 where trials failed, 130 for Ctrl-C, 75 for SIGTERM; --resume goes on.
    """
    import gwg_dist.tune

    quiet()
    args = list(sys.argv[1:] if args is None else args)
    cut = args.index("--") if "--" in args else len(args)
    parser = SweepParser(prog="python -m gwg_dist.tune", description=gwg_dist.tune.__doc__, allow_abbrev=False)
    parser.add_config_argument()
    parser.add_argument("--resume", type=str | None, default=None, help="go on with the sweep in this folder")
    parser.add_class_arguments(Sweep)
    config = parser.parse_args(expand_resume(args[:cut])).as_dict()
    resumed = config.pop("resume") is not None
    config.pop("config")
    with errors_for_people():
        config["settings"] = config["settings"] | fit_settings(args[cut + 1 :])
        code = run(Sweep(**config), resumed=resumed)
    sys.exit(code)


def expand_resume(args: list[str]) -> list[str]:
    """``--resume SWEEP`` stands for the sweep's settings and its folder as well; later settings still win."""
    for place, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == "--resume":
            folder = Path(value if equals else "".join(args[place + 1 : place + 2]))
            return ["--config", str(folder / SWEEP), f"--sweep_dir={folder}", *args]
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


def run(sweep: Sweep, *, resumed: bool) -> int:
    """Check everything, then run the trials; returns the exit code. Raises InputError."""
    folder = Path(sweep.sweep_dir) if sweep.sweep_dir else Path("runs") / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    if resumed:
        check_same(sweep, folder)
    elif (folder / SWEEP).exists() or (folder / "trials").exists():
        raise InputError(f"{folder} already holds a sweep: go on with --resume {folder}, or choose another --sweep_dir")
    check(sweep)
    space = parse_space(sweep.space)
    experiment = folder / EXPERIMENT if resumed and (folder / EXPERIMENT).is_file() else None
    if experiment is None and sweep.experiment is not None:
        experiment = Path(sweep.experiment)
        if not experiment.is_file():
            raise InputError(f"experiment: there is no file {experiment}")
    points = planned(sweep, space)
    recipe = Recipe(experiment, sweep.settings, space)
    if sweep.scheduler == "pbt":
        recipe.check_mutable()
    base = recipe.check(sweep.metric)
    grace = check_grace(sweep, base.evaluation.every, base.trainer.max_steps)

    from gwg_dist.tune.cluster import check_fits, cluster, import_ray

    import_ray()
    with cluster(sweep.address, threads=max(int(sweep.cpus), 1)) as machines:
        has_gpus = any(machine.get("GPU", 0) for machine in machines)
        gpus = sweep.gpus if sweep.gpus is not None else float(has_gpus)
        at_once = check_fits(machines, workers=sweep.workers, cpus=sweep.cpus, gpus=gpus)
        make_folder(folder)
        folder = folder.resolve()
        if experiment is not None:
            if experiment.resolve() != folder / EXPERIMENT:
                shutil.copyfile(experiment, folder / EXPERIMENT)
            recipe.experiment = folder / EXPERIMENT
        replace_text(folder / SWEEP, yaml.safe_dump(asdict(sweep), sort_keys=False))

        from gwg_dist.tune.drive import drive

        return drive(
            sweep, recipe, folder, points, gpus=gpus, grace=grace, every=base.evaluation.every,
            max_steps=base.trainer.max_steps, at_once=min(at_once, sweep.max_concurrent or at_once),
        )  # fmt: skip


def check(sweep: Sweep) -> None:
    """What the sweep's own settings say. Raises InputError."""
    metric = sweep.metric
    if not metric:
        raise InputError(f"metric: say what to compare trials by, there is no default: {', '.join(METRICS)}")
    if metric.startswith("test/"):
        raise InputError(f"metric: {metric} would choose settings by the test set, which must stay unseen; use val/")
    for name, value, known in (
        ("metric", metric, METRICS), ("search", sweep.search, SEARCHES), ("scheduler", sweep.scheduler, SCHEDULERS),
        ("mode", sweep.mode, MODES),
    ):  # fmt: skip
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    for name, low in (
        ("num_trials", 0), ("workers", 1), ("max_concurrent", 0), ("grace_iterations", 0), ("reduction_factor", 2),
        ("max_failures", 0),
    ):  # fmt: skip
        if getattr(sweep, name) < low:
            raise InputError(f"{name} must be at least {low}, got {getattr(sweep, name)}")
    if sweep.cpus < 0.1:
        raise InputError(f"cpus must be at least 0.1, got {sweep.cpus:g}")
    if sweep.gpus is not None and sweep.gpus < 0:
        raise InputError(f"gpus must not be negative, got {sweep.gpus:g}")
    if sweep.workers > 1 and sweep.gpus is not None and sweep.gpus != int(sweep.gpus):
        raise InputError(f"gpus must be whole where a trial has {sweep.workers} workers, got {sweep.gpus:g}")
    if sweep.search == "optuna" and find_spec("optuna") is None:
        raise InputError("search optuna needs Optuna: pip install 'gwg-dist[tune]'")
    if sweep.scheduler == "pbt" and sweep.search != "random":
        raise InputError(f"search must be random with scheduler pbt, got {sweep.search!r}")
    for name, only in (("workers", 1), ("max_concurrent", 0)):
        if sweep.scheduler == "pbt" and getattr(sweep, name) != only:
            raise InputError(f"{name} must be {only} with scheduler pbt, got {getattr(sweep, name)}")


def check_grace(sweep: Sweep, every: int, max_steps: int) -> int:
    """Iterations before the first decision. Raises InputError where there would be none."""
    grace = sweep.grace_iterations or every
    if sweep.scheduler != "none" and not every <= grace < max_steps:
        raise InputError(
            f"grace_iterations must lie in evaluation.every ({every}) to below trainer.max_steps ({max_steps}) "
            f"with scheduler {sweep.scheduler}, got {grace}"
        )
    return grace


def check_same(sweep: Sweep, folder: Path) -> None:
    """Raises InputError where a resumed sweep would mix trials that do not compare."""
    before = asdict(Sweep(**yaml.safe_load((folder / SWEEP).read_text())))
    now = yaml.safe_load(yaml.safe_dump(asdict(sweep)))
    for name in KEPT:
        if before[name] != now[name]:
            raise InputError(f"{name}: a resumed sweep keeps it: {before[name]!r} there, {now[name]!r} now")


def planned(sweep: Sweep, space: SearchSpace) -> list[dict[str, Any]]:
    """The points of all trials, by number; for a search that proposes them, as many empty ones."""
    if sweep.search == "grid":
        points = grid_points(space)
        if sweep.num_trials not in (0, len(points)):
            raise InputError(f"num_trials: the grid has {len(points)} points, got {sweep.num_trials}")
        return points
    num = sweep.num_trials or NUM_TRIALS
    return [{} for _ in range(num)] if sweep.search == "optuna" else random_points(space, num, sweep.seed)
