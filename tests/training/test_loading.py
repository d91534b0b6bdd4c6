"""A run's model without its data, and what is said where the data are asked for."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from gwg_dist import complete, evaluate, export, fit, sample
from gwg_dist.spaces import Binary, Categorical, read_space
from gwg_dist.training.loading import load_run
from tests.support.runs import command, fails

importing = importlib.import_module("gwg_dist.import")


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


ROWS = "name,colour,size\n" + "".join(f"{'ab'[n % 2]},{('red', 'green', 'blue')[n % 3]},{n % 4}\n" for n in range(48))
FASTA = "".join(f">s{n}\n{'ACGT'[n % 4]}X-{'GA'[n % 2]}{'CT'[n % 3 > 0]}n\n" for n in range(40))
TEXT = "the cat sat on the mat and the dog sat on the log " * 8


@pytest.mark.parametrize(
    ("name", "content", "settings", "questions", "expected"),
    [
        ("my.csv", ROWS, [], "size,colour,name\n3,red,\n", r"[ab],red,3"),
        ("my.fasta", FASTA, ["--data.alphabet=-ACGT"], ">q\nCX-AT-\n", r"C[-ACGT]-AT"),
        ("my.txt", TEXT, ["--data.length=8"], "the_cat \n", r"the cat "),
    ],
)
def test_words_are_kept_where_the_data_have_gone(
    name: str,
    content: str,
    settings: list[str],
    questions: str,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What complete writes without the file of the data, with another one in its place, and after an export."""
    path, run, asked = tmp_path / name, tmp_path / "run", tmp_path / f"asked{Path(name).suffix}"
    path.write_text(content)
    asked.write_text(questions)
    fit.main([*command(run, "--trainer.max_steps=2", "--pictures_every=0"), *settings, str(path)])
    known = load_run(run, "last", device="cpu").data
    names = known.site_names(), known.category_names(), known.lines(known.encode_file(asked, missing_as=0)[0])
    path.rename(path.with_name(f"elsewhere{path.suffix}"))
    folders = {run: "last"}
    if known.is_aligned:
        export.main([str(run), "--format=npz", "--checkpoint=last", f"--out={tmp_path / 'model.npz'}"])
        importing.main([str(tmp_path / "model.npz"), f"--run_dir={tmp_path / 'theirs'}"])
        folders[tmp_path / "theirs"] = "best"
    for folder, weights in folders.items():
        data = load_run(folder, weights, device="cpu").data
        assert (data.site_names(), data.category_names(), data.lines(data.encode_file(asked, missing_as=0)[0])) == names
        out = tmp_path / f"{folder.name}{path.suffix}"
        complete.main([str(folder), str(asked), f"--out={out}", f"--checkpoint={weights}", "--device=cpu"])
        assert re.search(f"^{expected}$", out.read_text(), re.MULTILINE)
    path.write_text(content.replace("red", "crimson").replace("A", "N").replace("cat", "cow"))
    capsys.readouterr()
    data = load_run(run, "last", device="cpu").data
    assert (data.site_names(), data.category_names()) == names[:2]
