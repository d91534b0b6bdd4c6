"""What a checkpoint survives: torn files, a full disk, being read by a program that trusts nobody."""

import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gwg_dist import fit
from gwg_dist.tools.errors import InputError
from gwg_dist.training.checkpoints import AtomicCheckpointIO, newest_checkpoint, read_checkpoint
from tests.support.runs import assert_same_state, checkpoint, command, fails, run, run_fit, run_piped

SETTINGS = ["--checkpoint_every=5", "--evaluation.every=10", "--pictures_every=0"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stood at 15 and then at 20."""
    return run_fit(tmp_path_factory.mktemp("checkpoints") / "run", "--trainer.max_steps=20", *SETTINGS)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_fit(tmp_path_factory.mktemp("checkpoints") / "calm", "--trainer.max_steps=30", *SETTINGS)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def lose_a_page(path: Path) -> None:
    """What a file looks like whose size was written and a page of its contents not."""
    contents = bytearray(path.read_bytes())
    weights = checkpoint(path)["chains"]["packed"].numpy().tobytes()
    start = contents.index(weights)
    contents[start : start + len(weights)] = bytes(len(weights))
    path.write_bytes(bytes(contents))


@pytest.mark.parametrize("damage", [cut, lose_a_page, Path.unlink], ids=lambda damage: damage.__name__)
def test_a_damaged_last_gives_way_to_the_previous(
    damage, stopped: Path, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    damage(run_dir / "last.ckpt")
    with pytest.raises(InputError):
        read_checkpoint(run_dir / "last.ckpt")
    capsys.readouterr()
    fit.main(["--resume", str(run_dir), "--trainer.max_steps=30"])
    printed = " ".join(capsys.readouterr().err.split())
    assert "going on with" in printed
    assert "previous.ckpt" in printed
    assert "going on from iteration 15" in printed
    assert_same_state(run_dir / "last.ckpt", calm / "last.ckpt")


def test_both_damaged_is_an_error_that_names_the_file(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    for name in ("last.ckpt", "previous.ckpt"):
        cut(run_dir / name)
    message = fails(fit.main, ["--resume", str(run_dir)], capsys)
    assert "last.ckpt is truncated or no checkpoint" in message
    assert "previous.ckpt is truncated or no checkpoint" in message
    assert f"{run_dir}/best.ckpt may be whole: go on with --ckpt_path={run_dir}/best.ckpt" in message
    fit.main(["--resume", str(run_dir), f"--ckpt_path={run_dir}/best.ckpt", "--trainer.max_steps=21"])
    assert checkpoint(run_dir / "last.ckpt")["global_step"] == 21


def without(key: str) -> Callable[[dict], object]:
    return lambda contents: contents.pop(key)


def put(value: object, *keys: str | int) -> Callable[[dict], object]:
    """What sets an entry, by the keys that lead to it."""

    def change(contents: Any) -> None:
        for key in keys[:-1]:
            contents = contents[key]
        contents[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("current_model_state"), "the checkpoint is incomplete: it has no current_model_state"),
        (without("averaging_state"), "it has no averaging_state"),
        (without("optimizer_states"), "it has no optimizer_states"),
        (without("callbacks"), "it has no callbacks"),
        (without("global_step"), "it has no global_step"),
        (put("one", "global_step"), "global_step is of type str"),
        (put({}, "gwg_dist"), "it has no energy"),
        (put(None, "chains"), "chains is of type NoneType"),
        (put({}, "chains"), "it has no packed"),
        (put(torch.zeros(3), "chains", "packed"), "the checkpoint's chains are no points of"),
        (put(torch.zeros(150, 9, dtype=torch.uint8), "chains", "packed"), "the checkpoint's chains are no points of"),
        (put([], "optimizer_states"), "its optimizer does not fit"),
        (put({}, "optimizer_states", 0), "its optimizer does not fit"),
        (put(torch.zeros(3, 3), "optimizer_states", 0, "state", 0, "exp_avg"), "exp_avg of the optimizer has shape"),
        (put(torch.zeros(3), "current_model_state", "energy.weight"), "energy.weight has shape (3,) there"),
        (put(1, "state_dict", "energy.weight"), "energy.weight has shape () there"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_shape_is_one_line(
    change: Callable[[dict], object], expected: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = checkpoint(stopped / "last.ckpt")
    change(contents)
    path = tmp_path / "other.ckpt"
    torch.save(contents, path)
    args = [f"--config={stopped / 'config.yaml'}", f"--run_dir={tmp_path / 'run'}", f"--ckpt_path={path}"]
    assert expected in fails(fit.main, args, capsys)
    assert not (tmp_path / "run").exists()


def test_a_hostile_pickle_is_refused(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "harmed"),)

    path = tmp_path / "evil.ckpt"
    torch.save({**checkpoint(stopped / "last.ckpt"), "extra": Hostile()}, path)
    message = fails(fit.main, command(tmp_path / "run", f"--ckpt_path={path}"), capsys)
    assert "evil.ckpt is truncated or no checkpoint" in message
    path.write_bytes(pickle.dumps(Hostile()))
    fails(fit.main, command(tmp_path / "run", f"--ckpt_path={path}"), capsys)
    assert not (tmp_path / "harmed").exists()


def test_a_full_disk_keeps_what_was_there(stopped: Path, tmp_path: Path) -> None:
    """Writes that fail leave the file before; a later save goes on, and nothing lies about."""
    path = tmp_path / "last.ckpt"
    shutil.copy(stopped / "last.ckpt", path)
    before, io = path.read_bytes(), AtomicCheckpointIO()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        io.save_checkpoint({"weights": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written" in io.failure
    assert "File too large" in io.failure
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    io.save_checkpoint({"weights": torch.zeros(1_000_000)}, path)
    assert io.failure == ""
    assert checkpoint(path)["weights"].shape == (1_000_000,)
    assert path.with_name("previous.ckpt").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("last", [37, 100])
def test_a_run_on_a_full_disk_says_so_and_goes_on(last: int, tmp_path: Path) -> None:
    """Nothing can be written from iteration 12 on, for a while or to the end: lines, no traceback, nothing torn."""
    run_dir, log = tmp_path / "run", tmp_path / "log"
    args = command(
        run_dir, "--trainer.max_steps=40", "--evaluation.every=20", "--pictures_every=10", "--checkpoint_every=10",
        "--trainer.log_every_n_steps=1", "--trainer.callbacks=tests.plugins.FullDisk", "--trainer.callbacks.first=12",
        f"--trainer.callbacks.last={last}",
    )  # fmt: skip
    code = run_piped("gwg_dist.fit", args, log)
    printed = log.read_text()
    assert "Traceback" not in printed
    for what in ("metrics", "tensorboard", "a picture of the chains", "last.ckpt", "best.ckpt"):
        assert f"{what} could not be written" in printed, what
    assert printed.count("metrics could not be written") == 1
    assert not list(run_dir.rglob("*.tmp"))
    if last == 37:
        assert code == 0, printed
        assert checkpoint(run_dir / "last.ckpt")["global_step"] == 40
        rows = (run_dir / "metrics/from_0000000/metrics.csv").read_text()
        assert all(f",{step}," in rows for step in range(40)), "the log lost iterations"
    else:
        assert code == 1
        assert "error: the state of iteration 40 could not be kept" in printed
        assert checkpoint(run_dir / "last.ckpt")["global_step"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_last_state_that_cannot_be_kept_is_an_error(processes: int, stopped: Path, tmp_path: Path) -> None:
    """One line, on rank 0, exit code 1, and what was there before."""
    run_dir, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(stopped, run_dir)
    shutil.move(run_dir / "last.ckpt", run_dir / "previous.ckpt")
    (run_dir / "last.ckpt/inside").mkdir(parents=True)  # no file takes the place of a folder
    devices = [f"--trainer.devices={processes}"]
    assert run("gwg_dist.fit", ["--resume", str(run_dir), "--trainer.max_steps=30", *devices], log) == 1
    printed = log.read_text()
    assert printed.count("error: the state of iteration 30 could not be kept") == 1
    assert "Traceback" not in printed
    assert checkpoint(run_dir / "previous.ckpt")["global_step"] == 20


def test_the_file_that_was_asked_for_is_the_one_that_is_read(stopped: Path, tmp_path: Path) -> None:
    """Only a damaged last.ckpt has a stand-in."""
    shutil.copy(stopped / "previous.ckpt", tmp_path / "previous.ckpt")
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"nothing")
    with pytest.raises(InputError, match="other"):
        newest_checkpoint(other)
    assert newest_checkpoint(tmp_path / "last.ckpt")[1]["global_step"] == 15
