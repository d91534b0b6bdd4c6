"""``gwg_dist complete``: what was given comes back, what is exact is so, accuracies and pictures, mistakes."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import complete
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.spaces import Binary
from gwg_dist.training.completing import sites_named, suffix_as, with_holes
from gwg_dist.training.loading import load_run
from tests.support.runs import SMALL, fails, run_fit

RNG = np.random.default_rng(0)


def trained(folder: Path, x: np.ndarray, energy: str, steps: int) -> Path:
    np.savez(folder / "my.npz", x=x)
    few = [arg for arg in SMALL if "energy" not in arg and "learning_rate" not in arg]
    before = Path.cwd()
    os.chdir(folder)
    try:
        more = [f"--model.energy={energy}", f"--trainer.max_steps={steps}", "--model.learning_rate=0.03", "--quiet"]
        return run_fit(folder / "run", "my.npz", *few, *more)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Potts model of six sites with three categories, the last three copies of the first."""
    first = RNG.integers(0, 3, (300, 3))
    return trained(tmp_path_factory.mktemp("complete"), np.concatenate([first, first], 1), "PottsEnergy", 150)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_holes_of_a_table_are_filled_exactly(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "holes.csv").write_text("a,b,c,d,e,f\n0,1,2,0,1,\n2,?,0,2,1,0\n,,,1,1,1\n1,1,1,1,1,1\n")
    args = [str(run), str(tmp_path / "holes.csv"), "--checkpoint=last"]
    complete.main([*args, f"--out={tmp_path / 'full.csv'}"])
    assert (tmp_path / "full.csv").read_text() == "0,1,2,0,1,2\n2,1,0,2,1,0\n1,1,1,1,1,1\n1,1,1,1,1,1\n"
    assert "exact, by enumeration: 3 points" in capsys.readouterr().err
    complete.main([*args, "--what=marginals", f"--out={tmp_path / 'p.csv'}"])
    found = rows(tmp_path / "p.csv")
    assert len(found) == 5 * 3
    log_prob, _ = exact_log_prob(load_run(run, "last").module.target)
    place = 3 ** np.arange(5, -1, -1)
    three = torch.stack([log_prob[np.array([0, 1, 2, 0, 1, k]) @ place] for k in range(3)]).softmax(0)
    assert [float(row["probability"]) for row in found[:3]] == pytest.approx(three.tolist(), abs=1e-5)
    assert (found[0]["name"], found[0]["site"], found[0]["category"]) == ("1", "6", "0")


def test_samples_keep_what_was_given(run: Path, tmp_path: Path) -> None:
    x = RNG.integers(0, 3, (5, 6))
    holes = np.where(RNG.random(x.shape) < 0.4, -1, x)
    np.save(tmp_path / "holes.npy", holes)
    complete.main(
        [
            str(run),
            str(tmp_path / "holes.npy"),
            "--what=samples",
            f"--out={tmp_path / 's.npz'}",
            "--num_chains=3",
            "--checkpoint=last",
        ]
    )
    found = np.load(tmp_path / "s.npz")["x"].reshape(5, 3, 6)
    given = np.repeat(holes[:, None], 3, 1)
    assert (found[given >= 0] == given[given >= 0]).all()
    assert found.min() >= 0


def test_hidden_cells_are_judged_beside_baselines(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete.main([str(run), "train", "--hide=0.2", "--checkpoint=last", f"--out={tmp_path / 'full.npz'}"])
    printed = capsys.readouterr().err
    assert "288 hidden cells" in printed  # a fifth of 240 points of 6 sites
    model, majority = (float(re.findall(rf"{name}\D+([\d.]+)", printed)[0]) for name in ("model", "commonest category"))
    assert model > 0.75
    assert majority < 0.5
    assert "logistic regression" in printed
    first, again = (with_holes(torch.zeros(10, 6), 0.2, [1], seed) for seed in (0, 0))
    assert torch.equal(first, again)
    assert int((first < 0).sum()) == 10 + 10
    assert not torch.equal(first, with_holes(torch.zeros(10, 6), 0.2, [1], 1))


def test_images_are_painted_in_by_chains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = (RNG.random((60, 6, 5)) < 0.5).astype(np.uint8)
    images[:, 3:] = images[:, :3]
    run = trained(tmp_path, images, "IsingEnergy", 30)
    complete.main([str(run), "test", "--mask=16-30", "--what=samples", "--checkpoint=last", "--num_steps=60"])
    assert "by chains, 4 of 60 steps each: 6 points" in capsys.readouterr().err
    assert (run / "completed-test.npz").is_file()
    assert (run / "completed-test.png").is_file()
    given = load_run(run, "last").data.splits.test.numpy()[:, :15]
    found = np.load(run / "completed-test.npz")["x"].reshape(6, 4, 30)
    assert (found[:, :, :15] == given[:, None]).all()
    assert load_run(run, "last").module.space == Binary((6, 5))


def test_the_suffix_is_that_of_the_file_where_such_files_are_written(run: Path) -> None:
    data = load_run(run, "last").data
    assert [suffix_as(name, data) for name in ("a.v2.CSV", "test", "b.parquet", "c.npy")] == [
        ".csv", ".npz", ".npz", ".npy"
    ]  # fmt: skip


def test_sites_by_name_and_by_range() -> None:
    assert sites_named("2-4,7", [str(n) for n in range(1, 9)]) == [1, 2, 3, 6]
    assert sites_named("cap-shape,b-c", ["cap-shape", "a", "b", "c"]) == [0, 2, 3]
    assert sites_named(None, ["1"]) == []


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "none.npy", np.full((3, 6), -1))
    np.save(tmp_path / "full.npy", np.zeros((3, 6), int))
    np.save(tmp_path / "wide.npy", np.full((3, 7), -1))
    holes = str(tmp_path / "none.npy")
    for args, message in (
        ([str(run), holes], "every site of"),
        ([str(run), str(tmp_path / "full.npy")], "nothing is missing in"),
        ([str(run), str(tmp_path / "wide.npy")], "with 6 numbers a point"),
        ([str(run), "test", "--mask=9"], "there is no site '9'; they are 1 to 6"),
        ([str(run), "test", "--hide=1"], "hide must lie in [0, 1), got 1"),
        ([str(run), "test", "--what=all"], "what must be one of mode, samples, marginals, got 'all'"),
        ([str(run), "test", "--hide=.2", "--num_chains=1"], "num_chains must be at least 2"),
        ([str(run), "test", "--hide=.2", f"--out={holes}"], "nothing is overwritten"),
        ([str(run), "test", "--hide=.2", "--what=marginals", "--out=a.npz"], "out must end in .csv"),
        ([str(run), "test", "--hide=.2", "--num_steps=-1", "--out=a.parquet"], "out must end in .npz or .npy or .csv"),
        ([str(tmp_path), "test"], "is no run folder"),
    ):
        assert message in fails(complete.main, [*args, "--checkpoint=last"], capsys)
