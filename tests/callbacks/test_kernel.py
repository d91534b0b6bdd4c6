"""A run that goes on with another implementation of its kernel says so: its random numbers are others from there on."""

import logging
from pathlib import Path

import pytest

from gwg_dist import fit
from gwg_dist.samplers.fast import native
from tests.support.runs import checkpoint, run_fit

QUIET = ["--evaluation.every=0", "--pictures_every=0"]
LINE = "chains go on by GWG, before by BinaryGWG: from here on other random numbers"


@pytest.mark.skipif(native.compiler() is None, reason="there is no C compiler")
def test_a_change_of_the_kernel_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_fit(tmp_path / "run", *QUIET, "--trainer.max_steps=4")
    named = checkpoint(folder / "last.ckpt")["gwg_dist"]["kernel"]
    assert named == {"sampler": "GWG(temperature=2.0, balancing='sqrt')", "kernel": "BinaryGWG"}
    with caplog.at_level(logging.WARNING, logger="gwg_dist"):
        fit.main(["--resume", str(folder), "--trainer.max_steps=6"])
        assert LINE not in caplog.text, "nothing has changed"
        monkeypatch.setattr(native, "library", lambda: None)
        fit.main(["--resume", str(folder), "--trainer.max_steps=8"])
        assert caplog.text.count(LINE) == 1
        caplog.clear()
        fit.main(["--resume", str(folder), "--trainer.max_steps=10", "--model.sampler=Gibbs"])
        assert "chains go on by" not in caplog.text, "another sampler is the user's own choice"
    assert checkpoint(folder / "last.ckpt")["gwg_dist"]["kernel"]["kernel"] == "Gibbs"


def test_a_loss_without_chains_has_no_kernel(tmp_path: Path) -> None:
    folder = run_fit(tmp_path / "run", *QUIET, "--trainer.max_steps=2", "--model.objective=PseudoLikelihood")
    assert checkpoint(folder / "last.ckpt")["gwg_dist"]["kernel"] == {"sampler": "none", "kernel": "none"}
