"""A real SLURM of two machines: the project's own job script, and everything that may befall a job."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gwg_dist import launch
from tests.support import slurm
from tests.support.runs import SMALL, assert_same_state, checkpoint, command, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(slurm.why_not() is not None, reason=slurm.why_not() or ""),
]
STEPS = 120
SETTINGS = [
    f"--trainer.max_steps={STEPS}", "--evaluation.every=50", "--pictures_every=0", "--checkpoint_every=10",
    "--trainer.callbacks=tests.plugins.Watched",
]  # fmt: skip
UNEVEN = "--trainer.callbacks.seconds=0.1"  # an iteration of rank 1 takes so much longer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents):  # munged runs as a user of its own
        if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    with slurm.Cluster(folder / "cluster") as started:
        yield started


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with two processes that fit starts by itself, undisturbed."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    log = folder.with_suffix(".log")
    assert run("gwg_dist.fit", command(folder, *SETTINGS, "--trainer.devices=2"), log) == 0, log.read_text()
    return folder


def submit(cluster: slurm.Cluster, folder: Path, *options: str, fit: tuple[str, ...] = (UNEVEN,)) -> str:
    """Two machines, a process on each; the number of the job."""
    args = ["--submit=false", "--gpus=0", "--cpus=1", *options, "--", *SMALL, *SETTINGS, *fit, f"--run_dir={folder}"]
    launch.main(args)
    return cluster.ask("sbatch", "--parsable", str(folder / "job.sbatch")).strip()


def step(folder: Path) -> int:
    last = folder / "last.ckpt"
    return checkpoint(last)["global_step"] if last.exists() else 0


def is_complete(cluster: slurm.Cluster, job: str, folder: Path, calm: Path, *, restarts: int) -> None:
    """Waits for the end: complete, by as many starts as it took, and what it would be without them."""
    output = folder / f"slurm-{job}.out"
    cluster.wait(lambda: cluster.state(job) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), "the job ends", 240)
    printed = output.read_text()
    assert cluster.state(job) == "COMPLETED", printed[-3000:]
    assert int(cluster.shown(job, "Restarts")) >= restarts
    assert len(re.findall(r"going on from iteration [1-9]", printed)) >= restarts, printed[-3000:]
    assert (folder / "results.json").exists()
    assert step(folder) == STEPS
    assert_same_state(folder / "last.ckpt", calm / "last.ckpt")


def wait_until_it_trains(cluster: slurm.Cluster, job: str, folder: Path) -> None:
    cluster.wait(lambda: step(folder) >= 10 or (cluster.state(job) != "RUNNING" and step(folder)), "a checkpoint")
    assert cluster.state(job) == "RUNNING", (folder / f"slurm-{job}.out").read_text()


def test_two_machines(cluster: slurm.Cluster, calm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = submit(cluster, folder, "--nodes=2", fit=())
    is_complete(cluster, job, folder, calm, restarts=0)
    assert cluster.shown(job, "NumNodes") == "2"
    assert (folder / "pid.1").exists()


def test_requeued_by_hand(cluster: slurm.Cluster, calm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = submit(cluster, folder, "--nodes=2")
    wait_until_it_trains(cluster, job, folder)
    cluster.ask("scontrol", "requeue", job)
    is_complete(cluster, job, folder, calm, restarts=1)


def test_told_to_stop(cluster: slurm.Cluster, calm: Path, tmp_path: Path) -> None:
    """The signal that comes before the time limit: nothing is lost, the job queues again by itself."""
    folder = tmp_path / "run"
    job = submit(cluster, folder, "--nodes=2")
    wait_until_it_trains(cluster, job, folder)
    cluster.ask("scancel", "--signal=USR1", job)
    cluster.wait(lambda: cluster.shown(job, "Restarts") == "1", "it is requeued", 60)
    stopped = re.findall(r"stopped at iteration (\d+)", (folder / f"slurm-{job}.out").read_text())
    is_complete(cluster, job, folder, calm, restarts=1)
    assert f"going on from iteration {stopped[0]}\n" in (folder / f"slurm-{job}.out").read_text()


def test_the_time_limit(cluster: slurm.Cluster, calm: Path, tmp_path: Path) -> None:
    """A minute is too short for 120 iterations of half a second and more: it takes two starts at least."""
    folder = tmp_path / "run"
    job = submit(
        cluster, folder, "--nodes=2", "--time=00:01:00", "--warning=1", fit=("--trainer.callbacks.seconds=0.5",)
    )
    is_complete(cluster, job, folder, calm, restarts=1)


def test_preempted(cluster: slurm.Cluster, calm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = submit(cluster, folder, "--nodes=2", "--partition=low")
    wait_until_it_trains(cluster, job, folder)
    urgent = cluster.ask(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"
    ).strip()
    cluster.wait(lambda: cluster.state(urgent) == "COMPLETED", "the urgent job has run", 90)
    is_complete(cluster, job, folder, calm, restarts=1)


def test_a_machine_fails(cluster: slurm.Cluster, calm: Path, tmp_path: Path) -> None:
    """The second machine's daemon, the keeper of its task and the task are killed; it comes back later."""
    folder = tmp_path / "run"
    job = submit(cluster, folder, "--nodes=2")
    wait_until_it_trains(cluster, job, folder)
    cluster.daemons["n2"].kill()
    cluster.daemons["n2"].wait()
    task = int((folder / "pid.1").read_text())
    keeper = int(Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    os.kill(task, signal.SIGKILL)
    cluster.wait(lambda: cluster.shown(job, "Restarts") == "1", "it is queued again", 120)
    cluster.start("n2", "slurmd", "-D", "-N", "n2")
    is_complete(cluster, job, folder, calm, restarts=1)


def test_an_array_of_seeds(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """Three runs, one of them requeued; each has its own seed and folder."""
    folder = tmp_path / "runs"
    job = submit(cluster, folder, "--seeds=0-2", fit=("--trainer.callbacks.seconds=0",))
    cluster.wait(lambda: step(folder / "seed-1") >= 10, "a checkpoint of seed 1")
    cluster.ask("scontrol", "requeue", f"{job}_1", check=False)
    cluster.wait(lambda: not cluster.ask("squeue", "-h", "-j", job, check=False).strip(), "the array ends", 240)
    weights = []
    for seed in range(3):
        assert step(folder / f"seed-{seed}") == STEPS
        assert (folder / f"seed-{seed}/results.json").exists()
        last = checkpoint(folder / f"seed-{seed}/last.ckpt")
        assert last["gwg_dist"]["seed"] == seed
        weights.append(last["state_dict"]["energy.weight"].sum())
    assert len(set(map(float, weights))) == 3


def test_cancelled_stays_away(cluster: slurm.Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = submit(cluster, folder, "--nodes=2")
    wait_until_it_trains(cluster, job, folder)
    cluster.ask("scancel", job)
    cluster.wait(lambda: cluster.state(job) == "CANCELLED", "it is cancelled", 60)
    time.sleep(5)
    assert cluster.state(job) == "CANCELLED"
    assert cluster.shown(job, "Restarts") == "0"


@pytest.mark.parametrize(
    ("tasks", "fit", "expected"),
    [
        (["--ntasks-per-node=1"], "--trainer.devices=2", "trainer.devices is 2, but the launcher started 1 processes"),
        (["--ntasks=2"], "--trainer.max_steps=5", "give --ntasks-per-node"),
        (["--ntasks-per-node=1"], "--model.nm_steps=5", "did you mean model.num_steps?"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tasks: list[str], fit: str, expected: str, cluster: slurm.Cluster, tmp_path: Path
) -> None:
    """On both machines the same mistake: rank 0 says it, all end."""
    script, output = tmp_path / "job", tmp_path / "out"
    script.write_text(f"#!/bin/bash\nsrun python -m gwg_dist.fit {' '.join(command(tmp_path / 'run', fit))}\n")
    job = cluster.ask("sbatch", "--parsable", "--nodes=2", *tasks, f"--output={output}", str(script)).strip()
    cluster.wait(lambda: cluster.state(job) == "FAILED", "it fails", 60)
    errors = [line for line in output.read_text().splitlines() if line.startswith("error:")]
    assert len(errors) == 1, output.read_text()
    assert expected in errors[0]
    assert "Traceback" not in output.read_text()
    assert cluster.shown(job, "ExitCode") == "2:0"


def test_a_setup_that_fails_says_so_in_a_folder_with_a_percent(cluster: slurm.Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "50% of %j"
    job = submit(cluster, folder, "--setup=cd /nowhere")
    cluster.wait(lambda: cluster.state(job) == "FAILED", "the job has failed")
    assert cluster.shown(job, "ExitCode") == "2:0"
    assert "setup: exit code 1 of: cd /nowhere" in (folder / f"slurm-{job}.out").read_text()
    assert not (folder / "last.ckpt").exists()
