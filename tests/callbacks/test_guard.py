"""A run that diverges goes back to a healthy state, goes on more slowly, and says what points at the cause."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer

from gwg_dist import fit
from gwg_dist.callbacks import DivergenceGuard, guard
from gwg_dist.callbacks.diagnosis import what_helps
from gwg_dist.chains import ChainBuffer
from gwg_dist.energies import MLPEnergy
from gwg_dist.iteration import IterationStats
from gwg_dist.module import EBMModule
from gwg_dist.samplers import Gibbs, Sampler
from gwg_dist.spaces import Binary
from tests.support.runs import assert_same_state, checkpoint, command, differing, fails, run, run_fit

QUIET = ["--evaluation.every=0", "--pictures_every=0"]


def poisoned(*iterations: int) -> list[str]:
    return [*QUIET, "--trainer.callbacks+=tests.plugins.Poison", f"--trainer.callbacks.iterations={[*iterations]}"]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are kept every ten iterations."""
    monkeypatch.setattr(guard, "KEEP_EVERY", 10)


def test_a_return_is_the_kept_state_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Diverged at 17: weights, chains, generators and Adam's averages are those of 10, the learning rate is half."""
    run_fit(tmp_path / "ten", *QUIET, "--trainer.max_steps=10")
    capsys.readouterr()
    run_fit(tmp_path / "back", *poisoned(17), "--trainer.max_steps=17")
    said = " ".join(capsys.readouterr().err.split())
    assert "iteration 17: the gradient is not finite (norm nan, energy.weight)" in said
    assert "Going on from the state of iteration 10 with half the learning rate" in said
    assert "(1 of at most 3 returns)" in said
    ten, back = checkpoint(tmp_path / "ten/last.ckpt"), checkpoint(tmp_path / "back/last.ckpt")
    for key in ("current_model_state", "chains"):
        assert differing(ten[key], back[key]) == []
    assert differing(ten["optimizer_states"][0]["state"], back["optimizer_states"][0]["state"]) == []
    rates = [run["optimizer_states"][0]["param_groups"][0]["lr"] for run in (ten, back)]
    assert rates[1] == rates[0] / 2
    assert back["global_step"] == 17
    entry = back["callbacks"]["DivergenceGuard"]
    assert [back[:2] for back in entry["returns"]] == [[17, 10]]


def test_stopped_before_and_after_a_return_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The state that it goes back to, of iteration 20, is in the checkpoint of 25."""
    settings = [*poisoned(27, 43), "--model.chains.size=10000"]
    run_fit(tmp_path / "calm", *settings, "--trainer.max_steps=50")
    for length in (25, 41, 50):
        run_fit(tmp_path / "run", *settings, f"--trainer.max_steps={length}", "--ckpt_path=last")
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
    last = checkpoint(tmp_path / "run/last.ckpt")
    assert last["callbacks"]["DivergenceGuard"]["returns"] == [[27, 20, 2], [43, 40, 2]], "the lag is that of before"
    assert last["lr_schedulers"][0]["slowed"] == 0.25


def test_three_returns_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = command(tmp_path / "run", *poisoned(5, 6, 15, 16, 20), "--checkpoint_every=1", "--trainer.max_steps=30")
    message = fails(fit.main, args, capsys, code=3)
    assert "iteration 16: the gradient is not finite" in message
    assert "after 3 returns to a healthy state, the last to 10" in message
    last = checkpoint(tmp_path / "run/last.ckpt")
    assert last["global_step"] == 15
    assert all(torch.isfinite(weight).all() for weight in last["current_model_state"].values())


def test_on_divergence_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = command(tmp_path / "run", *poisoned(5), "--on_divergence=stop", "--trainer.max_steps=30")
    assert "iteration 5: the gradient is not finite" in fails(fit.main, args, capsys, code=3)
    run_fit(tmp_path / "healthy", *QUIET, "--on_divergence=stop", "--trainer.max_steps=2")
    assert checkpoint(tmp_path / "healthy/last.ckpt")["callbacks"]["DivergenceGuard"]["kept"] is None
    message = fails(fit.main, command(tmp_path / "other", "--on_divergence=maybe"), capsys)
    assert "on_divergence must be one of return, stop, got 'maybe'" in message


@pytest.mark.slow
def test_a_gap_that_grows_goes_back_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An MLP with three steps, a rate of 1e-2 and 10,000 chains, which stopped at iteration 60."""
    args = [
        "--model.energy=MLPEnergy", "--model.num_steps=3", "--model.learning_rate=1e-2", "--model.chains.size=10000",
        "--model.warmup_iterations=0", "--model.weight_decay=0", f"--run_dir={tmp_path / 'run'}", *QUIET,
    ]  # fmt: skip
    fit.main([*args, "--trainer.max_steps=200", "--trainer.accelerator=cpu", "--evaluation.final_temperatures=100"])
    said = " ".join(capsys.readouterr().err.split())
    assert "the chains no longer follow the model" in said
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 200


