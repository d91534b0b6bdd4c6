"""A run that goes wrong says so in words, with the setting to change, before its numbers mean nothing."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gwg_dist.callbacks.guard import DivergenceGuard
from gwg_dist.callbacks.symptoms import (
    Evaluation,
    Look,
    Symptoms,
    of_chains,
    of_labels,
    of_memory,
    of_model,
    of_setting,
)
from gwg_dist.samplers import DMALA, GWG, Gibbs, MultiGWG
from gwg_dist.spaces import Binary
from tests.support.kernels import make_target
from tests.support.runs import assert_same_state, checkpoint, run_fit

HEALTHY = Look(accept_prob=0.9, hops=0.9, gap=0.5, spread=5.0, lag=3.0)
QUICK = ["--evaluation.every=100", "--evaluation.num_temperatures=200", "--evaluation.num_chains=50", "--ema.decay=0.9",
         "--model.learning_rate=1e-2", "--model.energy.num_hidden=40", "--model.num_steps=10"]  # fmt: skip
FAULTS = {
    "rate x 100": (["--model.learning_rate=0.3", "--pace.limit=0"],
                   "the model outruns its chains", "a lower model.learning_rate"),
    "temperature 50": (["--model.sampler=GWG", "--model.sampler.temperature=50", "--model.energy.num_hidden=64",
                        "--model.learning_rate=3e-2", "--model.num_steps=5"],
                       "of the proposals are accepted", "another model.sampler.temperature"),
    "one step": (["--model.num_steps=1", "--model.learning_rate=3e-2", "--pace.limit=25"],
                 "chains lag", "the learning rate is"),
    "frozen": (["--model.sampler=tests.plugins.Stay", "--trust"], "chains stand still", "another model.sampler"),
    "step size too large": (["--model.sampler=DMALA", "--model.sampler.step_size=100"],
                            "of the proposals are accepted", "another model.sampler.step_size"),
    "step size too small": (["--model.sampler=DMALA", "--model.sampler.step_size=0.001"],
                            "chains stand still", "another model.sampler.step_size"),
    "a search for a step size that runs away": (
        ["--model.sampler=DMALA", "--model.sampler.step_size=1e-6", "--adaptation.warmup=250", "--adaptation.every=10"],
        "1e-06 as the run began: 100% of the proposals are accepted", "another model.sampler"),
    "labels of other points": (["--data=tests.plugins.ShuffledLabels", "--trust", *QUICK],
                               "labels are found at chance", "the order of the labels in data"),
}  # fmt: skip
MEANINGLESS = ("the gradient is not finite", "no longer follow the model")


def module(sampler: Any = None, num_steps: int = 10) -> Any:
    return SimpleNamespace(sampler=sampler or GWG(), num_steps=num_steps)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_before_the_numbers_mean_nothing(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, what, helps = FAULTS[fault]
    run_fit(tmp_path / "run", "--trainer.max_steps=300", *settings)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("iteration ")]
    named = [n for n, line in enumerate(lines) if what in line and helps in line]
    assert named, lines
    assert not any(words in line for line in lines[: named[0]] for words in MEANINGLESS), lines


def test_a_healthy_run_has_no_symptom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With labels of its own points."""
    run_fit(tmp_path / "run", "--trainer.max_steps=400", "--data=Digits", "--data.labels=true", *QUICK)
    assert "helps" not in capsys.readouterr().err


def test_what_is_learnt_by_heart_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fair coins: there is nothing to learn but the training points themselves."""
    np.save(tmp_path / "coins.npy", np.random.default_rng(0).integers(0, 2, (100, 30)))
    run_fit(
        tmp_path / "run", f"--data={tmp_path / 'coins.npy'}", "--trainer.max_steps=600", "--evaluation.every=100",
        "--model.energy.num_hidden=40", "--model.learning_rate=1e-2", "--model.num_steps=5",
        "--evaluation.num_temperatures=200", "--evaluation.num_chains=50",
    )  # fmt: skip
    assert "training points are learnt by heart: since iteration" in capsys.readouterr().err


OUTRUN = ["--model.learning_rate=1", "--pace.limit=0", "--guard.on_symptom=return", "--guard.max_returns=2"]


def test_by_choice_a_run_with_a_symptom_goes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To a state without one, as often as the guard may; then it goes on with the symptom."""
    run_fit(tmp_path / "run", "--trainer.max_steps=600", *OUTRUN)
    lines = [line for line in capsys.readouterr().err.splitlines() if "with half the learning rate" in line]
    assert lines
    assert all("the model outruns its chains" in line for line in lines)
    assert len(lines) <= 2
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 600


def test_what_a_lower_rate_does_not_mend_sends_no_run_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--model.sampler=DMALA", "--model.sampler.step_size=100", "--guard.on_symptom=return"]
    run_fit(tmp_path / "run", "--trainer.max_steps=100", *settings)
    printed = capsys.readouterr().err
    assert "another model.sampler.step_size helps" in printed
    assert "Going on from the state" not in printed


def test_a_resumed_run_says_what_an_uninterrupted_one_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_fit(tmp_path / "whole", "--trainer.max_steps=330", *OUTRUN)
    whole = [line for line in capsys.readouterr().err.splitlines() if " helps" in line]
    run_fit(tmp_path / "parts", "--trainer.max_steps=190", *OUTRUN)
    run_fit(tmp_path / "parts", "--trainer.max_steps=330", *OUTRUN, "--ckpt_path=last")
    assert [line for line in capsys.readouterr().err.splitlines() if " helps" in line] == whole
    assert whole
    assert_same_state(tmp_path / "whole/last.ckpt", tmp_path / "parts/last.ckpt")


