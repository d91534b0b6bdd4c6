"""The stated intervals of log Z on random small models whose log Z is summed, and mistakes that they would show.

``bench --only calibration`` does the same on 200 models.
"""

import inspect
import textwrap
from importlib import import_module
from typing import Any

import pytest

from gwg_dist.bench.calibration import Calibration, calibration, summary

NUM_MODELS, NUM_STRONG = 60, 15


def by_way(**settings: Any) -> dict[str, Calibration]:
    return {row.way: row for row in summary(calibration(**settings))}


@pytest.fixture(scope="module")
def found() -> dict[str, Calibration]:
    return by_way(num_models=NUM_MODELS)


def test_intervals_cover_as_often_as_they_say(found: dict[str, Calibration]) -> None:
    """Nine tenths and more where 95 % is said and no warning; of 60 with a coverage of .95, 54 are 1.8 errors below."""
    assert list(found) == [
        "forward AIS",
        "SMC",
        "reverse AIS",
        "Bennett",
        "combined",
        "Bennett, SMC",
        "combined, SMC",
        "MBAR",
    ]
    for row in found.values():
        assert row.num >= 0.75 * NUM_MODELS, row
        assert row.covered >= 0.9, row
        assert row.width < 1, row


def test_errors_are_normal_and_sides_lean_as_they_should(found: dict[str, Calibration]) -> None:
    for row in found.values():
        assert row.num_even >= 20, row
        assert row.p_value > 1e-3, row
        assert leans(row), row


def leans(row: Calibration) -> bool:
    """Forward estimates are low on average and reverse ones high, by Jensen's inequality."""
    if row.way == "reverse AIS":
        return row.bias > 0
    return row.way not in ("forward AIS", "SMC") or row.bias < 1.5 * row.bias_error


WEIGH = "self.log_weights.add_(self.state.f, alpha=self.increments[t])"
STEP = "self.state, _ = kernel.step(target, self.state, kernel.draw(self.state, self.generator))"
MUTANTS: dict[str, tuple[str, str, list[tuple[str, str]], str]] = {
    "weights of the wrong sign": ("annealing", "_Chains.advance", [("alpha=", "alpha=-")], "forward AIS"),
    "kernel before the weight": (
        "annealing", "_Chains.advance", [(WEIGH, "pass"), (STEP, f"{STEP}; {WEIGH}")], "forward AIS"
    ),
    "resampling by inverted weights": ("smc", "resampled", [("softmax(log", "softmax(-log")], "SMC"),
    "effective size upside down": (
        "ais", "summarize",
        [("scaled.sum() ** 2 / scaled.square().sum()", "scaled.square().sum() / scaled.sum() ** 2")], "forward AIS"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_power_a_mistake_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many warnings, too few covered, or an average on the other side."""
    where, function, changes, way = MUTANTS[name]
    owner = module = import_module(f"gwg_dist.evaluation.{where}")
    *outer, function = function.split(".")
    for each in outer:
        owner = getattr(owner, each)
    source = textwrap.dedent(inspect.getsource(getattr(owner, function)))
    for old, new in changes:
        assert source.count(old) == 1, f"the mutation no longer applies: {old!r}"
        source = source.replace(old, new)
    namespace = dict(vars(module))
    exec(compile("from __future__ import annotations\n" + source, "mutant", "exec"), namespace)
    monkeypatch.setattr(owner, function, namespace[function])
    assert not is_right(strong()[way])


def test_without_a_mistake_none_is_seen() -> None:
    found = strong()
    assert all(is_right(found[way]) for *_, way in MUTANTS.values())


def strong() -> dict[str, Calibration]:
    return by_way(num_models=NUM_STRONG, strengths=(1.0, 1.6))


def is_right(row: Calibration) -> bool:
    return row.num >= 0.75 * NUM_STRONG and row.covered >= 0.8 and leans(row)
