"""Time to a Pearson of .95, sampling speed and statistics of a Potts model: gwg_dist beside adabmDCA, on one file.

python launch/against_adabmdca.py family.fasta --other /path/to/venv/bin/adabmDCA --chains 2000 --out against

adabmDCA (1.0.0, from the package registry; Rosset et al., 2025) wants a virtual environment of its own. Without it the
script says so and ends. Both train on the same sequences with weights at 80 % identity, by Gibbs sampling, until the
connected two-site correlations of as many chains reach the target; each with the rate and sweeps an update of its own
recipe (adabmDCA: its defaults, and the rates that --other_rates names). Processes are pinned to one core and run one
after the other. Their time is that of the processor, user and system, of the whole process, so that reading the file
counts and other people's work on the machine does not; the clock's is there beside it. A training that has not come to
the target by the limit is ended there, and how far it came is said. Then each samples its own model, and the same
statistics of the chains that both left are compared with those of the file.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

FEW_SWEEPS, MANY_SWEEPS = 20, 120
EVERY = 10  # updates between two looks at the correlations
PATIENCE = 600.0  # seconds for a process to end once it was asked to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path, help="alignment as FASTA, or FASTA in gzip")
    parser.add_argument("--other", default="adabmDCA", help="its command")
    parser.add_argument("--chains", type=int, default=2000, help="chains of both")
    parser.add_argument("--target", type=float, default=0.95, help="Pearson's correlation")
    parser.add_argument("--seconds", type=float, default=1500.0, help="limit of each training, of the processor's time")
    parser.add_argument("--rate", type=float, default=0.05, help="our learning rate, of plain gradient ascent")
    parser.add_argument("--sweeps", type=int, default=4, help="our sweeps an update")
    parser.add_argument("--other_rates", type=float, nargs="+", default=[0.01], help="its rates; it ships with 0.01")
    parser.add_argument("--out", type=Path, default=Path("against_adabmdca"), help="folder for models and numbers")
    args = parser.parse_args()
    other = shutil.which(args.other)
    if other is None:
        print(f"skipped: there is no command {args.other} (pip install adabmDCA==1.0.0, in an environment of its own)")
        return
    args.out.mkdir(parents=True)
    args.family = plain(args.family, args.out)
    found: dict[str, object] = {"chains": args.chains, "target": args.target, "family": args.family.name}
    others = {f"adabmDCA, rate {rate:g}": partial(theirs, other, rate, args) for rate in args.other_rates}
    for name, measure in {"gwg_dist": partial(ours, args), **others}.items():
        found[name] = measure()
        (args.out / "against.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def plain(family: Path, out: Path) -> Path:
    """The file itself, or what a .gz holds, in the folder of the numbers."""
    if family.suffix != ".gz":
        return family
    path = out / family.stem
    path.write_bytes(gzip.decompress(family.read_bytes()))
    return path


def ours(args: argparse.Namespace) -> dict[str, object]:
    """Training, site updates a second and the statistics of the chains of our own model."""
    run = args.out / "ours"
    command = [
        sys.executable, "-m", "gwg_dist.fit", str(args.family), f"--run_dir={run}", "--data.split=rows",
        "--data.held_out=0.001", f"--data.batch_size={args.chains}", "--model.energy=PottsEnergy",
        "--model.sampler=BlockGibbs", f"--model.chains.size={args.chains}", f"--model.num_steps={args.sweeps}",
        "--model.optimizer=SGD", f"--model.optimizer.lr={args.rate}", "--model.warmup_iterations=0",
        "--model.cooldown=0", "--trainer.max_steps=100000", f"--trainer.log_every_n_steps={EVERY}",
        f"--stop.pearson={args.target}", f"--stop.every={EVERY}", "--evaluation.every=0", "--evaluation.num_chains=2",
        "--evaluation.final_temperatures=2", "--num_threads=1",
    ]  # fmt: skip
    found = trained(command, lambda: our_pearson(run), args)
    if (run / "last.ckpt").is_file():
        found["site updates a second"] = our_speed(run, args.chains)
        found["statistics"] = statistics(args.family, our_chains(run))
    return found


def theirs(other: str, rate: float, args: argparse.Namespace) -> dict[str, object]:
    """The same of the other program."""
    folder = args.out / f"theirs_{rate:g}"
    command = [
        other, "train", "-d", str(args.family), "-o", str(folder), "--nchains", str(args.chains), "--lr", str(rate),
        "--target", str(args.target), "--sampler", "gibbs", "--checkpoint-interval", str(EVERY), "--device", "cpu",
        "--no-progress",
    ]  # fmt: skip
    found = trained(command, lambda: their_pearson(folder), args)
    parameters, chains = (next(iter(folder.glob(f"*{name}*")), None) for name in ("params", "chains"))
    if parameters is not None and chains is not None:
        found["site updates a second"] = their_speed(other, parameters, folder, args)
        found["statistics"] = statistics(args.family, chains)
    return found


def trained(command: list[str], pearson: Callable[[], float | None], args: argparse.Namespace) -> dict[str, object]:
    """Train to the target or to the limit: seconds, whether the target was reached, and (seconds, Pearson) as it went.

    The time is that at which the target is first seen, once a second.
    """
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=one_thread(), preexec_fn=one_core)
    course: list[tuple[float, float]] = []
    used, clock, value = 0.0, 0.0, None
    while process.poll() is None:
        used, clock, value = processor_seconds(process.pid), time.monotonic() - began, pearson()
        if value is not None and (not course or course[-1][1] != round(value, 4)):
            course.append((round(used, 1), round(value, 4)))
        if used > args.seconds or (value or 0.0) >= args.target:
            break
        time.sleep(1.0)
    if (value or 0.0) < args.target:
        process.send_signal(signal.SIGINT)
    process.wait(PATIENCE)
    value = pearson()
    reached = value is not None and value >= args.target
    return {
        "reached": reached, "seconds of the processor": round(used, 1), "seconds of the clock": round(clock, 1),
        "its own Pearson": value, "course": course,
    }  # fmt: skip


def our_pearson(run: Path) -> float | None:
    """The last that the run has logged; None where there is none yet."""
    found = [
        float(row["train/pearson"])
        for file in run.glob("metrics/**/metrics.csv")
        for row in csv.DictReader(file.open())
        if row.get("train/pearson")
    ]
    return found[-1] if found else None


def their_pearson(folder: Path) -> float | None:
    """That of the last row of its log."""
    columns: list[str] = []
    value = None
    for file in folder.glob("*.log"):
        for words in map(str.split, file.read_text().splitlines()):
            if "Pearson" in words:
                columns = words
            elif columns and words and words[0].isdigit() and len(words) == len(columns):
                value = float(words[columns.index("Pearson")])
    return value


def their_speed(other: str, parameters: Path, folder: Path, args: argparse.Namespace) -> float:
    """From two samplings of different length, so that start and reading drop out."""
    used = []
    for sweeps in (FEW_SWEEPS, MANY_SWEEPS):
        before = os.times()
        command = [
            other, "sample", "-p", str(parameters), "--ngen", str(args.chains), "--device", "cpu", "--sampler", "gibbs",
            "-o", str(folder / f"sampled{sweeps}"), "--max_nsweeps", str(sweeps),
        ]  # fmt: skip
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=one_thread(), preexec_fn=one_core)
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return (MANY_SWEEPS - FEW_SWEEPS) * num_sites(args.family) * args.chains / (used[1] - used[0])


def our_speed(run: Path, num_chains: int) -> float:
    """Site updates a second of block Gibbs, every site once a sweep, on the run's last weights."""
    import torch

    from gwg_dist.runs import load_run
    from gwg_dist.samplers import BlockGibbs, run_chain
    from gwg_dist.tools.seeding import make_generator

    torch.set_num_threads(1)
    module = load_run(run, "last", device="cpu").module
    generator = make_generator(0, "speed")
    x = module.space.encode(module.reference.sample(num_chains, generator=generator))
    used = []
    for sweeps in (FEW_SWEEPS, MANY_SWEEPS):
        began = time.process_time()
        run_chain(BlockGibbs(), module.target, x, num_steps=sweeps, generator=generator)
        used.append(time.process_time() - began)
    return (MANY_SWEEPS - FEW_SWEEPS) * module.space.num_sites * num_chains / (used[1] - used[0])