@pytest.mark.parametrize(
    ("changes", "sampler", "names"),
    [
        ({}, GWG(), []),
        ({"accept_prob": 0.01}, GWG(), ["refused"]),
        ({"hops": 0.001}, GWG(), ["frozen"]),
        ({"accept_prob": 0.2}, DMALA(), ["inefficient"]),
        ({"accept_prob": 0.2}, Gibbs(), []),  # nothing to tune
        ({"lag": 30.0}, GWG(), []),
        ({"lag": 30.0, "gap": -3.0}, GWG(), ["outrun"]),
        ({"lag": 30.0, "gap": 3.0}, GWG(), []),  # the model has still to learn
        ({"lag": math.inf, "gap": -3.0}, GWG(), []),  # chains that stand still have a symptom of their own
        ({"gap": 25.0, "spread": 40.0}, GWG(), ["gap"]),
        ({"gap": -15.0, "spread": 8.0}, GWG(), ["apart"]),
        ({"gap": 15.0, "spread": 8.0}, GWG(), ["apart"]),
        ({"gap": -15.0, "spread": 12.0}, GWG(), []),
    ],
)
def test_what_a_look_shows(changes: dict[str, float], sampler: Any, names: list[str]) -> None:
    look = HEALTHY._replace(**changes)
    found = [*of_chains(look, module(sampler)), *of_model(look, module(sampler), 44.0)]
    assert [symptom.name for symptom in found] == names
    assert all(symptom.sentence.endswith(" helps") for symptom in found)


@pytest.mark.parametrize(
    ("sampler", "first", "accepted", "text"),
    [
        (MultiGWG(max_draws=1), 1, 0.2, "max_draws is 1, as small as it can be: 20% of the proposals are accepted"),
        (MultiGWG(max_draws=2), 2, 0.2, ""),  # one draw would be accepted more often
        (MultiGWG(max_draws=1), 1, 0.5, ""),
        (MultiGWG(max_draws=1), 1, 0.95, ""),  # more draws may do
        (DMALA(step_size=0.002), 1e-6, 0.99, "step_size is 0.002, 1e-06 as the run began: 99% of"),
        (DMALA(step_size=0.002), 1e-4, 0.99, ""),
        (DMALA(step_size=1e-6), 2e-3, 0.1, "step_size is 1e-06, 0.002 as the run began: 10% of"),
        (DMALA(step_size=0.002), 1e-6, 0.1, ""),  # it goes back
        (GWG(), None, 0.1, ""),
    ],
)
def test_a_setting_that_can_go_no_further(sampler: Any, first: float | None, accepted: float, text: str) -> None:
    target = make_target(Binary(6), "rbm")
    found = list(of_setting(HEALTHY._replace(accept_prob=accepted), sampler, target, first))
    assert [symptom.name for symptom in found] == (["bound"] if text else [])
    assert all(symptom.what.startswith(text) for symptom in found)


@pytest.mark.parametrize(
    ("shares", "gain", "named"),
    [
        ([0.10, 0.11], 5.0, True),
        ([0.10, 0.30], 5.0, False),  # it learns
        ([0.30, 0.10], 5.0, False),  # one evaluation may be a bad one
        ([0.10, 0.11], 1.0, False),  # nothing is learnt yet
        ([0.17, 0.17], 5.0, False),
        ([math.nan, math.nan], 5.0, False),
        ([0.10], 5.0, False),
    ],
)
def test_labels_at_chance(shares: list[float], gain: float, named: bool) -> None:
    """Of 200 points, the commonest label has 12 %: chance reaches 12 + 2 * 2.3 %."""
    found = [Evaluation(n, -20.0, 0.1, 0.0, share, 0.12, 200, gain) for n, share in enumerate(shares)]
    assert [symptom.name for symptom in of_labels(found)] == (["labels"] if named else [])


def test_one_label_that_most_points_have_is_no_fault() -> None:
    found = [Evaluation(n, -20.0, 0.1, 0.0, 0.97, 0.97, 500, 5.0) for n in range(2)]
    assert not list(of_labels(found))


def test_two_groups_of_energies_are_taken_apart() -> None:
    """Data at 0 +- 2 and chains at 10 +- 2: a gap of 10, five standard deviations."""
    rng = np.random.default_rng(0)
    data, chains = rng.normal(0, 2, 100_000), rng.normal(10, 2, 100_000)
    look = HEALTHY._replace(gap=chains.mean() - data.mean(), spread=np.concatenate([data, chains]).std())
    assert look.apart == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize(
    ("validation", "ahead", "found"),
    [
        ([-20.0, -19.0, -18.0], [0.1, 0.2, 0.3], False),  # it learns
        ([-18.0, -18.5, -19.0], [0.1, 1.5, 3.0], True),
        ([-18.0, -18.5, -19.0], [0.1, 0.1, 0.1], False),  # both fall: not by heart
        ([-18.0, -18.0, -18.05], [0.1, 1.0, 2.0], False),  # within the error
        ([-18.0, -19.0], [0.1, 2.0], False),  # one evaluation may be a bad one
        ([], [], False),
    ],
)
def test_what_counts_as_learnt_by_heart(validation: list[float], ahead: list[float], found: bool) -> None:
    evaluations = [Evaluation(100 * n, v, 0.05, a) for n, (v, a) in enumerate(zip(validation, ahead, strict=True))]
    assert bool(list(of_memory(evaluations))) is found


def test_a_name_of_what_to_do_is_checked() -> None:
    with pytest.raises(ValueError, match="on_symptom must be one of say, return, got 'stop'"):
        DivergenceGuard(on_symptom="stop")
    assert Symptoms(DivergenceGuard()).state_dict()["looks"] == []
