"""A file of settings is not code: classes that it names are imported where the user trusts them, and nowhere else."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace, _common

from gwg_dist import evaluate, fit, launch, sample
from gwg_dist.tools import trust
from gwg_dist.tools.errors import InputError
from gwg_dist.training.checkpoints import read_checkpoint
from gwg_dist.training.loading import load_run
from gwg_dist.training.settings import build_parser, check_optimizer, instantiate
from tests.support.runs import SMALL, fails, run_fit

STRANGER = """
from pathlib import Path
Path(__file__).with_name("imported").touch()
from gwg_dist.energies import RBMEnergy
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD

class Theirs(RBMEnergy): pass
class Called(Callback): pass
class Descent(SGD): pass

def make(lr: float = 0.1) -> SGD:
    Path(__file__).with_name("called").touch()
    return SGD([], lr=lr)
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves the file ``imported`` beside it, in the current folder as of a copied run."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return tmp_path


def written(folder: Path, key: str, value: Any) -> Path:
    """A file of settings with one dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


SHELL = {"class_path": "os.system", "init_args": {"command": "touch imported"}}
TEXT = {"class_path": "gwg_dist.tools.files.write_text", "init_args": {"path": "imported", "text": ""}}
HOSTILE = [
    ("model.optimizer", SHELL, "model.optimizer: os.system belongs to Python itself"),
    ("model.optimizer", "os.system", "model.optimizer: os.system belongs to Python itself"),
    ("model.optimizer", {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}, "belongs to Python itself"),
    ("model.optimizer", TEXT, "model.optimizer: gwg_dist.tools.files.write_text is no class of gwg_dist"),
    ("model.optimizer", "stranger.make", "model.optimizer: stranger.make is no class of gwg_dist"),
    ("model.optimizer", {"class_path": "stranger.Descent"}, "add --trust=stranger"),
    ("model.energy", "stranger.Theirs", "model.energy: stranger.Theirs is no class of gwg_dist"),
    ("model.energy", {"class_path": "stranger.Theirs"}, "add --trust=stranger where you trust that code"),
    ("model.sampler", "gwg_dist.samplers.run.torch.load", "gwg_dist.samplers.run.torch.load is no class|torch."),
    ("data", {"class_path": "stranger.Theirs"}, "data: stranger.Theirs"),
    ("trainer.callbacks", [{"class_path": "stranger.Called"}], "trainer.callbacks: stranger.Called"),
    ("trainer.logger", "stranger.Theirs", "trainer.logger: stranger.Theirs"),
    ("trainer.plugins", {"class_path": "stranger.Theirs"}, "trainer.plugins: stranger.Theirs"),
    ("trainer.strategy", {"class_path": "stranger.Theirs"}, "trainer.strategy: stranger.Theirs"),
    ("trainer.profiler", {"class_path": "stranger.Theirs"}, "trainer.profiler: stranger.Theirs"),
    ("trainer.callbacks", {"class_path": "LambdaCallback"}, "callbacks.LambdaCallback"),
    ("trust", "stranger", "trust: a file cannot give it: add --trust=stranger to the command line"),
    ("trust", "*", "trust: a file cannot give it"),
]


@pytest.mark.parametrize(("key", "value", "expected"), HOSTILE, ids=str)
def test_a_file_of_settings_is_not_code(
    key: str, value: Any, expected: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(stranger, key, value)
    message = fails(build_parser().parse_args, ["--config", str(path)], capsys)
    assert any(part in message for part in expected.split("|")), message
    assert not (stranger / "imported").exists()


def test_every_verb_that_opens_a_run_refuses(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stranger / "run"
    run.mkdir()
    path = written(run, "model.optimizer", SHELL)
    torch.save({}, run / "best.ckpt")
    torch.save({}, run / "last.ckpt")
    for main, args in (
        (fit.main, ["--config", str(path)]),
        (fit.main, ["--resume", str(run)]),
        (fit.main, ["--resume", str(run), "--trust"]),
        (evaluate.main, [str(run)]),
        (evaluate.main, [str(run), "--trust"]),
        (sample.main, [str(run)]),
        (launch.main, ["--submit=false", "--", "--resume", str(run)]),
    ):
        assert "os.system belongs to Python itself" in fails(main, args, capsys)
    with pytest.raises(InputError, match=r"config.yaml: model.optimizer: os.system belongs to Python itself"):
        load_run(run, trust="*")
    assert not (stranger / "imported").exists()


def test_a_sweep_is_a_file_as_well(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    from gwg_dist.tune import cli
    from gwg_dist.tune.recipe import Recipe
    from gwg_dist.tune.space import parse_space

    space = {"model.learning_rate": {"choice": [0.1]}}
    sweep = {"metric": "val/log_likelihood", "settings": {"model.energy": "stranger.Theirs"}, "space": space}
    (stranger / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert "add --trust=stranger" in fails(cli.main, ["--config", "sweep.yaml"], capsys)
    assert not (stranger / "imported").exists()
    recipe = Recipe(None, sweep["settings"], parse_space(space), trust="stranger")
    start = recipe.start(0, {"model.learning_rate": 0.1}, workers=1)
    assert "--trust=stranger" in start.args, "a trial is told whom to trust"
    assert type(recipe.config({}).model.energy.class_path) is str


def test_what_is_trusted_is_built(stranger: Path) -> None:
    path = written(stranger, "model.energy", {"class_path": "stranger.Theirs", "init_args": {"num_hidden": 3}})
    for option in ("--trust", "--trust=stranger", "--trust=other,stranger"):
        parser = build_parser()
        config = parser.parse_args([option, "--config", str(path)])
        assert type(instantiate(parser, config).model.energy).__name__ == "Theirs"
        assert "stranger.Theirs" in parser.dump(config)


def test_what_is_typed_is_trusted_and_nothing_else(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser()
    assert trust.option_for(parser.parse_args(["--model.energy=stranger.Theirs"])) == " --trust=stranger"
    path = written(stranger, "model.sampler", "tests.plugins.Stay")
    args = ["--model.energy=stranger.Theirs", "--config", str(path)]
    assert "tests.plugins.Stay is no class of gwg_dist" in fails(build_parser().parse_args, args, capsys)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--model.energy=my.Ring"], ("my",)),
        (["--model.energy", "my.sub.Ring"], ("my",)),
        (['--trainer.callbacks=[{"class_path": "my.Ring"}]', "--trainer.callbacks+=your.Ring"], ("my", "your")),
        (["--config=my.yaml", "--run_dir", "my.run", "--resume=my.run", "my.run"], ()),
        (["--model.optimizer=torch.optim.SGD", "--data=gwg_dist.data.Digits"], ()),
        (["--model.optimizer=os.system", "--model.learning_rate=0.1", "--evaluation.every", "3"], ()),
        (["--model.chains.size=7", "my.Ring"], ()),
    ],
)
def test_names_in_what_is_typed(args: list[str], expected: tuple[str, ...]) -> None:
    assert trust.typed(args) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("os", "os belongs to Python itself"), ("my-energy", "such as my_energy, got 'my-energy'"),
     ("a,os.path", "os.path belongs to Python itself")],
)  # fmt: skip
def test_what_cannot_be_trusted(value: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in fails(build_parser().parse_args, [f"--trust={value}"], capsys)
    with pytest.raises(InputError, match=expected):
        trust.modules(value)


def test_an_optimizer_is_one_before_it_is_called(stranger: Path) -> None:
    """Also where its module is trusted: a function is not called to find out what it returns."""
    path = written(stranger, "model.optimizer", {"class_path": "stranger.make", "init_args": {"lr": 1.0}})
    parser = build_parser()
    parser.exit_on_error = False
    with pytest.raises(InputError, match=r"model.optimizer must be a subclass of torch.optim.Optimizer, got stranger"):
        instantiate(parser, parser.parse_args(["--trust", "--config", str(path)]))
    assert not (stranger / "called").exists()
    for optimizer in ("SGD", "torch.optim.RMSprop", "stranger.Descent"):
        check_optimizer(build_parser().parse_args([f"--model.optimizer={optimizer}"]))


def test_the_library_is_left_as_it_was(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(_common.parsing_settings)
    fails(build_parser().parse_args, ["--config", str(written(stranger, "model.energy", "stranger.Theirs"))], capsys)
    build_parser().parse_args(["--trust=stranger"])
    assert _common.parsing_settings == before


def test_a_run_of_own_classes_is_opened_by_who_trusts_them(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [arg for arg in SMALL if not arg.startswith("--model.energy")]
    own = ["--model.energy=stranger.Theirs", "--model.energy.num_hidden=3"]
    fit.main([*small, *own, "--run_dir=run", "--trainer.max_steps=4", "--evaluation.every=0", "--pictures_every=0"])
    assert capsys.readouterr().err.count("--trust=stranger") >= 3, "in every command that is printed to go on with"
    assert "trust" not in (stranger / "run/config.yaml").read_text()
    assert "add --trust=stranger" in fails(sample.main, ["run", "--checkpoint=last", "--num=2"], capsys)
    sample.main(["run", "--checkpoint=last", "--num=2", "--num_steps=1", "--trust=stranger"])
    assert type(load_run("run", "last", device="cpu", trust="stranger").module.energy).__name__ == "Theirs"
    launch.main(["--submit=false", "--gpus=0", "--", "--resume", "run", "--trust"])
    assert "launched.yaml --trust=" in (stranger / "run/job.sbatch").read_text()
    assert trust.option_for(Namespace(model={"energy": {"class_path": "a.b.C"}}, trust="d")) == " --trust=d,a"


class Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("imported"),))


def test_a_checkpoint_is_not_code(stranger: Path) -> None:
    run_dir = run_fit(stranger / "run", "--trainer.max_steps=2", "--evaluation.every=0", "--pictures_every=0")
    good = torch.load(run_dir / "last.ckpt", weights_only=True)
    for contents in (Hostile(), good | {"callbacks": Hostile()}, good | {"chains": {"packed": Hostile()}}):
        torch.save(contents, run_dir / "last.ckpt")
        with pytest.raises(InputError, match="truncated or no checkpoint"):
            load_run(run_dir, "last")
        (run_dir / "last.ckpt").write_bytes(pickle.dumps(contents if isinstance(contents, Hostile) else Hostile()))
        with pytest.raises(InputError, match="truncated or no checkpoint"):
            read_checkpoint(run_dir / "last.ckpt")
    assert not (stranger / "imported").exists()
