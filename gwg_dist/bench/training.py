"""What a kernel buys in training: the test likelihood of the same run, by the gradients that its chains took.

Every run has the same data, energy, rate and number of iterations; only the kernel and its number of steps differ. A
kernel with something to tune tunes it in the first part of the run, then it is frozen. A model of few hidden units has
an exact likelihood, by the sum over them. All others are measured by the same kernel, Gibbs-With-Gradients, at the same
temperatures. ``gradients`` counts evaluations of ∇E a chain: iterations times steps.
"""

from __future__ import annotations

import csv
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.table import Table

from gwg_dist.bench.quietly import train_quietly
from gwg_dist.evaluation import ais, log_likelihood
from gwg_dist.samplers import GWG
from gwg_dist.tools.errors import DivergedError, InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import console
from gwg_dist.training.estimate import exact_values, exact_way
from gwg_dist.training.loading import load_run

REFERENCE = ("GWG", 10)  # the paper's kernel at the steps that others are compared with
KERNELS = {"GWG": (10, 5, 2), "DMALA": (5, 2, 1), "PAS": (5, 2, 1)}  # and their steps an iteration
TUNED_IN = 0.2  # of the iterations
FIXED = (
    "--model.energy=RBMEnergy", "--data.batch_size=100", "--model.chains.size=1000", "--pace.limit=0",
    "--on_divergence=stop", "--evaluation.every=0", "--evaluation.final_temperatures=1", "--evaluation.num_chains=10",
    "--pictures_every=0",
    "--trainer.log_every_n_steps=50", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
)  # fmt: skip
MNIST = "mnist.npz"
SIDEWAYS = 1.04  # factor between kernels' places in the picture


class Trained(NamedTuple):
    """One run.

    Args:
        kernel: name in ``KERNELS``.
        steps: steps an iteration.
        seed: seed of the run.
        gradients: evaluations of ∇E by one chain's share of the run.
        test: mean test log-likelihood, nats; minus infinity where the run diverged.
        stderr: the standard error that log Z brings to it; 0 where it is exact.
        ess: of the weights of AIS; not a number where there was none.
        accepted: mean acceptance at the end.
        hops: sites that change in a step, at the end.
        seconds: process CPU time of the training.
    """

    kernel: str
    steps: int
    seed: int
    gradients: int
    test: float
    stderr: float
    ess: float
    accepted: float
    hops: float
    seconds: float


def training_study(*, quick: bool, data_dir: str | None, seeds: Sequence[int], sets: str, out: Path) -> dict[str, Any]:
    """Run every kernel at its numbers of steps on each set of data; print and return tables.

    A picture of each set, likelihood over gradients, lies beside ``out``.

    Args:
        quick: a few iterations, one number of steps a kernel.
        data_dir: folder of mnist.npz; the digits alone without it.
        seeds: seeds of the runs.
        sets: parts of the names of sets, separated by commas; "" for all.
        out: the JSON file.

    Raises:
        InputError: data_dir lacks mnist.npz, no set of such a name.
    """
    parts = [part.strip().lower() for part in sets.split(",")]
    known = settings_of_sets(data_dir)
    wanted = {name: settings for name, settings in known.items() if any(part in name for part in parts)}
    if not wanted:
        raise InputError(f"sets: none of {', '.join(known)} has {sets!r} in its name")
    length, temperatures = (60, 50) if quick else (3000, 20_000)
    points = [(kernel, steps) for kernel, numbers in KERNELS.items() for steps in numbers[: 1 if quick else None]]
    found = {}
    for name, settings in wanted.items():
        runs = []
        for seed in seeds:
            for kernel, steps in points:
                runs.append(trained(settings, kernel, steps, seed, length=length, temperatures=temperatures))
                console.print(f"{name}: {runs[-1]}", soft_wrap=True, highlight=False)
        console.print(runs_table(name, runs))
        draw(name, runs, out.with_name(f"{out.stem}-{name}.png"))
        found[name] = {"iterations": length, "runs": [run._asdict() for run in runs]}
    return found


def settings_of_sets(data_dir: str | None) -> dict[str, list[str]]:
    """Settings by name of set: the digits, and MNIST of ``data_dir`` with 20 hidden units and with 200."""
    found = {"digits": ["--data=Digits", "--model.energy.num_hidden=192"]}
    if data_dir:
        path = Path(data_dir).expanduser() / MNIST
        if not path.is_file():
            raise InputError(f"data_dir: there is no file {path}")
        data = ["--data=MNIST", "--data.binarization=threshold", f"--data.root={path.parent}"]
        for hidden in (20, 200):
            units = f"--model.energy.num_hidden={hidden}"
            found[f"mnist-{hidden}-units"] = [*data, units, "--model.learning_rate=1e-3"]
    return found