@pytest.mark.slow
def test_two_ranks_go_back_together_and_resume_bit_for_bit(tmp_path: Path) -> None:
    two = [*poisoned(7, 15), "--trainer.strategy=ddp", "--trainer.devices=2", "--ckpt_path=last"]
    for name, lengths in (("calm", [20]), ("run", [10, 20])):
        for length in lengths:
            log = tmp_path / f"{name}.log"
            code = run("gwg_dist.fit", command(tmp_path / name, *two, f"--trainer.max_steps={length}"), log)
            assert code == 0, log.read_text()[-3000:]
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
    last = checkpoint(tmp_path / "run/last.ckpt")
    assert [back[:2] for back in last["callbacks"]["DivergenceGuard"]["returns"]] == [[7, 0], [15, 0]]
    kept = last["callbacks"]["DivergenceGuard"]["kept"]["chains"]
    assert kept["packed"].shape == (150, 8)
    assert len(kept["generators"]) == 2


# -- what is said ------------------------------------------------------------------------------------------------------


class Batches:
    batch_size = 100


class Module(EBMModule):
    """With batches of 100, though no trainer."""

    @property
    def data(self) -> Any:
        return Batches()


def a_module(sampler: Sampler | None = None, *, size: int = 100, num_steps: int = 10, **stats: float) -> EBMModule:
    module = Module(MLPEnergy(Binary(50)), sampler, ChainBuffer(size=size), num_steps=num_steps)
    module.stats = IterationStats(
        torch.tensor(0.0), torch.tensor(0.0), **{name: torch.tensor(value) for name, value in stats.items()}
    )
    return module


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        (a_module(accept_prob=0.01, hops=0.01), "proposals are accepted: another model.sampler.temperature"),
        (a_module(Gibbs(), accept_prob=0.01, hops=0.01), "another model.sampler or a lower model.learning_rate"),
        (a_module(size=10_000, lag=99.0, accept_prob=0.5, hops=0.5), "in 100 iterations: a smaller model.chains.size"),
        (a_module(lag=99.0, accept_prob=0.5, hops=0.5), "needs 10 visits to renew itself: more model.num_steps"),
        (a_module(num_steps=200, lag=99.0, accept_prob=0.5, hops=0.5), "model: a lower model.learning_rate"),
        (a_module(lag=5.0, accept_prob=0.5, hops=0.5), "SiLU in place of ReLU"),
        (a_module(), "a lower model.learning_rate usually helps"),
    ],
)  # fmt: skip
def test_a_hint_names_the_setting_that_the_numbers_point_at(module: EBMModule, hint: str) -> None:
    assert hint in what_helps(module)


class FakeTrainer:
    """Counts iterations."""

    is_global_zero = True
    global_step = 0


def test_a_model_that_falls_back_to_its_reference_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    callback, trainer = DivergenceGuard(on_divergence="stop"), FakeTrainer()
    for spread in (0.001, 0.002, 0.5, 3.0, 0.5, 0.02, 0.004, 0.003):
        trainer.global_step += 10
        module = a_module(energy_spread=spread)
        callback.on_train_batch_end(cast(Trainer, trainer), module, None, None, 0)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("the model is no more than its reference") == 1
    assert "iteration 70: the energy is nearly the same for all points (spread 0.004 nats)" in said


def test_a_model_that_never_was_more_than_its_reference_is_said(tmp_path: Path, capsys) -> None:
    args = [f"--run_dir={tmp_path / 'run'}", "--model.energy=tests.plugins.Flat", *QUIET, "--trainer.max_steps=2"]
    fit.main([*args, "--evaluation.final_temperatures=2", "--trainer.accelerator=cpu"])
    assert "the model is no more than its reference" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_gap": -1.0}, "max_gap must not be negative, got -1.0"),
        ({"max_returns": -1}, "max_returns must not be negative, got -1"),
        ({"check_every": 0}, "check_every must be positive, got 0"),
    ],
)
def test_refusals(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DivergenceGuard(**settings)
