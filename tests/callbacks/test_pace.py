"""Runs that chains cannot follow are slowed down: by rule, alike on all ranks, and remembered."""

from pathlib import Path
from typing import cast

import pytest
import torch
from lightning.pytorch import Trainer

from gwg_dist.callbacks import Pace, pace
from gwg_dist.energies import MLPEnergy
from gwg_dist.module import EBMModule, IterationStats
from gwg_dist.spaces import Binary
from gwg_dist.updates import Schedule
from tests.support.runs import assert_same_state, checkpoint, command, run, run_fit

QUIET = ["--evaluation.every=0", "--pictures_every=0", "--pace.over=10", "--trainer.callbacks+=tests.plugins.Kernels"]
LAGGING = [*QUIET, "--pace.limit=0.001"]


class FakeTrainer:
    """Counts iterations."""

    is_global_zero = True
    global_step = 0


class Module(EBMModule):
    """With a schedule, though no trainer."""

    def __init__(self) -> None:
        super().__init__(MLPEnergy(Binary(5)), num_steps=3, learning_rate=0.8)
        self.fixed = Schedule(self.new_optimizer())

    @property
    def schedule(self) -> Schedule:
        return self.fixed


def look(callback: Pace, module: EBMModule, trainer: FakeTrainer, *lags: float) -> None:
    """As if tens of iterations had ended with these lags."""
    for lag in lags:
        module.stats = IterationStats(*[torch.tensor(0.5)] * 5, lag=torch.tensor(lag))
        trainer.global_step += 10
        callback.on_train_batch_end(cast(Trainer, trainer), module, None, None, 0)


def test_the_mean_over_some_iterations_decides(capsys: pytest.CaptureFixture[str]) -> None:
    callback, module, trainer = Pace(limit=20, over=30), Module(), FakeTrainer()
    look(callback, module, trainer, 50, 9, 0, 20, 20, 20)
    assert module.schedule.slowed == 1
    look(callback, module, trainer, 0, 0, 61)
    assert module.schedule.slowed == pytest.approx(0.5**0.5)
    assert module.schedule.optimizer.param_groups[0]["lr"] == pytest.approx(0.8 * 0.5**0.5)
    expected = "iteration 90: chains lag 20 behind the model, more than 20; from here on the learning rate is 0.71 of"
    assert expected in capsys.readouterr().err


def test_the_rate_falls_first_then_steps_are_doubled_within_bounds() -> None:
    callback, module, trainer = Pace(limit=20, over=10), Module(), FakeTrainer()
    look(callback, module, trainer, *[100.0] * 8)
    assert (module.schedule.slowed, module.num_steps) == (pytest.approx(1 / 16), 3)
    look(callback, module, trainer, *[100.0] * 9)
    assert (module.schedule.slowed, module.num_steps) == (pytest.approx(1 / 16), 24)
    assert len(callback.decisions) == 8 + 3


def test_chains_that_stand_still_count_for_ten_limits() -> None:
    callback, module, trainer = Pace(limit=20, over=110), Module(), FakeTrainer()
    look(callback, module, trainer, torch.inf, *[1.0] * 10)
    assert callback.decisions == []


def test_off_by_default_and_without_chains() -> None:
    for callback, lag in ((Pace(), torch.tensor(1e9)), (Pace(limit=1), None)):
        module, trainer = Module(), FakeTrainer()
        module.stats = IterationStats(torch.tensor(0.0), torch.tensor(0.0), lag=lag)
        for _ in range(50):
            trainer.global_step += 10
            callback.on_train_batch_end(cast(Trainer, trainer), module, None, None, 0)
        assert callback.decisions == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"limit": -1}, "limit must not be negative, got -1"), ({"over": 15}, "over must be a positive multiple of 10")],
)
def test_refusals(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pace(**settings)


def test_stopped_between_two_decisions_a_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch) -> None:
    """Both kinds of decision come before and after 25: the slowest rate is that of two decisions."""
    monkeypatch.setattr(pace, "SLOWEST", 0.5)
    run_fit(tmp_path / "calm", *LAGGING, "--pace.over=10", "--trainer.max_steps=52")
    run_fit(tmp_path / "run", *LAGGING, "--pace.over=10", "--trainer.max_steps=35")
    run_fit(tmp_path / "run", *LAGGING, "--pace.over=10", "--trainer.max_steps=52", "--ckpt_path=last")
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
    last = checkpoint(tmp_path / "run/last.ckpt")
    decisions = last["callbacks"]["Pace"]["decisions"]
    assert [(iteration, steps) for iteration, _, _, steps in decisions] == [(10, 1), (20, 1), (30, 2), (40, 2), (50, 2)]
    assert last["lr_schedulers"][0]["slowed"] == pytest.approx(0.5)
    assert (tmp_path / "calm/kernel.0").read_text().splitlines()[-1].endswith("x 16")


@pytest.mark.slow
def test_two_ranks_decide_alike_and_resume_bit_for_bit(tmp_path: Path) -> None:
    two = [*LAGGING, "--trainer.strategy=ddp", "--trainer.devices=2", "--ckpt_path=last"]
    for name, lengths in (("calm", [105]), ("run", [95, 105])):
        for length in lengths:
            args = command(tmp_path / name, *two, f"--trainer.max_steps={length}")
            log = tmp_path / f"{name}.log"
            assert run("gwg_dist.fit", args, log) == 0, log.read_text()[-3000:]
        kernels = [(tmp_path / name / f"kernel.{rank}").read_text().splitlines()[-1] for rank in range(2)]
        assert kernels[0] == kernels[1]
        assert kernels[0].endswith("x 8"), kernels
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
