"""All defaults on a dozen kinds of data: ``gwg_dist bench --only recipe --minutes 3 --data_dir DIR``.

Each run is a process of its own with ``--max_minutes`` and no other setting than its data. A set whose file is not in
the folder is left out, and said.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from rich.table import Table

from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder
from gwg_dist.tools.terminal import say

RNA = "-ACGU"
LEVELS = 16


class DataSet(NamedTuple):
    """Data for the benchmark.

    Args:
        name: what the table calls it.
        args: settings of the data; "{path}" stands for the file.
        file: what it is read from, in the folder of the data; "" where the package makes it.
        prepare: makes an array of integers (N, ...) of that file, where the file is not one.
    """

    name: str
    args: tuple[str, ...]
    file: str = ""
    prepare: Callable[[Path], np.ndarray] | None = None


class Outcome(NamedTuple):
    """What became of a run; nats, and None for what is not there."""

    name: str
    seed: int
    energy: str
    test: float | None
    reference: float | None
    gain: float | None
    stderr: float | None
    ess: float | None
    returned: int
    lag: float | None
    iterations: int | None
    verdict: str
    seconds: float
    exit_code: int
    command: str


def halves(path: Path) -> np.ndarray:
    """Grey levels 0 to 255, 1 where the level is at least half."""
    return (np.load(path)["x"] >= 128).astype(np.uint8)


def sixteen_levels(path: Path) -> np.ndarray:
    """Grey levels 0 to 255 in sixteen steps."""
    return np.load(path)["x"] // (256 // LEVELS)


def rna(path: Path) -> np.ndarray:
    """Aligned sequences of a gzipped FASTA as integers; a letter that is none of "-ACGU" counts as a gap."""
    with gzip.open(path, "rt") as file:
        records = ["".join(record.split("\n")[1:]) for record in file.read().split(">")[1:]]
    return np.array([[max(RNA.find(letter), 0) for letter in record.upper()] for record in records], dtype=np.uint8)


ARRAY = ("--data=Arrays", "--data.path={path}")
IMAGES = ("--data=MNIST", "--data.root={folder}")
SETS = (
    DataSet("digits threshold", ("--data=Digits",)),
    DataSet("digits dynamic", ("--data=Digits", "--data.binarization=dynamic")),
    DataSet("digits 17 levels", ("--data=Digits", "--data.binarization=none")),
    DataSet("Ising sample", ("--data=IsingSamples",)),
    DataSet("MNIST threshold", (*IMAGES, "--data.binarization=threshold"), "mnist.npz"),
    DataSet("MNIST dynamic", (*IMAGES, "--data.binarization=dynamic"), "mnist.npz"),
    DataSet("Caltech silhouettes", (*ARRAY, "--data.train=x"), "caltech101_silhouettes28.npz"),
    DataSet("Omniglot small", ARRAY, "omniglot_small28.npz", halves),
    DataSet("DNA", (*ARRAY, "--data.train=x"), "dna_mlbench.npz"),
    DataSet("mushrooms", (*ARRAY, "--data.train=x"), "mushroom_fann.npz"),
    DataSet("Frey faces 16 levels", ARRAY, "freyfaces.npz", sixteen_levels),
    DataSet("DHFR", (*ARRAY, "--data.train=msa"), "family_DHFR.npz"),
    DataSet("RF00379", ARRAY, "rf00379.fasta.gz", rna),
)


def recipe(*, minutes: float, seeds: list[int], sets: str, data_dir: Path | None, folder: Path) -> list[dict[str, Any]]:
    """Run every set with every seed, one after the other; a table, and the outcomes.

    Args:
        minutes: what each run is given.
        seeds: seeds of the runs.
        sets: names of sets to run, or parts of names, separated by commas; "" for all.
        data_dir: folder of the files; None leaves out the sets that need one.
        folder: where the runs go.

    Raises:
        InputError: minutes that are not positive, no set of such a name.
    """
    if not minutes > 0:
        raise InputError(f"minutes must be positive, got {minutes}")
    parts = [part.strip().lower() for part in sets.split(",")]
    wanted = [data for data in SETS if any(part in data.name.lower() for part in parts)]
    if not wanted:
        raise InputError(f"sets: none of {', '.join(data.name for data in SETS)} has {sets!r} in its name")
    make_folder(folder, name="runs")
    found = []
    for data in wanted:
        if data.file and (data_dir is None or not (data_dir / data.file).is_file()):
            say(f"{data.name} is left out: there is no {data.file} in {data_dir or 'data_dir, which is not given'}")
            continue
        args = arguments(data, data_dir, folder)
        for seed in seeds:
            found.append(run(data, args, seed, minutes, folder))
            say(line(found[-1]))
    return [outcome._asdict() for outcome in found]


def arguments(data: DataSet, data_dir: Path | None, folder: Path) -> list[str]:
    """The data's settings; the file is made where the data are not arrays of integers already."""
    path = Path() if data_dir is None else data_dir.resolve() / data.file
    if data.prepare is not None:
        source, path = path, folder.resolve() / "data" / f"{data.name.replace(' ', '_')}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, x=data.prepare(source))
    return [arg.format(path=path, folder=path.parent) for arg in data.args]


