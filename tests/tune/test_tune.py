"""Sweeps: mistakes are one line, bad trials stop early, what is killed goes on, weights move between trials."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gwg_dist import fit
from gwg_dist.tools.commands import AGAIN
from gwg_dist.training.settings import build_parser
from gwg_dist.tune import cli as tune_cli
from gwg_dist.tune.records import LOG, Trial, TrialEvaluation, read_trials, trial_folder
from gwg_dist.tune.space import parse_space
from tests.conftest import ROOT
from tests.support import runs, slurm
from tests.support.runs import fails

pytest.importorskip("ray", reason="sweeps need Ray: pip install 'gwg-dist[tune]'")

RATE = "model.learning_rate"
SMALL = {key[2:]: yaml.safe_load(value) for key, value in (arg.split("=", 1) for arg in runs.SMALL)}
FIXED = {key: value for key, value in SMALL.items() if key != RATE} | {
    "model.energy.num_hidden": 32, "model.energy.scale": 0.1, "model.num_steps": 5, "ema.decay": 0.9,
    "data.batch_size": 100,
    "evaluation.num_chains": 40, "evaluation.num_temperatures": 150, "evaluation.final_temperatures": 60,
    "trainer.max_steps": 160, "evaluation.every": 40, "pictures_every": 0,
}  # fmt: skip
GOOD: dict[str, Any] = {
    "metric": "val/log_likelihood", "space": {RATE: {"log_uniform": [1e-5, 1e-2]}}, "settings": FIXED, "num_trials": 8,
}  # fmt: skip


def written(path: Path, **changes: Any) -> Path:
    """A sweep file."""
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


def sweep(tmp: Path, *more: str, code: int = 0, timeout: float = 280, **changes: Any) -> Path:
    """Run a sweep to its end in a process of its own; returns its folder."""
    folder, log = tmp / "sweep", tmp / "sweep.log"
    args = ["--config", str(written(tmp / "sweep.yaml", **changes)), f"--sweep_dir={folder}", *more]
    found = runs.run("gwg_dist.tune", args, log, timeout=timeout)
    assert found == code, log.read_text()
    return folder


def slower(num_steps: int) -> dict[str, Any]:
    """Settings that make a trial last: more steps an iteration."""
    return {**FIXED, "model.num_steps": num_steps}


def iterations(folder: Path) -> list[int]:
    """Of a trial's reports."""
    return [json.loads(line)["iteration"] for line in (folder / "reports.jsonl").read_text().splitlines()]


def processes(root: int) -> dict[int, str]:
    """The living processes below ``root`` with their names, by number."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            number = int(path.name)
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[number] = int(parent)
                names[number] = (path / "cmdline").read_text().replace("\0", " ").strip()
    below, new = set(), {root}
    while new:
        below |= new
        new = {number for number, parent in parents.items() if parent in below} - below
    return {number: names[number] for number in below if number in names and number != root}


def wait_for(condition: Any, process: subprocess.Popen, log: Path, seconds: float = 200) -> None:
    """Until the condition holds; fails where the process ends first."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@contextlib.contextmanager
