"""Both sides of the likelihood during training, and the best weights by the lower one."""

import csv
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gwg_dist.callbacks import estimates
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import AISResult, Assessment, Bennett, Likelihood, ReverseResult, Sides
from gwg_dist.evaluation.ais import summarize
from gwg_dist.evaluation.annealing import _Chains
from gwg_dist.module import EBMModule
from gwg_dist.spaces import Binary
from gwg_dist.training.checkpoints import RunCheckpoints
from gwg_dist.training.interruption import Interruption
from tests.support.runs import assert_same_state, checkpoint, run_fit

SETTINGS = ["--trainer.max_steps=6", "--evaluation.every=3", "--evaluation.num_temperatures=350",
            "--evaluation.num_chains=30", "--pictures_every=0"]  # fmt: skip


def logged(folder: Path, name: str) -> list[float]:
    with open(folder / "metrics/from_0000000/metrics.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_run_logs_both_sides_and_learns_as_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chains of the buffer and generators of their own: the run itself is the same to the bit."""
    run_fit(tmp_path / "both", *SETTINGS)
    printed = capsys.readouterr().err
    assert printed.index("bracket") < printed.index("log Z: forward") < printed.index("likelihood: ")
    assert "(20 chains, ESS" in printed
    run_fit(tmp_path / "one", *SETTINGS, "--evaluation.both_sides=false")
    low, mean, high = (logged(tmp_path / "both", f"val/{name}") for name in ("low_side", "log_likelihood", "high_side"))
    assert len(low) == len(mean) == len(high) == 2
    assert all(a <= b <= c for a, b, c in zip(low, mean, high, strict=True))
    assert any(a < c for a, c in zip(low, high, strict=True))
    both, one = (checkpoint(tmp_path / name / "last.ckpt") for name in ("both", "one"))
    for name, value in both["state_dict"].items():
        assert torch.equal(value, one["state_dict"][name])
    assert torch.equal(both["chains"]["packed"], one["chains"]["packed"])
    assert torch.equal(both["chains"]["generators"], one["chains"]["generators"])
    assert logged(tmp_path / "one", "val/log_likelihood") == mean
    assert logged(tmp_path / "one", "val/low_side") == []


@pytest.mark.parametrize("at", [400, 700], ids=["among the steps before", "annealing back"])
def test_a_run_that_is_told_in_the_other_side_goes_on_bit_for_bit(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no chains yet when it goes on: where they were is in the checkpoint."""
    calm, folder = run_fit(tmp_path / "calm", *SETTINGS), tmp_path / "run"
    made, agreed, advance, run_chain = [0], Interruption.agreed, _Chains.advance, estimates.settled

    def told(interruption: Interruption) -> bool:
        if made[0] >= at:
            interruption.received = signal.SIGTERM
        return agreed(interruption)

    def counted(chains: Any, end: int) -> None:
        made[0] += end - chains.t
        advance(chains, end)

    def settled(*args: Any, **settings: Any) -> Any:
        made[0] += 50
        return run_chain(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "agreed", told)
        patch.setattr(_Chains, "advance", counted)
        patch.setattr(estimates, "settled", settled)
        with pytest.raises(SystemExit) as stopped:
            run_fit(folder, *SETTINGS)
    assert stopped.value.code == 75
    held = checkpoint(folder / "last.ckpt")["callbacks"]["AISLikelihood"]
    assert held["due"]
    assert (held["starts"]["iteration"], len(held["starts"]["packed"])) == (3, 20)
    run_fit(folder, *SETTINGS, "--ckpt_path=last")
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_state(folder / name, calm / name)
    assert checkpoint(folder / "last.ckpt")["callbacks"]["AISLikelihood"].get("starts") is None


def assessment(forward: float, reverse: float) -> Assessment:
    """log Z from either side of a model whose validation points have log ref(x) - E(x) = 0 on average."""
    weights = torch.full((20,), forward, dtype=torch.float64)
    one = AISResult(*summarize(weights), weights, torch.zeros(20, 3, dtype=torch.uint8), 10)
    back = torch.full((20,), -reverse, dtype=torch.float64)
    other = ReverseResult(reverse, 0.0, 20.0, back, 10)
    both = Bennett((forward + reverse) / 2, 0.1, 0.5, 1.0, 0.1)
    sides = Sides(one, other, both, False, 0.0, 0.0, 0, 20, forward - 1)
    return Assessment(one, {"val": Likelihood(-forward, 0.0, 0.1, 10)}, {"val": -30.0}, sides=sides)


def test_the_best_weights_are_those_of_the_better_lower_side(tmp_path: Path) -> None:
    """Forward AIS finds the first weights better by 1 nat, and the other side puts them 3 nats below the second."""
    saved: list[int] = []
    trainer: Any = SimpleNamespace(
        global_step=0, save_checkpoint=lambda path: saved.append(trainer.global_step),
        strategy=SimpleNamespace(checkpoint_io=SimpleNamespace(failure=""), root_device=torch.device("cpu")),
    )  # fmt: skip
    checkpoints = RunCheckpoints(tmp_path)
    found = [assessment(20.0, 25.0), assessment(21.0, 22.0), assessment(20.5, 22.5)]
    assert [a.between("val") for a in found] == [(-25.0, -20.0), (-22.0, -21.0), (-22.5, -20.5)]
    module = EBMModule(RBMEnergy(Binary(3), num_hidden=2))
    for step, each in enumerate(found, start=1):
        trainer.global_step, module.assessment = step, (step, each)
        checkpoints._judge(trainer, module)
    assert saved == [1, 2]
    assert (checkpoints.best_value, checkpoints.best_step) == (-22.0, 2)


def test_too_few_chains_and_none_have_one_side(tmp_path: Path) -> None:
    for name, settings in {
        "few": ["--model.chains.size=10", "--data.batch_size=10"],
        "none": ["--model.objective=PseudoLikelihood"],
    }.items():
        folder = run_fit(tmp_path / name, *SETTINGS, *settings)
        assert len(logged(folder, "val/log_likelihood")) == 2
        assert logged(folder, "val/low_side") == []
