"""The command line of the benchmark."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gwg_dist.bench import measure as clock
from gwg_dist.bench.measure import Timing
from gwg_dist.bench.rows import make_rows
from gwg_dist.samplers import check_backend
from gwg_dist.tools.commands import errors_for_people, make_parser
from gwg_dist.tools.devices import usable_device
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import write_json
from gwg_dist.tools.provenance import has_bfloat16, provenance
from gwg_dist.tools.terminal import console, make_progress, quiet, say, track

CALIBRATION, DDP, INFERENCE, LAG, RECIPE, THREADS, TRAINING = (
    "calibration",
    "ddp",
    "inference",
    "lag",
    "recipe",
    "threads",
    "training",
)
TABLE_WIDTH = 160


def bench(
    *,
    quick: bool = False,
    sweep: bool = False,
    only: str = "",
    num_chains: int = 100,
    rounds: int = 5,
    backend: str = "auto",
    out: str = "bench.json",
    device: str | None = None,
    minutes: float = 3.0,
    seeds: tuple[int, ...] = (0,),
    sets: str = "",
    data_dir: str | None = None,
    runs: str | None = None,
) -> Path:
    """Print the table and write the figures as JSON with hardware and versions.

    Args:
        quick: shorter and three rounds.
        sweep: step time against chains, sites and categories instead, with a plot beside the JSON.
        only: rows whose name contains this, in any case; "calibration" counts how often intervals of log Z hold it,
            "ddp" times one process against two, "recipe" trains by all
            defaults on a dozen kinds of data, "lag" trains for minutes to see whether the lag predicts failure,
            "training" trains with several kernels, to see what a gradient buys with each, "inference" learns couplings
            of Ising models from their samples with several kernels, "threads" times the kernels in C with one thread
            and with two, on the wall.
        num_chains: chains in a batch.
        rounds: alternations.
        backend: of our side, see ``gwg_dist.samplers.plan_chains``.
        out: the JSON file.
        device: "cpu" or "cuda"; a CUDA device where there is one.
        minutes: of "recipe": what each run is given.
        seeds: of "recipe" and "training": seeds of the runs.
        sets: of "recipe" and "training": parts of the names of data sets, separated by commas; "" for all.
        data_dir: of "recipe": folder of the files of data; sets whose file is not there are left out. Of "lag": folder
            of caltech101_silhouettes28.npz and dna_mlbench.npz; of "training": of mnist.npz. The digits alone without
            it.
        runs: of "recipe": folder of the runs; runs/recipe-TIME by default.
    """
    try:
        check_backend(backend)
    except ValueError as error:
        raise InputError(str(error)) from error
    for name, value in (("num_chains", num_chains), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name} must be positive, got {value}")
    where = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = Path(out)
    if not path.parent.is_dir():
        raise InputError(f"out: no folder {path.parent}")
    found = study(only.lower(), quick=quick, rounds=rounds, seeds=seeds, sets=sets, data_dir=data_dir, path=path)
    if found is not None:
        return written({"machine": provenance(where), only.lower(): found}, path)
    if only.lower() == RECIPE:
        return recipe_bench(where, path, minutes=minutes, seeds=seeds, sets=sets, data_dir=data_dir, runs=runs)
    clock.pin(where)
    if sweep:
        from gwg_dist.bench.scaling import scaling

        return written({"machine": provenance(where), "scaling": scaling(where, quick=quick, out=path)}, path)
    return row_bench(where, path, quick=quick, only=only, num_chains=num_chains, rounds=rounds, backend=backend)


def study(
    name: str, *, quick: bool, rounds: int, seeds: tuple[int, ...], sets: str, data_dir: str | None, path: Path
) -> dict[str, Any] | list[dict[str, Any]] | None:
    """What the study of that name finds; None where it is none. See ``bench`` for names and settings."""
    if name == CALIBRATION:
        from gwg_dist.bench.calibration import calibration_study

        return calibration_study(quick=quick)
    if name == DDP:
        from gwg_dist.bench.ddp import weak_scaling

        return weak_scaling(quick=quick)
    if name == INFERENCE:
        from gwg_dist.bench.inference import inference

        return [learnt._asdict() for learnt in inference(quick=quick)]
    if name == LAG:
        from gwg_dist.bench.lag import lag_study

        return lag_study(quick=quick, data_dir=data_dir)
    if name == TRAINING:
        from gwg_dist.bench.training import training_study

        return training_study(quick=quick, data_dir=data_dir, seeds=seeds, sets=sets, out=path)
    if name == THREADS:
        from gwg_dist.bench.threads import thread_study

        return thread_study(quick=quick, rounds=rounds)
    return None


def row_bench(
    where: torch.device, path: Path, *, quick: bool, only: str, num_chains: int, rounds: int, backend: str
) -> Path:
    """Our step against the published one, a row a model: table and JSON. Raises InputError where no row is named so."""
    torch.manual_seed(0)
    rows = make_rows(quick=quick, chains=num_chains, backend=backend, device=where)
    rows = [row for row in rows if only.lower() in row.name.lower()]
    if not rows:
        raise InputError(f"only: no row has {only!r} in its name")
    peak = clock.product_peak(where)
    timings = []
    with make_progress() as progress, track(progress, "benchmark", len(rows)) as advance:
        for number, row in enumerate(rows):
            advance(number)
            timings.append(clock.measure(row, rounds=3 if quick else rounds, device=where, peak=peak))
    machine = provenance(where) | {"product peak, GFLOP/s": round(peak / 1e9, 1)}
    (console if console.is_terminal else Console(width=TABLE_WIDTH)).print(timing_table(timings, machine))
    if not has_bfloat16(where):
        console.print("bfloat16 is emulated on this CPU, tens of times slower: its rows are left out", soft_wrap=True)
    return written({"machine": machine, "rows": [timing._asdict() for timing in timings]}, path)


def recipe_bench(
    where: torch.device,
    path: Path,
    *,
    minutes: float,
    seeds: tuple[int, ...],
    sets: str,
    data_dir: str | None,
    runs: str | None,
) -> Path:
    """Runs by all defaults: their table and their JSON."""
    from gwg_dist.bench.recipe import outcome_table, recipe

    folder = Path(runs or f"runs/recipe-{time.strftime('%Y%m%d-%H%M%S')}")
    given = None if data_dir is None else Path(data_dir).expanduser()
    rows = recipe(minutes=minutes, seeds=list(seeds), sets=sets, data_dir=given, folder=folder)
    machine = provenance(where)
    title = f"{minutes:g} minutes a run, {machine['device']}, {machine['code']}"
    (console if console.is_terminal else Console(width=TABLE_WIDTH)).print(outcome_table(rows, title=title))
    return written({"machine": machine, "minutes": minutes, "recipe": rows}, path)


def written(content: dict, path: Path) -> Path:
    """Write the JSON and say where."""
    write_json(path, content)
    say(f"written to {path}")
    return path


def timing_table(timings: list[Timing], machine: dict) -> Table:
    """Milliseconds a step, ratios, throughput."""
    table = Table(title=", ".join(f"{key} {value}" for key, value in machine.items()), title_justify="left")
    table.add_column("work", no_wrap=True)
    for column in ("ours, ms", "published, ms", "ratio", "range", "chain-steps/s", "GFLOP/s", "of product peak"):
        table.add_column(column, justify="right")
    for row in timings:
        table.add_row(
            row.name, f"{row.ours_ms:.3f}",
            "" if row.published_ms is None else f"{row.published_ms:.3f}",
            "" if row.ratio is None else f"[bold]{row.ratio:.3g}[/]",
            f"{min(row.ratios):.3g}-{max(row.ratios):.3g}" if row.ratios else "",
            f"{row.chain_steps_per_s:,.0f}",
            f"{row.gflops:.1f}" if row.gflops else "", f"{row.of_peak:.0%}" if row.gflops else "",
        )  # fmt: skip
    return table


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    import gwg_dist.bench

    quiet()
    parser = make_parser("python -m gwg_dist.bench", gwg_dist.bench.__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, and three rounds")
    parser.add_argument("--sweep", action="store_true", help="scaling with chains, sites and categories, and a plot")
    parser.add_function_arguments(bench, skip={"quick", "sweep"})
    config = parser.parse_args(sys.argv[1:] if args is None else args)
    with errors_for_people():
        bench(**config.as_dict())