def started(args: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A sweep in the background; it and the processes it started are gone afterwards."""
    process = runs.start("gwg_dist.tune", args, log)
    ours: dict[int, str] = {}
    try:
        yield process
        ours = processes(process.pid)
    finally:
        ours |= processes(process.pid)
        if process.poll() is None:
            process.kill()
            process.wait()
        end_all(ours)


def end_all(ours: dict[int, str], patience: float = 20) -> None:
    """Ray's processes go when their driver has gone; what stays is killed by its number."""
    end = time.monotonic() + patience
    while time.monotonic() < end and any(alive(number, name) for number, name in ours.items()):
        time.sleep(0.2)
    for number, name in ours.items():
        if alive(number, name):
            os.kill(number, signal.SIGKILL)


def alive(number: int, name: str) -> bool:
    """Whether it is there and still the process it was; Ray renames workers, but keeps the word ray."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ").strip()
        return command == name or (command.startswith("ray::") and "ray" in name)
    return False


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "args", "expected"),
    [
        ({"metric": ""}, [], "metric: say what to compare trials by, there is no default"),
        ({"metric": "test/log_likelihood"}, [], "metric: test/log_likelihood would choose settings by the test set"),
        ({"metric": "val/likelihood"}, [], "metric must be one of val/log_likelihood"),
        ({"schedular": "asha"}, [], "'schedular' is not accepted (did you mean scheduler?)"),
        ({}, ["--schedular=asha"], "--schedular=asha (did you mean scheduler?)"),
        ({"scheduler": "hyperband"}, [], "scheduler must be one of asha, pbt, none, got 'hyperband'"),
        ({"search": "bayes"}, [], "search must be one of random, grid, optuna, got 'bayes'"),
        ({"mode": "up"}, [], "mode must be one of max, min, got 'up'"),
        ({"num_trials": "many"}, [], 'key "num_trials": Expected a int. Got value: many'),
        ({"num_trials": -1}, [], "num_trials must be at least 0, got -1"),
        ({"workers": 0}, [], "workers must be at least 1, got 0"),
        ({"reduction_factor": 1}, [], "reduction_factor must be at least 2, got 1"),
        ({"cpus": 0}, [], "cpus must be at least 0.1, got 0"),
        ({"grace_iterations": 160}, [], "grace_iterations must lie in evaluation.every (40) to below"),
        ({"experiment": "none.yaml"}, [], "experiment: there is no file none.yaml"),
        ({"space": {}}, [], "space: name at least one setting to vary"),
        ({"space": {"model.learning_rat": {"uniform": [1, 2]}}}, [], "(did you mean model.learning_rate?)"),
        ({"space": {RATE: {"uniform": [2, 1]}}}, [], "space: model.learning_rate: low must be below high, got 2 and 1"),
        ({"space": {RATE: {"log_uniform": [0, 1]}}}, [], "space: model.learning_rate: log_uniform needs low above 0"),
        ({"space": {RATE: {"uniform": [-1, 1]}}}, [], "learning_rate must be positive, got -1.0"),
        ({"search": "grid"}, [], "space: model.learning_rate: a grid needs points: n beside log_uniform"),
        ({"settings": {"model.num_step": 3}}, [], "(did you mean model.num_steps?)"),
        ({"settings": {"run_dir": "x"}}, [], "settings: run_dir is set by the sweep: see sweep_dir"),
        ({}, ["--", "model.num_steps=3"], "data: there is no file model.num_steps=3"),
        ({}, ["--", "-x=3"], "after -- come settings of gwg_dist.fit, --key=value, got"),
        ({"scheduler": "pbt", "search": "optuna"}, [], "search must be random with scheduler pbt"),
        ({"scheduler": "pbt", "space": {"model.smoothing": {"choice": [0.1]}}}, [], "model.smoothing cannot change"),
        ({}, ["--resume=none"], "none/sweep.yaml"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_ray(
    changes: dict, args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import ray

    def no_ray(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray was started")

    path = written(tmp_path / "sweep.yaml", **changes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", no_ray)
    assert expected in fails(tune_cli.main, [f"--config={path}", *args], capsys)
    assert list(tmp_path.iterdir()) == [path], "nothing is written for a mistake"


def test_a_sweep_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.yaml")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**GOOD, "seed": 1}))
    assert "already holds a sweep" in fails(tune_cli.main, [f"--config={path}", f"--sweep_dir={tmp_path}"], capsys)
    message = fails(tune_cli.main, [f"--resume={tmp_path}", "--seed=2"], capsys)
    assert "seed: a resumed sweep keeps it: 1 there, 2 now" in message


def test_without_ray_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = fails(
        tune_cli.main, [f"--config={written(tmp_path / 'a.yaml')}", f"--sweep_dir={tmp_path / 'x'}"], capsys
    )
    assert message.startswith("error: sweeps need Ray")
    assert message.endswith("pip install 'gwg-dist[tune]'")
    with pytest.raises(SystemExit) as exit_info:
        tune_cli.main(["--help"])
    assert exit_info.value.code == 0


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_would_start(path: Path) -> None:
    from gwg_dist.tune.recipe import Recipe
    from gwg_dist.tune.space import parse_space

    values = yaml.safe_load(path.read_text())
    ours = tune_cli.Sweep(**values)
    tune_cli.check(ours)
    recipe = Recipe(None if ours.experiment is None else ROOT / ours.experiment, ours.settings, parse_space(ours.space))
    base = recipe.check(ours.metric)
    tune_cli.check_grace(ours, base.evaluation.every, base.trainer.max_steps)
    if ours.scheduler == "pbt":
        recipe.check_mutable()


# -- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of eight trials by successive halving."""
    return sweep(tmp_path_factory.mktemp("asha"))


@pytest.mark.slow
def test_halving_finds_a_good_rate_and_stops_bad_ones(halved: Path) -> None:
    """A rate of 1e-5 learns nothing in 160 iterations; the best trial must be 1.5 nats better than the worst."""
    trials = read_trials(halved)
    assert len(trials) == 8
    values = {trial.number: best.value for trial in trials if (best := trial.best("max")) and best.value is not None}
    assert max(values.values()) - min(values.values()) > 1.5
    states = {trial.number: trial.state for trial in trials}
    assert set(states.values()) == {"stopped", "finished"}
    assert all(trial.iteration == 160 for trial in trials if trial.state == "finished")
    assert all(trial.iteration < 160 for trial in trials if trial.state == "stopped")
    for trial in trials:
        if trial.state == "stopped":  # it may have been the best once: it was behind another where it was stopped
            last = trial.evaluations[-1]
            rung = [e.value for other in trials for e in other.evaluations if e.iteration == last.iteration]
            assert last.value is None or max(value for value in rung if value is not None) > last.value
    best = max(values, key=lambda number: values[number])
    rates = {trial.number: trial.point[RATE] for trial in trials}
    assert rates[best] > 1e-3


@pytest.mark.slow
def test_what_a_sweep_writes(halved: Path) -> None:
    with open(halved / "results.csv") as file:
        rows = list(csv.DictReader(file))
    trials = read_trials(halved)
    assert [float(row[RATE]) for row in rows] == [trial.point[RATE] for trial in trials]
    assert [row["state"] for row in rows] == [trial.state for trial in trials]
    for row in rows:
        results = Path(row["folder"]) / "results.json"
        assert results.is_file() == (row["state"] == "finished")
        if results.is_file():
            assert float(row["final_test"]) == json.loads(results.read_text())["likelihood"]["test"]["mean"]
    assert (halved / "sweep.png").read_bytes().startswith(b"\x89PNG")
    log = (halved.parent / "sweep.log").read_text()
    assert "Traceback" not in log
    assert "ray" not in log.lower().replace(str(halved).lower(), ""), "Ray says nothing on the terminal"


@pytest.mark.slow
def test_the_best_settings_run(halved: Path, tmp_path: Path) -> None:
    """best.yaml is a config of fit: the best trial's settings, none of a trial's own."""
    best = max(read_trials(halved), key=lambda trial: max(e.value or -1e9 for e in trial.evaluations))
    config = build_parser().parse_args(["--config", str(halved / "best.yaml")])
    assert config.model.learning_rate == best.point[RATE]
    assert config.trainer.enable_progress_bar is None
    assert config.checkpoint_every == 500
    assert config.ckpt_path is None
    fit.main(["--config", str(halved / "best.yaml"), f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=2"])
    assert runs.checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 2


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """SIGKILL to the driver; resumed, it repeats no finished trial and brings all others to their end."""
    folder, log = tmp_path / "sweep", tmp_path / "log"
    path = written(
        tmp_path / "a.yaml", num_trials=3, scheduler="none", settings=slower(60), space={RATE: {"choice": [1e-3, 1e-2]}}
    )
    with started(["--config", str(path), f"--sweep_dir={folder}"], log) as process:

        def some_done_some_running() -> bool:
            """What runs is killed at the next evaluation at the latest, which waits for the driver in vain."""
            states = [(trial.state, trial.iteration) for trial in read_trials(folder)]
            return any(s == "finished" for s, _ in states) and any(s == "open" and 40 <= i <= 80 for s, i in states)

        wait_for(some_done_some_running, process, log)
        ours = processes(process.pid)
        process.kill()
        process.wait()
        agents = [pid for pid, name in ours.items() if name.startswith("ray::") and name.endswith("Agent")]
        assert len(agents) == 2
        end = time.monotonic() + 40  # left to Ray it takes a minute
        while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text() for pid in agents):
            assert time.monotonic() < end, "agents of Ray linger"
            time.sleep(0.2)
        end_all(ours)
    before = {trial.number: trial for trial in read_trials(folder)}
    finished = [trial for trial in before.values() if trial.state == "finished"]
    begun = [trial for trial in before.values() if trial.state == "open" and trial.iteration]
    assert finished
    assert begun
    times = {trial.number: (trial.folder / "last.ckpt").stat().st_mtime for trial in finished}
    texts = {trial.number: (trial.folder / LOG).read_text() for trial in finished}

    assert runs.run("gwg_dist.tune", ["--resume", str(folder)], log, timeout=280) == 0, log.read_text()
    after = {trial.number: trial for trial in read_trials(folder)}
    assert {trial.state for trial in after.values()} == {"finished"}
    assert sorted(after) == [0, 1, 2]
    assert all((after[n].folder / "last.ckpt").stat().st_mtime == when for n, when in times.items())
    assert all((after[n].folder / LOG).read_text() == text for n, text in texts.items())
    for trial in begun:
        text = (after[trial.number].folder / LOG).read_text()
        assert "going on from iteration" in text
        assert [e.iteration for e in after[trial.number].evaluations] == [40, 80, 120, 160]


@pytest.mark.slow
def test_a_killed_worker_comes_back(tmp_path: Path) -> None:
    """kill -9 of one of a trial's two processes: both start again and go on from the last checkpoint."""
    folder, log = tmp_path / "sweep", tmp_path / "log"
    path = written(tmp_path / "a.yaml", num_trials=1, workers=2, scheduler="none", settings=slower(30), max_failures=1)
    with started(["--config", str(path), f"--sweep_dir={folder}"], log) as process:
        trial = trial_folder(folder, 0)
        wait_for(lambda: (trial / "reports.jsonl").is_file() and iterations(trial)[-1] >= 40, process, log)
        workers = [number for number, name in processes(process.pid).items() if "RayTrainWorker" in name]
        assert len(workers) == 2
        os.kill(workers[-1], signal.SIGKILL)
        assert process.wait(250) == 0, log.read_text()
    assert (trial / "results.json").is_file()
    assert runs.checkpoint(trial / "last.ckpt")["global_step"] == 160
    assert runs.checkpoint(trial / "last.ckpt")["chains"]["generators"].shape[0] == 2, "two processes"
    assert (trial / LOG).read_text().count("run folder:") == 2
    assert "going on from iteration" in (trial / LOG).read_text()


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    """SIGTERM: the files are written for what there is; exit code 75."""
    folder, log = tmp_path / "sweep", tmp_path / "log"
    path = written(tmp_path / "a.yaml", num_trials=3, scheduler="none", settings=slower(60), max_concurrent=1)
    with started(["--config", str(path), f"--sweep_dir={folder}"], log) as process:
        wait_for(lambda: any(trial.iteration for trial in read_trials(folder)), process, log)
        trials = [number for number, name in processes(process.pid).items() if name.startswith("ray::ImplicitFunc")]
        assert {os.getpriority(os.PRIO_PROCESS, n) for n in [process.pid, *trials]} == {os.nice(0)}
        assert trials
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == AGAIN, log.read_text()
    assert f"go on with: python -m gwg_dist.tune --resume {folder}" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert {trial.state for trial in read_trials(folder)} == {"open"}
    assert {"results.csv", "best.yaml", "sweep.png"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_population_passes_weights_on(tmp_path: Path) -> None:
    """The worst go on from the best one's weights and reach what their own rates never would.

    Which trial meets which hangs on who is first, so one that was through before another had learned may stay behind.
    """
    folder = sweep(
        tmp_path, scheduler="pbt", num_trials=4, space={RATE: {"choice": [1e-6, 1e-2]}}, seed=3,
        settings=FIXED,
    )  # fmt: skip
    trials = read_trials(folder)
    assert {trial.state for trial in trials} == {"finished"}
    texts = {trial.number: (trial.folder / LOG).read_text() for trial in trials}
    receivers = [number for number, text in texts.items() if "took over iteration" in text]
    assert receivers
    for number in receivers:
        assert "going on from iteration" in texts[number].split("took over iteration")[1]
    results = [json.loads((trial.folder / "results.json").read_text()) for trial in trials]
    best = max(results[number]["likelihood"]["val"]["mean"] for number in receivers)
    assert best > -24.8, "a rate of 1e-6 alone stays at -25.3"


def test_a_checkpoint_that_is_taken_over_is_the_donors(tmp_path: Path) -> None:
    """Byte for byte, with its best; what was there is gone. A trial's own checkpoint, older than its folder, is not."""
    from ray.tune import Checkpoint

    from gwg_dist.tune.worker import take_over

    parcel, folder = tmp_path / "parcel", tmp_path / "trial"
    for place, name in ((parcel, b"donor"), (folder, b"own")):
        place.mkdir()
        for part in ("last.ckpt", "best.ckpt"):
            (place / part).write_bytes(name + part.encode())
    (folder / "previous.ckpt").write_bytes(b"own")
    (parcel / "origin.json").write_text('{"number": 1, "iteration": 40}')
    checkpoint: Any = Checkpoint.from_directory(parcel)
    take_over(checkpoint, folder, 1)
    assert (folder / "last.ckpt").read_bytes() == b"ownlast.ckpt"
    take_over(checkpoint, folder, 2)
    for part in ("last.ckpt", "best.ckpt"):
        assert (folder / part).read_bytes() == (parcel / part).read_bytes()
    assert not (folder / "previous.ckpt").exists()


def test_a_checkpoint_that_is_gone_leaves_the_trial_its_own(tmp_path: Path) -> None:
    """Ray deletes a donor's old checkpoints; a receiver that fails and starts again has taken it over before."""
    from ray.tune import Checkpoint

    from gwg_dist.tune.worker import take_over

    (tmp_path / "trial").mkdir()
    (tmp_path / "trial/last.ckpt").write_bytes(b"taken over before")
    checkpoint: Any = Checkpoint.from_directory(tmp_path / "gone")
    take_over(checkpoint, tmp_path / "trial", 2)
    assert (tmp_path / "trial/last.ckpt").read_bytes() == b"taken over before"


@pytest.mark.slow
def test_a_sweep_by_optuna(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = {RATE: {"log_uniform": [1e-3, 1e-2]}, "model.sampler": {"choice": ["GWG", "Gibbs"]}}
    folder = sweep(tmp_path, search="optuna", num_trials=2, space=space, settings={**FIXED, "trainer.max_steps": 80})
    trials = read_trials(folder)
    assert [trial.number for trial in trials] == [0, 1]
    assert all(1e-3 <= trial.point[RATE] <= 1e-2 for trial in trials)
    assert len({trial.point[RATE] for trial in trials}) == 2


def test_optuna_learns_from_trials_of_earlier_processes() -> None:
    """Open trials are handed out again as they were, numbers go on, and proposals crowd where trials were good."""
    pytest.importorskip("optuna")
    from gwg_dist.tune.search import Optuna

    space = parse_space({"a": {"uniform": [0.0, 1.0]}, "b": {"choice": ["x", "y"]}})
    before = [
        Trial(
            n,
            {"a": n / 40, "b": "xy"[n % 2]},
            Path(),
            state="finished",
            evaluations=[TrialEvaluation(1, -abs(n / 40 - 0.8))],
        )
        for n in range(40)
    ]
    before.append(Trial(40, {"a": 0.1, "b": "x"}, Path()))
    search = Optuna(
        space, mode="max", num_trials=60, seed=0, before=before, config=lambda number, point: {"n": number, **point}
    )
    assert search.suggest("again") == {"n": 40, "a": 0.1, "b": "x"}
    search.on_trial_complete("again", {"objective": -0.7})
    proposed = []
    while (found := search.suggest(f"t{len(proposed)}")) != search.FINISHED:
        search.on_trial_complete(f"t{len(proposed)}", {"objective": -abs(found["a"] - 0.8)})
        proposed.append(found)
    assert [point["n"] for point in proposed] == list(range(41, 60))
    assert sum(abs(point["a"] - 0.8) < 0.2 for point in proposed) >= 15, "of 19; at random it would be 8"


@pytest.mark.parametrize("value", [-10.0, -30.0, None])
def test_halving_remembers_trials_of_earlier_processes(value: float | None) -> None:
    """A trial is judged against those before a restart, by their numbers; a collapsed one is behind all."""
    from types import SimpleNamespace

    from gwg_dist.tune.schedule import Halving

    before = [Trial(n, {}, Path(), evaluations=[TrialEvaluation(10, -20.0 - n)]) for n in range(3)]
    halving = Halving(grace=10, factor=3, max_steps=100, mode="max", before=before)
    for number, report, expected in ((2, -50.0, "CONTINUE"), (3, value, "CONTINUE" if value == -10.0 else "STOP")):
        trial: Any = SimpleNamespace(trial_id="new", config={"start": {"number": number}})
        halving.on_trial_add(None, trial)
        result = {"iteration": 12, "objective": TrialEvaluation(12, report).objective("max")}
        assert halving.on_trial_result(None, trial, result) == expected, "trial 2 has passed this rung before"


def test_a_report_is_shown_with_the_settings_it_was_made_with(capsys: pytest.CaptureFixture[str]) -> None:
    """A population changes a trial's settings before Ray passes the report on that led to it."""
    from types import SimpleNamespace

    from ray.tune.experiment import Trial as RayTrial

    from gwg_dist.tune.show import Display

    def told(rate: float) -> dict[str, Any]:
        return {"start": {"number": 3, "point": {RATE: rate}, "left_out": (), "args": (), "cwd": ""}}

    plan: Any = SimpleNamespace(sweep=tune_cli.Sweep(metric="val/log_likelihood"))
    display, trial = Display(plan, stopping=lambda: False), RayTrial("name", config=told(0.1), stub=True)
    display.on_trial_start(0, [trial], trial)
    trial.config = told(0.2)
    for iteration in (10, 10, 20):
        display.on_trial_result(0, [trial], trial, TrialEvaluation(iteration, -20.0, 0.1, 5.0).to_dict())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, "what is told twice is shown once"
    assert all(line.endswith(f"{RATE}=0.1") for line in lines)


@pytest.mark.slow
def test_two_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster of two raylets of one CPU each: two trials at once; a trial of three workers is refused."""
    for name, value in (("AUTH_MODE", "disabled"), ("USAGE_STATS_ENABLED", "0"), ("worker_niceness", "0")):
        monkeypatch.setenv(f"RAY_{name}", value)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        address = f"--address={cluster.address}"
        settings = {**FIXED, "trainer.max_steps": 80}
        folder = sweep(tmp_path, address, num_trials=2, settings=settings, scheduler="none")
        assert "2 trials of 2 to run, 2 at once" in (tmp_path / "sweep.log").read_text()
        assert {trial.state for trial in read_trials(folder)} == {"finished"}
        args = [f"--config={tmp_path / 'sweep.yaml'}", f"--sweep_dir={tmp_path / 'x'}", address, "--workers=3"]
        message = fails(tune_cli.main, args, capsys)
        assert "workers: a trial takes 3 x (1 CPUs, 0 GPUs), each on one machine, but there are 2 CPUs" in message
        assert not (tmp_path / "x").exists()
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_stranger_gives_no_orders(tmp_path: Path) -> None:
    """The Ray of a sweep runs nothing for a process without its token, on whatever interface it listens."""
    stranger = tmp_path / "stranger.py"
    stranger.write_text("import ray, sys; ray.init(address=sys.argv[1], logging_level=50); print(ray.nodes())")
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import os, subprocess, sys\n"
        "from gwg_dist.tune.cluster import cluster, import_ray\n"
        "import_ray(None)\n"
        "with cluster(None, threads=1):\n"
        "    import ray\n"
        f"    command = [sys.executable, {str(stranger)!r}, ray.get_runtime_context().gcs_address]\n"
        "    for changes in ({}, {'RAY_AUTH_TOKEN': '0' * 64}, {'RAY_AUTH_MODE': 'disabled', 'RAY_AUTH_TOKEN': ''}):\n"
        "        result = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True)\n"
        "        print(result.returncode, 'ConnectionError' in result.stderr)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, str(owner)], capture_output=True, text=True, env=environment, timeout=250)
    assert result.stdout.splitlines() == ["0 False", "1 True", "1 True"], result.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(slurm.why_not() is not None, reason=slurm.why_not() or "")
def test_a_sweep_on_slurm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The job script on a real SLURM of two machines: told to stop, it queues again and goes on to the end."""
    tmp = tmp_path_factory.mktemp("slurm")
    for path in (tmp, *tmp.parents):  # munged runs as a user of its own
        if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    folder, output = tmp / "sweep", tmp / "out"
    config = written(tmp / "a.yaml", num_trials=3, scheduler="none", settings=slower(20))
    with slurm.Cluster(tmp / "cluster") as cluster:
        cluster.environment["SWEEP"] = str(folder)
        job = cluster.ask(
            "sbatch", "--parsable", "--nodes=2", "--gres=none", "--cpus-per-task=1", f"--output={output}",
            str(ROOT / "launch/ray/sweep.sbatch"), "--config", str(config),
        ).strip()  # fmt: skip
        cluster.wait(lambda: any(trial.iteration for trial in read_trials(folder)), "a report", 240)
        cluster.ask("scancel", "--batch", "--signal=TERM", job)
        cluster.wait(lambda: cluster.shown(job, "Restarts") == "1", "it is queued again", 60)
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        cluster.wait(lambda: cluster.state(job) in ends, "the job ends", 200)
        assert cluster.state(job) == "COMPLETED", output.read_text()
    assert "2 at once" in output.read_text(), "one on each machine"
    assert {trial.state for trial in read_trials(folder)} == {"finished"}
    assert any("going on from iteration" in (trial.folder / LOG).read_text() for trial in read_trials(folder))


def test_a_process_that_waits_for_workers_imports_nothing_that_trains() -> None:
    code = "import sys, gwg_dist.tune.trial; print([m for m in ('torch', 'lightning', 'sklearn') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_workers_need_a_whole_slot_on_one_machine() -> None:
    """Three machines of 3 CPUs have three slots of 2 CPUs, not four; GPUs bound as well."""
    from gwg_dist.tools.errors import InputError
    from gwg_dist.tune.cluster import check_fits

    machines = [{"CPU": 3.0, "GPU": 1.0}] * 3
    assert check_fits(machines, workers=1, cpus=2, gpus=0) == 3
    assert check_fits(machines, workers=3, cpus=2, gpus=0) == 1
    assert check_fits(machines, workers=1, cpus=1, gpus=0.5) == 6
    for more, name in (({"workers": 4}, "workers"), ({"cpus": 4}, "cpus"), ({"gpus": 2}, "gpus")):
        with pytest.raises(InputError, match=f"^{name}: a trial takes"):
            check_fits(machines, **({"workers": 1, "cpus": 2, "gpus": 0} | more))
