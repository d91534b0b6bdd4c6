"""``trainer.max_time`` is the time of one start, and the end says what is left."""

import time
from pathlib import Path

import pytest

from gwg_dist import fit
from tests import plugins
from tests.support.runs import checkpoint, command, fails, run_fit

CALM = ["--evaluation.every=0", "--pictures_every=0"]
SLOW = [*CALM, "--trainer.max_steps=60", "--trainer.max_time=00:00:00:01", "--trainer.callbacks=tests.plugins.Calls"]


def test_the_time_of_a_start_counts_from_that_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning counts all starts together: a second one would end at once."""
    monkeypatch.setattr(plugins.Calls, "function", lambda step: time.sleep(0.05))
    run_dir = run_fit(tmp_path / "run", *SLOW)
    first = checkpoint(run_dir / "last.ckpt")["global_step"]
    assert 0 < first < 60
    printed = capsys.readouterr().err
    line = f"the time is over (trainer.max_time) at iteration {first} of 60, {60 - first} are left to train"
    assert f"{line}: python -m gwg_dist.fit --resume {run_dir}" in printed
    fit.main(["--resume", str(run_dir), "--trust=tests"])
    second = checkpoint(run_dir / "last.ckpt")["global_step"]
    assert second >= min(first + 2, 60)
    fit.main(
        [
            "--resume",
            str(run_dir),
            "--trust=tests",
            "--trainer.max_time=00:01:00:00",
            f"--trainer.max_steps={second + 1}",
        ]
    )
    capsys.readouterr()
    fit.main(["--resume", str(run_dir), "--trust=tests", f"--trainer.max_steps={second + 1}"])
    printed = capsys.readouterr().err
    assert f"nothing is left to train: the run is at iteration {second + 1}, and trainer.max_steps is" in printed
    assert "the time is over" not in printed


@pytest.mark.parametrize(
    ("value", "expected"), [("1h", "like 00:08:00:00 (DD:HH:MM:SS), got 1h"), ("00:00:00:00", "positive")]
)
def test_what_is_no_time_is_one_line(
    value: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"trainer.max_time must be {expected}" in fails(
        fit.main, command(tmp_path / "run", f"--trainer.max_time={value}"), capsys
    )
    assert not (tmp_path / "run").exists()