def our_chains(run: Path) -> Path:
    """The run's last chains as FASTA."""
    from gwg_dist.runs import load_run

    loaded = load_run(run, "last", device="cpu")
    module = loaded.module
    codes = module.space.unpack(module.chains.of_model(loaded.checkpoint["chains"]["packed"]))
    path = run / "chains.fasta"
    loaded.data.write_file(path, codes, [f"chain {number}" for number in range(len(codes))])
    return path


def statistics(family: Path, chains: Path) -> dict[str, dict[str, float]]:
    """Pearson's correlation and slope of one, two and three sites, chains beside the weighted sequences of the file."""
    import torch

    from gwg_dist.data import Alignment
    from gwg_dist.evaluation.family import compare_family
    from gwg_dist.training.family import statistics_by_name

    data = Alignment(str(family), split="rows", held_out=0.001)
    data.setup("fit")
    points, weights = data.splits.parts["train"]
    codes, _ = data.encode_file(chains)
    codes = codes.to(points.dtype)
    found = compare_family(points, codes, torch.zeros_like(points[:0]), data.space.num_categories, weights=weights)
    return {name: both.agreement._asdict() for name, both in statistics_by_name(found).items()}


def num_sites(family: Path) -> int:
    """Columns of the alignment."""
    from gwg_dist.data.sequences import read_sequences

    return len(read_sequences(family).strings[0])


def processor_seconds(pid: int) -> float:
    """User and system time of a process, seconds."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_core() -> None:
    """Pin this process to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def one_thread() -> dict[str, str]:
    """One thread for both, whatever library counts them."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


if __name__ == "__main__":
    main()
