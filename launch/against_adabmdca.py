"""Time to a Pearson of .95 and sampling speed of a Potts model: gwg_dist beside adabmDCA, on one file and machine.

python launch/against_adabmdca.py family.fasta --other /path/to/venv/bin/adabmDCA --chains 2000 --out against

adabmDCA (1.0.0, from the package registry; Rosset et al., 2025) wants a virtual environment of its own. Without it the
script says so and ends. Both train on the same sequences with weights at 80 % identity until the connected two-site
correlations of the chains reach the target, on one thread of the CPU; then each samples its own model. Times are those
of whole processes, so that reading the file counts on both sides; the closing estimate of the likelihood, which
adabmDCA does not make, does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REACHED = "connected correlations of the chains have Pearson"
FEW_SWEEPS, MANY_SWEEPS = 20, 220
MAX_BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path, help="alignment as FASTA")
    parser.add_argument("--other", default="adabmDCA", help="its command")
    parser.add_argument("--chains", type=int, default=2000, help="chains of both")
    parser.add_argument("--target", type=float, default=0.95, help="Pearson's correlation")
    parser.add_argument("--seconds", type=float, default=3600.0, help="limit of each training")
    parser.add_argument("--out", type=Path, default=Path("against_adabmdca"), help="folder for models and numbers")
    args = parser.parse_args()
    other = shutil.which(args.other)
    if other is None:
        print(f"skipped: there is no command {args.other} (pip install adabmDCA==1.0.0, in an environment of its own)")
        return
    args.out.mkdir(parents=True)
    found = {"chains": args.chains, "target": args.target, "family": args.family.name}
    found["adabmDCA"] = theirs(other, args)
    found["gwg_dist"] = ours(args)
    (args.out / "against.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def ours(args: argparse.Namespace) -> dict[str, float | None]:
    """Seconds to the target, and site updates a second of our own model's chains."""
    run = args.out / "ours"
    command = [
        sys.executable, "-m", "gwg_dist.fit", str(args.family), f"--run_dir={run}", "--data.split=rows",
        f"--data.batch_size={min(args.chains, MAX_BATCH)}", "--model.energy=PottsEnergy", "--model.sampler=BlockGibbs",
        f"--model.chains.size={args.chains}", "--model.num_steps=2", "--model.learning_rate=0.01",
        "--model.warmup_iterations=0", "--model.cooldown=0", "--model.weight_decay=0", "--trainer.max_steps=100000",
        f"--stop.pearson={args.target}", "--stop.every=25", "--evaluation.every=0", "--evaluation.num_chains=100",
        "--evaluation.final_temperatures=500", "--num_threads=1",
    ]  # fmt: skip
    seconds = seconds_until(command, REACHED, args.seconds)
    return {"seconds to the target": seconds, "site updates a second": our_speed(run, args.chains)}


def theirs(other: str, args: argparse.Namespace) -> dict[str, float | None]:
    """The same of the other program, whose process ends at the target."""
    folder = args.out / "theirs"
    seconds = seconds_of([
        other, "train", "-d", str(args.family), "-o", str(folder), "--nchains", str(args.chains), "--target",
        str(args.target), "--device", "cpu", "--no-progress",
    ], args.seconds)  # fmt: skip
    parameters = next(iter(folder.glob("*params*.dat*")), None)
    return {"seconds to the target": seconds, "site updates a second": their_speed(other, parameters, args)}


def seconds_until(command: list[str], text: str, limit: float) -> float | None:
    """Seconds until a process prints ``text``; None where it does not within the limit. It is left to end."""
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=one_thread())
    assert process.stderr is not None
    found = None
    for line in process.stderr:
        if text in line:
            found = time.monotonic() - began
        elif found is None and time.monotonic() - began > limit:
            process.terminate()
    process.wait()
    return found


def seconds_of(command: list[str], limit: float) -> float | None:
    """Seconds of a process; None where it takes longer than the limit, or fails."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=limit, check=False, env=one_thread())
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - began if done.returncode == 0 else None


def their_speed(other: str, parameters: Path | None, args: argparse.Namespace) -> float | None:
    """From two samplings of different length, so that start and reading drop out."""
    if parameters is None:
        return None
    command = [other, "sample", "-p", str(parameters), "--ngen", str(args.chains), "--device", "cpu"]
    few, many = (
        seconds_of([*command, "-o", str(args.out / f"sampled{num}"), "--max_nsweeps", str(num)], args.seconds)
        for num in (FEW_SWEEPS, MANY_SWEEPS)
    )
    if few is None or many is None:
        return None
    return (MANY_SWEEPS - FEW_SWEEPS) * num_sites(args.family) * args.chains / (many - few)


def our_speed(run: Path, num_chains: int) -> float | None:
    """Site updates a second of block Gibbs, every site once a sweep, on the run's last weights."""
    from gwg_dist.runs import load_run
    from gwg_dist.samplers import BlockGibbs, run_chain
    from gwg_dist.tools.seeding import make_generator

    if not (run / "last.ckpt").is_file():
        return None
    module = load_run(run, "last", device="cpu").module
    generator = make_generator(0, "speed")
    x = module.space.encode(module.reference.sample(num_chains, generator=generator))
    seconds = []
    for sweeps in (FEW_SWEEPS, MANY_SWEEPS):
        began = time.perf_counter()
        run_chain(BlockGibbs(), module.target, x, num_steps=sweeps, generator=generator)
        seconds.append(time.perf_counter() - began)
    return (MANY_SWEEPS - FEW_SWEEPS) * module.space.num_sites * num_chains / (seconds[1] - seconds[0])


def num_sites(family: Path) -> int:
    """Columns of the alignment."""
    from gwg_dist.data.sequences import read_sequences

    return len(read_sequences(family).strings[0])


def one_thread() -> dict[str, str]:
    """One thread for both, whatever library counts them."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


if __name__ == "__main__":
    main()
