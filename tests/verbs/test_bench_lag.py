"""The study of the lag: its figures by hand, and one of its runs."""

import math
from pathlib import Path

import pytest

from gwg_dist.bench.lag import Outcome, lag_study, outcome, spearman, summary
from gwg_dist.tools.errors import InputError


def ended(lag: float, gain: float) -> Outcome:
    drift = math.nan if gain == -math.inf else 0.0
    return Outcome(100, 5, 1e-3, lag=lag, gain=gain, drift=drift, collapsed=False, seconds=1.0)


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3], [10, 20, math.inf]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832981)


def test_flagged_and_failed() -> None:
    found = summary([ended(1, 5.0), ended(30, 4.0), ended(40, -1.0), ended(math.inf, -math.inf), ended(2, 0.0)])
    assert found["spearman(lag, -gain)"] == pytest.approx(0.9)
    counts = [found[key] for key in ("flagged and failed", "flagged, not failed", "failed, not flagged", "neither")]
    assert counts == [2, 1, 1, 1]


def test_a_run_of_the_study() -> None:
    settings = ["--data=Digits", "--model.energy.num_hidden=4", "--trainer.max_steps=20"]
    run = outcome(settings, size=200, steps=2, rate=1e-3, temperatures=10)
    assert (run.size, run.steps, run.rate) == (200, 2, 1e-3)
    assert 0 < run.lag < math.inf
    assert math.isfinite(run.gain)
    assert math.isfinite(run.drift)
    diverged = outcome([*settings, "--guard.max_gap=1e-9"], size=200, steps=2, rate=1e-1, temperatures=10)
    assert (diverged.failed, diverged.gain) == (True, -math.inf)


def test_a_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data_dir: there is no file"):
        lag_study(quick=True, data_dir=str(tmp_path))
