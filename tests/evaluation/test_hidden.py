"""log Z by the sum over hidden units, against the sum over points."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gwg_dist import evaluate
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import exact_log_z, hidden, hidden_log_z, hidden_seconds, num_hidden_units
from gwg_dist.module import EBMModule
from gwg_dist.reference import Reference
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary
from gwg_dist.training import estimate
from gwg_dist.training.loading import load_run
from tests.support.kernels import make_target
from tests.support.runs import SMALL, run_fit


@pytest.mark.parametrize("num_hidden", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_sums_agree(num_hidden: int, seed: int) -> None:
    torch.manual_seed(seed)
    energy = RBMEnergy(Binary(7), num_hidden=num_hidden, scale=1.0).double()
    with torch.no_grad():
        energy.hidden_bias.normal_()
        energy.visible_bias.normal_()
    reference = make_target(Binary(7), "rbm", seed=seed).reference
    for target in (Target(energy, reference), Target(energy, Reference(Binary(7)).double()), Target(energy)):
        assert hidden_log_z(target) == pytest.approx(exact_log_z(target), abs=1e-12)


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_target(Binary(6), "rbm")
    whole = hidden_log_z(target)
    monkeypatch.setattr("gwg_dist.evaluation.hidden.AT_ONCE", 1)
    assert hidden_log_z(target) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("at_once", [1, 100, 2**22])
def test_how_long_a_sum_takes_is_that_of_all_its_parts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part takes a second by a clock that counts."""
    monkeypatch.setattr("gwg_dist.evaluation.hidden.AT_ONCE", at_once)
    ticks = itertools.count()
    monkeypatch.setattr("gwg_dist.evaluation.hidden.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    target = Target(RBMEnergy(Binary(6), num_hidden=7))
    assert hidden_seconds(target) == len(list(hidden._parts(target)))


def test_more_hidden_units_are_summed_where_that_is_quick(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = EBMModule(RBMEnergy(Binary(21), num_hidden=21))
    run: Any = SimpleNamespace(module=module)
    assert estimate.exact_way(run, aloud=True) == "the sum over hidden units"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(estimate, "MAX_EXACT_SECONDS", 0.0)
    assert estimate.exact_way(run, aloud=True) is None
    assert "log Z is not summed over 2^21 states of the hidden units: it would take" in capsys.readouterr().err
    run.module = EBMModule(RBMEnergy(Binary(21), num_hidden=20))
    assert estimate.exact_way(run) == "the sum over hidden units"


def test_what_has_no_hidden_units_or_too_many_is_refused() -> None:
    assert num_hidden_units(make_target(Binary(4), "mlp")) is None
    assert num_hidden_units(make_target(Binary(4), "rbm")) == 5
    with pytest.raises(ValueError, match="needs an energy that has some, got MLPEnergy"):
        hidden_log_z(make_target(Binary(4), "mlp"))
    with pytest.raises(ValueError, match="at most 24 hidden units can be summed over, got 25"):
        hidden_log_z(Target(RBMEnergy(Binary(4), num_hidden=25)))


def test_evaluate_sums_over_few_hidden_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 sites are too many points to sum over; 6 units are not. AIS agrees within its error."""
    monkeypatch.chdir(tmp_path)
    np.savez("my.npz", x=np.random.default_rng(0).integers(0, 2, (90, 30)))
    rbm = ["--model.energy=RBMEnergy", "--model.energy.num_hidden=6"]
    few = [arg for arg in SMALL if "energy" not in arg]
    run_fit(Path("run"), "my.npz", *few, *rbm, "--trainer.max_steps=60", "--quiet")
    evaluate.main(["run", "--checkpoint=last", "--num_temperatures=200", "--num_chains=100", "--json"])
    shown = capsys.readouterr()
    values = json.loads(shown.out)
    assert "exact, by the sum over hidden units: log Z" in shown.err
    assert values["exact"]["log_z"] == hidden_log_z(load_run("run", "last").module.target)
    assert abs(values["ais"]["log_z"] - values["exact"]["log_z"]) < 5 * values["ais"]["stderr"]
