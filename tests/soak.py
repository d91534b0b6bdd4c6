"""Kill a run over two processes with kill -9, again and again: it ends bit for bit like an undisturbed one.

python -m tests.soak --kills 60
Kills hit both processes, or only rank 0, or only rank 1, at random moments from the start of the program to its closing
report; the moment's phase is counted. A run that ends before the kills are used up is compared, and another begins.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.runs import STATES, checkpoint, command, differing, run, start

SETTINGS = [
    "--trainer.strategy=ddp", "--trainer.devices=2", "--evaluation.every=40",
    "--evaluation.num_temperatures=300", "--evaluation.final_temperatures=2000", "--checkpoint_every=5",
    "--pictures_every=0", "--trainer.callbacks=tests.plugins.Watched",
]  # fmt: skip
STEPS = 1500
COMPARED = ("last.ckpt", "best.ckpt")


def phase(folder: Path) -> str:
    path = folder / "phase.0"
    return path.read_text().strip() if path.exists() else ""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def kill_once(folder: Path, log: Path, settings: list[str], chance: random.Random) -> tuple[str, str] | None:
    """Go on with the run and kill it; the phase it was in and who was killed, or None where it ended before."""
    for path in [*folder.glob("phase.*"), *folder.glob("pid.*")]:
        path.unlink()
    process = start("gwg_dist.fit", command(folder, "--ckpt_path=last", *settings), log)
    in_start_up = chance.random() < 0.1
    delay = chance.uniform(0, 8) if in_start_up else chance.uniform(0, 4)
    while not in_start_up and not phase(folder) and process.poll() is None:
        time.sleep(0.002)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    moment = phase(folder) or "start-up"
    texts = [path.read_text() for path in sorted(folder.glob("pid.*"))]
    pids = [int(text) for text in texts if text]
    whom = chance.choice(["both", "rank 0", "rank 1"]) if len(pids) == 2 else "both"
    if process.poll() is not None:
        if process.returncode != 0:
            raise SystemExit(f"the run failed by itself, exit code {process.returncode}: see {log}")
        return None
    if whom == "both":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(pids[int(whom[-1])], signal.SIGKILL)
    if process.wait(60) == 0 and not (folder / "results.json").exists():
        raise SystemExit(f"a killed run said that it had ended well: see {log}")
    deadline = time.monotonic() + 60
    while not all(map(gone, pids)):
        if time.monotonic() > deadline:
            raise SystemExit(f"{whom} was killed in {moment}, and the other process lives on: {pids}")
        time.sleep(0.05)
    return moment, whom


def soak(kills: int, seed: int, work: Path, *, steps: int = STEPS) -> None:
    """Raises SystemExit at the first difference."""
    settings = [*SETTINGS, f"--trainer.max_steps={steps}"]
    chance = random.Random(seed)
    work.mkdir(parents=True, exist_ok=True)
    calm = work / "calm"
    began = time.monotonic()
    if run("gwg_dist.fit", command(calm, *settings), work / "calm.log", timeout=900):
        raise SystemExit(f"the undisturbed run failed: see {work}/calm.log")
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    counts: Counter[tuple[str, str]] = Counter()
    done = number = 0
    while done < kills:
        number += 1
        folder, log = work / f"run{number}", work / f"run{number}.log"
        ended = False
        while not ended and done < kills:
            killed = kill_once(folder, log, settings, chance)
            ended = killed is None
            if killed is not None:
                counts[killed] += 1
                done += 1
                last = folder / "last.ckpt"
                step = checkpoint(last)["global_step"] if last.exists() else 0
                print(f"kill {done}: {killed[1]} in {killed[0]}, iteration {step}", flush=True)
        if not ended and run("gwg_dist.fit", command(folder, "--ckpt_path=last", *settings), log, timeout=900):
            raise SystemExit(f"resuming failed: see {log}")
        for name in COMPARED:
            one, other = checkpoint(folder / name), checkpoint(calm / name)
            found = [d for key in STATES for d in differing(one[key], other[key], key)]
            if found or one["global_step"] != other["global_step"]:
                raise SystemExit(f"{folder / name} differs from the undisturbed run's: {found}")
        print(f"run {number} ended bit for bit like the undisturbed one", flush=True)
    for (moment, whom), count in sorted(counts.items()):
        print(f"{count:4d}  {whom} killed in {moment}")
    print(f"{done} kills, {number} run(s), {time.monotonic() - began:.0f} s: no difference")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, default=None, help="a folder to keep; a temporary one otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(arguments.kills, arguments.seed, arguments.work or Path(folder))
