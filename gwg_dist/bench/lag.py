"""Whether the lag predicts failure: short runs of an RBM at all settings of a grid, none of them steered.

A run has failed where it diverged or where its test likelihood is no better than that of its reference. Beside the lag
of ``chain_lag``: the drift, by how much the mean energy of chains of the buffer falls when they run on at the end, in
units of its spread.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table

from gwg_dist.bench.quietly import train_quietly
from gwg_dist.callbacks.diagnosis import LAGGING
from gwg_dist.samplers import run_chain
from gwg_dist.tools.errors import DivergedError, InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import console
from gwg_dist.training.loading import load_run

SIZES, STEPS, RATES = (100, 1000, 10_000), (5, 20), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FILES = {"caltech": ("caltech101_silhouettes28.npz", 200), "dna": ("dna_mlbench.npz", 100)}  # and hidden units
RUN_ON = 500  # steps of the chains of the buffer for the drift, 200 chains of it
FIXED = [
    "--model.energy=RBMEnergy", "--model.sampler=GWG", "--model.warmup_iterations=0", "--model.cooldown=0",
    "--model.weight_decay=0", "--data.batch_size=100", "--pace.limit=0", "--on_divergence=stop", "--ema.decay=0.99",
    "--evaluation.every=0", "--pictures_every=0", "--trainer.log_every_n_steps=10",
    "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
]  # fmt: skip


class Outcome(NamedTuple):
    """One run.

    Args:
        size: chains of the buffer.
        steps: steps an iteration.
        rate: learning rate.
        lag: median of the lag over the run; infinite where none was measured.
        gain: test likelihood minus that of the reference, nats; minus infinity for a run that diverged.
        drift: see the module; not a number for a run that diverged.
        collapsed: whether too few AIS chains carry the estimate.
        seconds: on the wall.
    """

    size: int
    steps: int
    rate: float
    lag: float
    gain: float
    drift: float
    collapsed: bool
    seconds: float

    @property
    def failed(self) -> bool:
        return not self.gain > 0


def lag_study(*, quick: bool, data_dir: str | None) -> dict[str, Any]:
    """Run the grid on the digits and on the files of ``data_dir``; print and return tables.

    Raises InputError where data_dir lacks a file.
    """
    sets = {"digits": (["--data=Digits"], 100, 60 if quick else 600)}
    for name, (file, num_hidden) in FILES.items() if data_dir else ():
        path = Path(data_dir or "").expanduser() / file
        if not path.is_file():
            raise InputError(f"data_dir: there is no file {path}")
        data = ["--data=Arrays", "--data.train=x", f"--data.path={path}"]
        sets[name] = (data, num_hidden, 20 if quick else 500)
    grid = list(
        itertools.product((100, 10_000), (5,), (1e-3, 3e-2)) if quick else itertools.product(SIZES, STEPS, RATES)
    )
    found = {}
    for name, (data, num_hidden, length) in sets.items():
        settings = [*data, f"--model.energy.num_hidden={num_hidden}", f"--trainer.max_steps={length}"]
        outcomes = []
        for size, steps, rate in grid:
            outcomes.append(outcome(settings, size=size, steps=steps, rate=rate, temperatures=20 if quick else 1000))
            console.print(f"{name} {len(outcomes)}/{len(grid)}: {outcomes[-1]}", soft_wrap=True, highlight=False)
        found[name] = summary(outcomes) | {"runs": [run._asdict() for run in outcomes]}
        console.print(runs_table(name, outcomes))
        console.print({key: value for key, value in found[name].items() if key != "runs"})
    return found


def outcome(settings: Sequence[str], *, size: int, steps: int, rate: float, temperatures: int) -> Outcome:
    """Train one point of the grid in a folder of its own, quietly."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        args = [
            *FIXED, *settings, f"--model.chains.size={size}", f"--model.num_steps={steps}",
            f"--model.learning_rate={rate}", f"--run_dir={folder}", "--evaluation.num_chains=100",
            f"--evaluation.final_temperatures={temperatures}",
        ]  # fmt: skip
        gain, drift, collapsed = -math.inf, math.nan, False
        with suppress(DivergedError):
            train_quietly(args)
            gain, collapsed = gain_of(folder)
            drift = drift_of(folder)
        return Outcome(size, steps, rate, lag_of(folder), gain, drift, collapsed, time.monotonic() - start)


def lag_of(folder: Path) -> float:
    """The median of the lags that a run logged."""
    lags = []
    for path in folder.glob("metrics/*/metrics.csv"):
        with open(path, newline="") as file:
            lags += [float(row["train/lag"]) for row in csv.DictReader(file) if row.get("train/lag")]
    return statistics.median(lags) if lags else math.inf


def gain_of(folder: Path) -> tuple[float, bool]:
    """Test likelihood minus that of the reference, and whether the estimate collapsed."""
    results = json.loads((folder / "results.json").read_text())
    ais = results["ais"]
    collapsed = ais["ess"] < max(0.05 * ais["num_chains"], 5)
    return results["likelihood"]["test"]["mean"] - results["reference"]["test"], collapsed


def drift_of(folder: Path) -> float:
    """By how much the mean energy of chains of the buffer falls when they run on, in units of its spread."""
    run = load_run(folder, "last", device="cpu")
    module = run.module
    rows = run.checkpoint["chains"]["packed"][:200]
    x = module.target.encode(module.space.unpack(rows))
    before = module.target.f(x)
    after = run_chain(module.sampler, module.target, x, num_steps=RUN_ON, generator=make_generator(0, "drift")).state.f
    return float((after.mean() - before.mean()) / before.std())


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Rank correlations with failure, and the table of runs flagged and failed."""
    badness = [-run.gain for run in outcomes]
    healthy = [run for run in outcomes if not math.isnan(run.drift)]
    flags = [(run.lag > LAGGING, run.failed) for run in outcomes]
    return {
        "spearman(lag, -gain)": spearman([run.lag for run in outcomes], badness),
        "spearman(drift, -gain), runs that ended": spearman(
            [run.drift for run in healthy], [-run.gain for run in healthy]
        ),
        "flagged above": LAGGING,
        "flagged and failed": flags.count((True, True)),
        "flagged, not failed": flags.count((True, False)),
        "failed, not flagged": flags.count((False, True)),
        "neither": flags.count((False, False)),
    }


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """The rank correlation of Spearman (1904); equal values share the mean of their ranks."""
    ranks = torch.stack([ranked(a), ranked(b)])
    return float(torch.corrcoef(ranks)[0, 1]) if len(a) > 1 else math.nan


def ranked(values: Sequence[float]) -> torch.Tensor:
    """Mean ranks from 0 on, float64."""
    x = torch.tensor(values, dtype=torch.float64)
    return ((x[:, None] > x).sum(1) + (x[:, None] >= x).sum(1) - 1).double() / 2


def runs_table(name: str, outcomes: Sequence[Outcome]) -> Table:
    """One run a row, by lag."""
    table = Table(title=f"{name}: {len(outcomes)} runs by their lag")
    for column in ("chains", "steps", "rate", "lag", "gain, nats", "drift", "failed", "s"):
        table.add_column(column, justify="right")
    for run in sorted(outcomes, key=lambda run: run.lag):
        table.add_row(
            f"{run.size}", f"{run.steps}", f"{run.rate:g}", f"{run.lag:.3g}",
            f"{run.gain:.2f}" + (" ?" if run.collapsed else ""), f"{run.drift:.2f}", "x" if run.failed else "",
            f"{run.seconds:.0f}",
        )  # fmt: skip
    return table