def trained(settings: Sequence[str], kernel: str, steps: int, seed: int, *, length: int, temperatures: int) -> Trained:
    """Train with one kernel in a folder of its own, and measure the model."""
    tuning = [f"--adaptation.warmup={max(round(TUNED_IN * length), 50)}"] if kernel != "GWG" else []
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        args = [
            *FIXED, *settings, *tuning, f"--model.sampler={kernel}", f"--model.num_steps={steps}", f"--seed={seed}",
            f"--trainer.max_steps={length}", f"--run_dir={folder}",
        ]  # fmt: skip
        began = time.process_time()
        test, stderr, ess = -math.inf, math.nan, math.nan
        try:
            train_quietly(args)
            seconds = time.process_time() - began
            test, stderr, ess = likelihood_of(folder, temperatures)
        except DivergedError:
            seconds = time.process_time() - began
        accepted, hops = (last_logged(folder, name) for name in ("train/accept_prob", "train/hops"))
    return Trained(kernel, steps, seed, length * steps, test, stderr, ess, accepted, hops, seconds)


def likelihood_of(folder: Path, temperatures: int) -> tuple[float, float, float]:
    """Test likelihood of a run's last weights, its standard error, and the ESS: by an exact sum, else by AIS."""
    run = load_run(folder, "last", device="cpu")
    if exact_way(run) is not None:
        return exact_values(run)["test"], 0.0, math.nan
    target, codes = run.module.target, run.data.splits.test
    assert codes is not None
    generator = make_generator(0, "kernels in training")
    estimate = ais(target, GWG(), generator=generator, num_chains=100, num_temperatures=temperatures)
    return log_likelihood(target, codes, estimate).mean, estimate.stderr, estimate.ess


def last_logged(folder: Path, name: str) -> float:
    """The last value that a run logged under ``name``; not a number where there is none."""
    value = math.nan
    for path in folder.glob("metrics/*/metrics.csv"):
        with open(path, newline="") as file:
            value = next((float(row[name]) for row in reversed(list(csv.DictReader(file))) if row.get(name)), value)
    return value


def runs_table(name: str, runs: Sequence[Trained]) -> Table:
    """One run a row; the gain is over GWG at ten steps with the same seed."""
    table = Table(title=f"{name}: test likelihood by kernel and steps")
    for column in (
        "kernel",
        "steps",
        "seed",
        "gradients",
        "test, nats",
        "over GWG at 10",
        "ESS",
        "accepted",
        "hops",
        "s",
    ):
        table.add_column(column, justify="left" if column == "kernel" else "right")
    usual = {run.seed: run.test for run in runs if (run.kernel, run.steps) == REFERENCE}
    for run in runs:
        gain = run.test - usual.get(run.seed, math.nan)
        table.add_row(
            run.kernel, f"{run.steps}", f"{run.seed}", f"{run.gradients:,}", f"{run.test:.2f} ± {run.stderr:.2f}",
            f"{gain:+.2f}", f"{run.ess:.0f}", f"{run.accepted:.2f}", f"{run.hops:.2f}", f"{run.seconds:.0f}",
        )  # fmt: skip
    return table


def draw(name: str, runs: Sequence[Trained], path: Path) -> None:
    """Likelihood over gradients: a point a run, a line a kernel through the means of its seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.8), layout="constrained")
    for number, kernel in enumerate(KERNELS):
        mine = [run for run in runs if run.kernel == kernel and math.isfinite(run.test)]
        aside = SIDEWAYS ** (number - 1)  # so that kernels do not hide each other
        means = [(at * aside, mean(run.test for run in mine if run.gradients == at)) for at in _numbers(mine)]
        axes.plot(*zip(*means, strict=True), "-", color=f"C{number}", linewidth=1.2)
        points = [(run.gradients * aside, run.test) for run in mine]
        axes.plot(*zip(*points, strict=True), "os^"[number], color=f"C{number}", alpha=0.7, label=kernel)
    axes.set(xscale="log", xlabel="gradient evaluations a chain", ylabel="test log-likelihood, nats", title=name)
    ticks = _numbers(runs)
    axes.set_xticks(ticks, [f"{at:,}" for at in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _numbers(runs: Sequence[Trained]) -> list[int]:
    return sorted({run.gradients for run in runs})
