"""A run from its beginning to its end: files, resuming, being killed, diverging."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gwg_dist import evaluate, fit, sample
from gwg_dist.data import Digits
from gwg_dist.runs import estimate_log_z
from gwg_dist.training.loading import load_run
from tests.support.runs import assert_same_state, checkpoint, command, fails, run, run_fit, start


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of 30 iterations."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return run_fit(
        folder, "--trainer.max_steps=30", "--checkpoint_every=10", "--evaluation.every=10", "--pictures_every=10"
    )


def test_a_run_leaves_everything_in_its_folder(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["unit"] == "nats"
    assert "optimistic" in results["note"]
    assert -100 < results["likelihood"]["test"]["mean"] < 0
    assert results["likelihood"]["test"]["num"] == 360
    assert results["ais"]["num_chains"] == 10
    assert abs(results["reference"]["test"] + 25.57) < 0.1
    for name in ("config.yaml", "last.ckpt", "best.ckpt", "samples.png", "samples/0000030.png"):
        assert (finished / name).stat().st_size > 0, name
    (events,) = (finished / "tensorboard").glob("events*")
    assert b"chains" in events.read_bytes(), "TensorBoard has no picture of the chains"
    header, *rows = (finished / "metrics/from_0000000/metrics.csv").read_text().splitlines()
    assert "val/log_likelihood" in header
    assert len(rows) >= 3
    assert np.asarray(Image.open(finished / "samples.png")).std() > 0


def test_checkpoints_are_plain_and_small(finished: Path) -> None:
    last = checkpoint(finished / "last.ckpt")
    assert last["global_step"] == 30
    assert last["chains"]["packed"].shape == (150, 8)
    assert last["chains"]["packed"].dtype == torch.uint8
    assert not list(finished.glob("*.tmp"))


def test_evaluate_and_sample(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(finished), "--num_chains=20", "--num_temperatures=30"])
    printed = capsys.readouterr().err
    assert "optimistic" in printed
    values = json.loads(next((finished / "evaluation").glob("best-*-20x30-linear.json")).read_text())
    assert values["ais"]["num_temperatures"] == 30
    sample.main([str(finished), "--num=9", "--num_steps=5", f"--out={finished}/nine.npz"])
    x = np.load(finished / "nine.npz")["x"]
    assert x.shape == (9, 8, 8)
    assert set(np.unique(x)) == {0, 1}
    assert (finished / "nine.png").is_file()


def test_evaluation_reads_the_averaged_weights(finished: Path) -> None:
    last = checkpoint(finished / "last.ckpt")
    loaded = load_run(finished, "last", device="cpu")
    weight = loaded.module.energy.state_dict()["weight"]
    assert torch.equal(weight, last["state_dict"]["energy.weight"])
    assert not torch.equal(weight, last["current_model_state"]["energy.weight"])


def test_resuming_changes_nothing(finished: Path, tmp_path: Path) -> None:
    """Stopped at 17, in the middle of an epoch and between two checkpoints, and gone on with."""
    settings = ["--checkpoint_every=10", "--evaluation.every=10", "--pictures_every=10"]
    run_fit(tmp_path / "run", "--trainer.max_steps=17", *settings)
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 17
    fit.main(["--resume", str(tmp_path / "run"), "--trainer.max_steps=30"])
    assert_same_state(tmp_path / "run/last.ckpt", finished / "last.ckpt")
    assert (tmp_path / "run/config.1.yaml").is_file()
    assert len(list((tmp_path / "run/metrics").iterdir())) == 2


def test_a_checkpoint_of_other_random_streams_is_said(finished: Path, tmp_path: Path, capsys) -> None:
    """Written before November 2026, where a stream took 32 bits of its name: chains go on, the rest is another draw."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    for name, said in (("as it is", False), ("older", True)):
        capsys.readouterr()
        fit.main(resume(run_dir, f"--run_dir={tmp_path / name}", "--trainer.max_steps=31"))
        assert ("of an older gwg_dist: chains go on as they were" in capsys.readouterr().err) == said
        older = checkpoint(run_dir / "last.ckpt")
        older["gwg_dist"].pop("streams", None)
        torch.save(older, run_dir / "last.ckpt")


