"""A run's model without its data, and what is said where the data are asked for."""

from pathlib import Path

import numpy as np
import pytest

from gwg_dist import evaluate, fit, sample
from gwg_dist.spaces import Binary, Categorical, read_space
from gwg_dist.training.loading import load_run
from tests.support.runs import command, fails


@pytest.mark.parametrize(
    "space", [Binary(7), Binary((2, 3)), Categorical(5, 3), Categorical((2, 3, 4), 21), Categorical((1, 3), (2, 9, 4))]
)
def test_a_space_is_read_as_it_is_written(space: object) -> None:
    assert read_space(repr(space)) == space


@pytest.mark.parametrize(
    "text",
    ["", "Binary((0,))", "Binary((2,), num_categories=3)", "Categorical((2,))", "Binary((2,), num_categories=(2, 3))"],
)
def test_anything_else_is_no_space(text: str) -> None:
    with pytest.raises(ValueError, match=r"no space|positive"):
        read_space(text)


def test_samples_need_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = tmp_path / "my.npy", tmp_path / "run"
    np.save(path, np.random.default_rng(0).integers(0, 2, (60, 6)))
    fit.main([*command(run, "--trainer.max_steps=2", "--pictures_every=0"), str(path)])
    loaded = load_run(run, "last", device="cpu")
    assert len(loaded.data.splits.train) == 48
    path.rename(tmp_path / "elsewhere.npy")
    assert load_run(run, "last", device="cpu").module.space == Binary(6)
    sample.main([str(run), "--num=4", "--num_steps=2", "--checkpoint=last", "--device=cpu"])
    assert (run / "samples-4.npz").is_file()
    gone = f"data.path: there is no file {path}"
    assert gone in fails(evaluate.main, [str(run), "--checkpoint=last", "--device=cpu", "--num_chains=4"], capsys)
    assert gone in fails(fit.main, ["--resume", str(run), "--trainer.max_steps=4"], capsys)
    np.save(path, np.random.default_rng(0).integers(0, 2, (60, 7)))
    args = [str(run), "--checkpoint=last", "--device=cpu", "--num_chains=4"]
    assert "the data are in Binary((7,)) by now" in fails(evaluate.main, args, capsys)