def run(data: DataSet, args: list[str], seed: int, minutes: float, folder: Path) -> Outcome:
    """One run by all defaults."""
    place = folder / f"{data.name.replace(' ', '_')}-{seed}"
    command = ["gwg_dist.fit", *args, f"--seed={seed}", f"--max_minutes={minutes:g}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with open(folder / f"{place.name}.log", "w") as log:
        done = subprocess.run(
            [sys.executable, "-m", *command, f"--run_dir={place}"], stdout=log, stderr=log, env=environment, check=False
        )
    seconds = time.monotonic() - began
    return outcome(data.name, seed, place, seconds, done.returncode, "python -m " + " ".join(command))


def outcome(name: str, seed: int, place: Path, seconds: float, code: int, command: str) -> Outcome:
    """What a run's folder and log say of it."""
    log = place.with_name(f"{place.name}.log").read_text()
    config = yaml.safe_load((place / "config.yaml").read_text()) if (place / "config.yaml").is_file() else {}
    energy = config.get("model", {}).get("energy", {}).get("class_path", "").rpartition(".")[2]
    results: dict[str, Any] = {}
    if code == 0 and (place / "results.json").is_file():
        results = json.loads((place / "results.json").read_text())
    verdict = results.get("verdict", {})
    return Outcome(
        name=name,
        seed=seed,
        energy=energy,
        test=results.get("likelihood", {}).get("test", {}).get("mean"),
        reference=results.get("reference", {}).get("test"),
        gain=verdict.get("gain"),
        stderr=verdict.get("stderr"),
        ess=results.get("ais", {}).get("ess"),
        returned=sum("Going on from the state of iteration" in text for text in log.splitlines()),
        lag=results.get("training", {}).get("metrics", {}).get("train/lag"),
        iterations=results.get("training", {}).get("iterations"),
        verdict=verdict.get("kind", "diverged" if code == 3 else f"failed, exit {code}"),
        seconds=seconds,
        exit_code=code,
        command=command,
    )


def line(found: Outcome) -> str:
    """An outcome as text, said when its run ends."""
    test = "-" if found.test is None or found.reference is None else f"{found.test:.2f} / {found.reference:.2f}"
    return f"{found.name}, seed {found.seed}: {test}, {found.verdict}, {found.seconds:.0f} s"


def outcome_table(rows: list[dict[str, Any]], *, title: str) -> Table:
    """Nats a point; "returned" counts how often a run that diverged went back and went on."""
    table = Table(title=title, title_justify="left")
    table.add_column("data", no_wrap=True)
    columns = ("seed", "energy", "iterations", "test", "reference", "gain", "ESS", "returned", "verdict", "seconds")
    for column in columns:
        table.add_column(column, justify="left" if column in ("energy", "verdict") else "right")
    for row in rows:
        gain = "" if row["gain"] is None else f"{row['gain']:.2f} ± {row['stderr'] or 0:.2f}"
        numbers = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("test", "reference")]
        table.add_row(
            row["name"], str(row["seed"]), row["energy"], str(row["iterations"] or ""), *numbers, gain,
            "" if row["ess"] is None else f"{row['ess']:.0f}", str(row["returned"]), row["verdict"],
            f"{row['seconds']:.0f}",
        )  # fmt: skip
    return table