def test_last_afresh_where_there_is_none(finished: Path, tmp_path: Path) -> None:
    settings = ["--checkpoint_every=10", "--evaluation.every=10", "--pictures_every=10"]
    run_fit(tmp_path / "run", "--trainer.max_steps=30", "--ckpt_path=last", *settings)
    assert_same_state(tmp_path / "run/last.ckpt", finished / "last.ckpt")


def test_another_seed_is_another_run(finished: Path, tmp_path: Path) -> None:
    run_fit(tmp_path / "run", "--trainer.max_steps=30", "--seed=1", "--evaluation.every=0")
    one, other = checkpoint(tmp_path / "run/last.ckpt"), checkpoint(finished / "last.ckpt")
    assert not torch.equal(one["chains"]["packed"], other["chains"]["packed"])


def test_kill_9_in_the_middle_and_resume(finished: Path, tmp_path: Path) -> None:
    """Killed at three moments, with a checkpoint every few iterations; ends as if undisturbed."""
    settings = ["--trainer.max_steps=300", "--checkpoint_every=3", "--evaluation.every=50", "--pictures_every=0"]
    assert run("gwg_dist.fit", command(tmp_path / "calm", *settings), tmp_path / "calm.log") == 0
    last = tmp_path / "run/last.ckpt"
    killed_at = []
    for delay in (0.2, 0.5, 0.9):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start("gwg_dist.fit", command(tmp_path / "run", "--ckpt_path=last", *settings), tmp_path / "run.log")
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and process.poll() is None:
            if last.exists() and last.stat().st_mtime_ns != before:
                time.sleep(delay)
                break
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at.append(checkpoint(last)["global_step"])
    assert 0 < killed_at[0] < 300, killed_at
    assert run("gwg_dist.fit", command(tmp_path / "run", "--ckpt_path=last", *settings), tmp_path / "run.log") == 0
    assert_same_state(last, tmp_path / "calm/last.ckpt")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_at_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    args = command(tmp_path / "run", "--trainer.max_steps=100000", "--evaluation.every=0", "--checkpoint_every=50")
    process = start("gwg_dist.fit", args, tmp_path / "log")
    last = tmp_path / "run/last.ckpt"
    deadline = time.monotonic() + 100
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    printed = (tmp_path / "log").read_text()
    step = checkpoint(last)["global_step"]
    assert f"stopped at iteration {step}\ngo on with: python -m gwg_dist.fit --resume" in printed
    assert "Traceback" not in printed


