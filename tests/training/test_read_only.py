"""Runs on a disk that can only be read, as in an archive or another user's folder."""

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gwg_dist import evaluate, sample
from tests.support.runs import fails, run_fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "run"
    return run_fit(folder, "--trainer.max_steps=4", "--evaluation.every=2", "--pictures_every=0")


@pytest.fixture
def read_only(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run; permissions do not stop root, so making folders and files there is refused by hand."""
    mkdir, temporary = Path.mkdir, tempfile.TemporaryFile

    def refuse(path: Path) -> None:
        if path.is_relative_to(finished):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    def no_mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        refuse(self)
        mkdir(self, *args, **kwargs)

    def no_file(*args: Any, dir: Any = None, **kwargs: Any) -> Any:
        refuse(Path(dir or "/"))
        return temporary(*args, dir=dir, **kwargs)

    monkeypatch.setattr(Path, "mkdir", no_mkdir)
    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    return finished


def test_evaluate_prints_what_it_cannot_keep(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in read_only.rglob("*")}
    args = [str(read_only), "--num_temperatures=10", "--num_chains=10", "--checkpoint=last"]
    evaluate.main(args)
    printed = capsys.readouterr().err
    assert "cannot be written to: the estimate is printed and not kept; --out=FILE.json keeps it" in printed
    assert "log-likelihood" in printed
    assert "written to" not in printed.replace("cannot be written to", "")
    evaluate.main([*args, f"--out={tmp_path / 'mine.json'}"])
    assert json.loads((tmp_path / "mine.json").read_text())["iteration"] == 4
    assert "out: " in fails(evaluate.main, [*args, f"--out={read_only / 'new/mine.json'}"], capsys)
    assert {path: path.stat().st_mtime_ns for path in read_only.rglob("*")} == before


def test_sample_writes_where_it_can(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sample.main([str(read_only), "--num=5", "--num_steps=2", "--checkpoint=last"])
    assert "written to samples-5.npz" in capsys.readouterr().err
    assert np.load(tmp_path / "samples-5.npz")["x"].shape[0] == 5
