"""The learning rate of every iteration, and the optimizer that follows it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gwg_dist.energies import MLPEnergy
from gwg_dist.module import EBMModule
from gwg_dist.spaces import Binary
from gwg_dist.updates import Schedule
from tests.support.runs import checkpoint, run_fit

QUIET = ["--evaluation.every=0", "--pictures_every=0"]


def rates(schedule: Schedule, num: int) -> list[float]:
    """The rates of the next ``num`` iterations."""
    found = []
    for _ in range(num):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


def make(base: float = 0.8, **settings: float) -> Schedule:
    return Schedule(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base), **settings)  # pyright: ignore[reportArgumentType]


def test_the_rate_rises_stays_and_falls() -> None:
    assert rates(make(), 3) == [0.8] * 3
    assert rates(make(warmup=4), 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert rates(make(cooldown=0.4, length=10), 11) == pytest.approx([0.8] * 7 + [0.6, 0.4, 0.2, 0.0])
    assert rates(make(warmup=10, cooldown=1.0, length=10), 10) == pytest.approx(
        [0.8 * (t + 1) / 10 * (10 - t) / 10 for t in range(10)]
    )


def test_a_slowed_run_stays_slow_and_resumes_so() -> None:
    schedule = make(warmup=4, cooldown=0.5, length=10)
    begun = rates(schedule, 3)
    schedule.slow(0.5)
    saved, optimizer_state = schedule.state_dict(), schedule.optimizer.state_dict()
    rest = rates(schedule, 7)
    assert [*begun, *rest] == pytest.approx([0.2, 0.4, 0.6, *(0.4 * f for f in (1, 1, 1, 0.8, 0.6, 0.4, 0.2))])
    for base in (0.8, 0.08):
        resumed = make(base, warmup=4, cooldown=0.5, length=10)
        resumed.optimizer.load_state_dict(optimizer_state)
        resumed.load_state_dict(saved)
        assert rates(resumed, 7) == pytest.approx([rate * base / 0.8 for rate in rest]), "the settings' base rate"


def test_weights_decay_by_adamw() -> None:
    module = EBMModule(MLPEnergy(Binary(4)), weight_decay=0.1, learning_rate=0.5)
    optimizer = module.new_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    before = [p.detach().clone() for p in module.energy.parameters()]
    for parameter in module.energy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, value in zip(module.energy.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value * 0.95)
    assert type(EBMModule(MLPEnergy(Binary(4))).new_optimizer()) is torch.optim.Adam


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cooldown": 1.5}, r"cooldown must lie in \[0, 1\], got 1.5"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
        ({"warmup_iterations": -1}, "warmup_iterations must not be negative, got -1"),
        ({"weight_decay": 0.1, "optimizer": torch.optim.SGD}, "weight_decay is for the default optimizer"),
    ],
)
def test_refusals(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EBMModule(MLPEnergy(Binary(4)), **settings)


def test_a_run_cools_down_to_its_own_length(tmp_path: Path) -> None:
    """Resumed with another length, the rate is that of the new length."""
    settings = [*QUIET, "--model.cooldown=0.5", "--model.weight_decay=0.01", "--model.learning_rate=0.01"]
    run_fit(tmp_path / "run", *settings, "--trainer.max_steps=8")
    assert checkpoint(tmp_path / "run/last.ckpt")["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    run_fit(tmp_path / "run", *settings, "--ckpt_path=last", "--trainer.max_steps=20")
    last = checkpoint(tmp_path / "run/last.ckpt")
    assert last["lr_schedulers"] == [{"last_epoch": 20, "_step_count": 21, "slowed": 1.0}]
    assert last["gwg_dist"]["optimizer"] == "AdamW"