def test_an_existing_run_is_not_overwritten(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    message = fails(fit.main, command(finished, "--trainer.max_steps=30"), capsys)
    assert "already holds a run" in message
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def resume(folder: Path, *args: str) -> list[str]:
    return ["--resume", str(folder), *args]


def test_what_a_resumed_run_may_change(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The learning rate is that of the settings; what cannot change is refused, and the run can still be resumed."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    config = (run_dir / "config.yaml").read_text()
    for setting, expected in (
        ("--model.optimizer=SGD", "keeps its optimizer: Adam in the checkpoint, SGD in the settings"),
        ("--model.smoothing=0.5", "keeps its smoothing"),
        ("--model.chains.size=200", "chains do not fit this run: 150 there, 200 in the settings"),
        ("--model.chains=DataChains", "chains do not fit this run: 150 there, none in the settings"),
    ):
        assert expected in fails(fit.main, resume(run_dir, "--trainer.max_steps=32", setting), capsys)
        assert (run_dir / "config.yaml").read_text() == config
    fit.main(resume(run_dir, "--trainer.max_steps=40", "--model.learning_rate=1e-12"))
    before, after = checkpoint(finished / "last.ckpt"), checkpoint(run_dir / "last.ckpt")
    assert after["global_step"] == 40
    change = after["current_model_state"]["energy.weight"] - before["current_model_state"]["energy.weight"]
    assert change.abs().max() < 1e-8
    assert "1.0e-12" in (run_dir / "config.yaml").read_text()


def test_a_branch_starts_from_the_run_and_leaves_it(finished: Path, tmp_path: Path) -> None:
    fit.main(resume(finished, f"--run_dir={tmp_path / 'branch'}", "--trainer.max_steps=32"))
    assert checkpoint(tmp_path / "branch/last.ckpt")["global_step"] == 32
    assert checkpoint(finished / "last.ckpt")["global_step"] == 30
    assert (tmp_path / "branch/best.ckpt").is_file()


def test_another_runs_checkpoint_does_not_overwrite(finished: Path, tmp_path: Path, capsys) -> None:
    other = run_fit(tmp_path / "other", "--trainer.max_steps=2", "--evaluation.every=0")
    message = fails(fit.main, command(finished, f"--ckpt_path={other / 'last.ckpt'}"), capsys)
    assert "already holds a run" in message


def test_the_reference_in_a_checkpoint_is_the_fitted_one(finished: Path) -> None:
    """Fitted before the average is made, copied and never averaged: it stays normalised to rounding."""
    state = checkpoint(finished / "last.ckpt")["state_dict"]
    mean = Digits().splits.train.double().mean(0)
    torch.testing.assert_close(state["reference.probs"][:, 1], mean * 0.98 + 0.01, rtol=0, atol=1e-12)
    weights = state["reference.weights"].double()
    log_total = torch.nn.functional.softplus(weights).sum() + state["reference.constant"].double()
    assert abs(float(log_total)) < 1e-5


def test_a_run_by_replicas_is_assessed_by_their_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_fit(tmp_path / "run", "--model.sampler=ParallelTempering", "--trainer.max_steps=2", "--evaluation.every=1")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("model.num_steps: ParallelTempering swaps nothing in the first 100 steps") == 1
    assert "--model.chains=TemperedChains" in said
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["ais"]["num_chains"] == 10
    assert estimate_log_z(load_run(tmp_path / "run"), num_chains=5, num_temperatures=5).num_temperatures == 5


def test_damaged_and_foreign_checkpoints(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes((finished / "last.ckpt").read_bytes()[:3000])
    junk = tmp_path / "junk.ckpt"
    torch.save({"a": 1}, junk)
    hostile = tmp_path / "hostile.ckpt"
    torch.save({"a": Path("x")}, hostile)
    mlp = ["--model.energy=MLPEnergy", "--model.energy.num_hidden=4"]
    wide = ["--model.energy.num_hidden=9"]
    buffer = ["--model.chains.size=151"]
    last = finished / "last.ckpt"
    for path, extra, expected in (
        (torn, [], "truncated or no checkpoint"),
        (hostile, [], "truncated or no checkpoint"),
        (junk, [], "not written by gwg_dist"),
        (tmp_path / "none.ckpt", [], "there is no checkpoint"),
        (last, mlp, "of RBMEnergy on Binary((8, 8)), but this run is of MLPEnergy"),
        (last, wide, "energy.hidden_bias has shape (8,) there and (9,)"),
        (last, buffer, "the checkpoint's chains do not fit this run"),
    ):
        args = command(tmp_path / "run", "--trainer.max_steps=40", f"--ckpt_path={path}", *extra)
        assert expected in fails(fit.main, args, capsys)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert "no run folder" in fails(evaluate.main, [str(tmp_path)], capsys)
    assert "the run has: best, last" in fails(sample.main, [str(finished), "--checkpoint=worst"], capsys)
    assert "keeps 150 chains, fewer than 151" in fails(sample.main, [str(finished), "--num=151"], capsys)


def test_divergence_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model.energy=tests.plugins.Exploding", "--model.learning_rate=1", "--trainer.accelerator=cpu"]
    args += ["--trainer.max_steps=20", "--evaluation.every=0", "--checkpoint_every=1", f"--run_dir={tmp_path / 'run'}"]
    message = fails(fit.main, args, capsys, code=3)
    assert "the gradient is not finite" in message
    last = checkpoint(tmp_path / "run/last.ckpt")
    assert 1 <= last["global_step"] < 20
    assert torch.isfinite(last["current_model_state"]["energy.weight"]).all()


def test_weights_that_are_not_numbers_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN gradients in x as well: the proposals are NaN before the loss is."""
    args = ["--model.energy=MLPEnergy", "--model.learning_rate=1e30", "--trainer.accelerator=cpu"]
    args += [f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=20", "--evaluation.every=0"]
    message = fails(fit.main, args, capsys, code=3)
    assert "the gradient is not finite" in message
    assert "no checkpoint was written yet" in message


def test_runaway_energies_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sampler that stays cannot follow the model: the gap grows without end."""
    args = command(tmp_path / "run", "--model.sampler=tests.plugins.Stay", "--model.learning_rate=0.1")
    message = fails(fit.main, [*args, "--trainer.max_steps=3000", "--evaluation.every=0"], capsys, code=3)
    assert "the chains no longer follow the model" in message
    assert "outside -4436 to 44.4" in message


def test_collapsed_weights_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One temperature is far too few for two sharp modes: said twice, and no checkpoint is chosen by it."""
    args = ["--model.energy=tests.plugins.Peaked", f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=2"]
    args += ["--evaluation.num_temperatures=1", "--evaluation.final_temperatures=1", "--trainer.accelerator=cpu"]
    fit.main(args)
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.count("AIS chains carry the estimate; do not believe this likelihood") == 2
    assert "these are the last weights" in printed
    assert not (tmp_path / "run/best.ckpt").exists()
    assert json.loads((tmp_path / "run/results.json").read_text())["ais"]["collapsed"]


def test_weights_that_training_could_not_judge_are_judged_after_it(tmp_path: Path) -> None:
    """Too few temperatures during training, enough after it: the last weights become the best."""
    args = [
        "--model.energy=tests.plugins.Peaked",
        "--model.energy.strength=0.08",
        f"--run_dir={tmp_path / 'run'}",
    ]
    args += ["--trainer.max_steps=2", "--evaluation.num_temperatures=1", "--evaluation.final_temperatures=500"]
    fit.main([*args, "--trainer.accelerator=cpu"])
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["checkpoint"] == "last.ckpt"
    assert not results["ais"]["collapsed"]
    assert_same_state(tmp_path / "run/best.ckpt", tmp_path / "run/last.ckpt")


def test_an_energy_and_objective_of_the_users_own(tmp_path: Path) -> None:
    args = [
        "--model.energy=tests.plugins.Pairs",
        "--model.energy.width=3",
        "--model.objective=tests.plugins.DataOnly",
    ]
    fit.main([*args, f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=3", "--evaluation.every=0",
              "--evaluation.final_temperatures=3", "--trainer.accelerator=cpu"])  # fmt: skip
    assert checkpoint(tmp_path / "run/last.ckpt")["gwg_dist"]["energy"] == "Pairs"


@pytest.fixture(scope="module")
def without_chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 iterations of pseudo-likelihood on digits."""
    run_dir = tmp_path_factory.mktemp("pseudo") / "run"
    return run_fit(run_dir, *PSEUDO, "--trainer.max_steps=100")


PSEUDO = ["--model.objective=PseudoLikelihood", "--model.objective.num_sites=20", "--evaluation.every=50",
          "--evaluation.num_temperatures=100", "--evaluation.final_temperatures=300", "--model.learning_rate=0.05",
          "--ema.decay=0.9"]  # fmt: skip


def test_a_run_without_chains_learns_and_is_evaluated(without_chains: Path) -> None:
    results = json.loads((without_chains / "results.json").read_text())
    assert results["likelihood"]["test"]["mean"] > results["reference"]["test"] + 0.5
    last = checkpoint(without_chains / "last.ckpt")
    assert last["global_step"] == 100
    assert last["chains"]["packed"] is None
    header, *rows = (without_chains / "metrics/from_0000000/metrics.csv").read_text().splitlines()
    assert rows
    assert "train/loss" in header
    assert "gap" not in header
    assert not (without_chains / "samples.png").exists()


def test_a_run_without_chains_goes_on_bit_for_bit(without_chains: Path, tmp_path: Path) -> None:
    run_fit(tmp_path / "run", *PSEUDO, "--trainer.max_steps=61")
    fit.main(["--resume", str(tmp_path / "run"), "--trainer.max_steps=100"])
    assert_same_state(tmp_path / "run/last.ckpt", without_chains / "last.ckpt")


def test_samples_of_a_run_without_chains_start_at_the_reference(
    without_chains: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(sample.main, [str(without_chains), "--num=3"], capsys)
    assert "keeps 0 chains, fewer than 3: use --start reference" in message
    sample.main([str(without_chains), "--num=3", "--num_steps=5", "--start=reference"])
    assert np.load(without_chains / "samples-3.npz")["x"].shape == (3, 8, 8)


def test_gradients_that_are_not_numbers_stop_a_run_without_chains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "--model.energy=tests.plugins.Exploding",
        "--model.learning_rate=1",
        "--trainer.accelerator=cpu",
        *PSEUDO,
    ]
    message = fails(fit.main, [*args, "--trainer.max_steps=20", f"--run_dir={tmp_path / 'run'}"], capsys, code=3)
    assert "the gradient is not finite" in message
