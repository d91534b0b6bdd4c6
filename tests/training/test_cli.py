"""Mistakes get one line that names the key, and exit code 2; every experiment in configs/ runs."""

from pathlib import Path

import pytest
import torch
import yaml

from gwg_dist import bench, evaluate, fit, sample
from gwg_dist.training.settings import build_parser
from tests.conftest import ROOT
from tests.support.runs import fails

EXPERIMENTS = sorted((ROOT / "configs/experiment").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--model.nm_steps=3"], "--model.nm_steps=3 (did you mean model.num_steps?)"),
        (["--trainer.max_step=3"], "did you mean trainer.max_steps?"),
        (["--model.sampler.temprature=1"], "'temprature' is not accepted (did you mean model.sampler.temperature?)"),
        (["--model.energy=MPLEnergy"], "there is no class MPLEnergy (did you mean MLPEnergy?)"),
        (["--data=MNIST", "--data.rot=x"], "did you mean data.root?"),
        (["--model.num_steps=many"], 'key "model.num_steps": Expected a int or auto. Got value: many'),
        (["--model.num_steps=0"], "num_steps must be positive, got 0"),
        (["--model.learning_rate=-1"], "learning_rate must be positive, got -1.0"),
        (["--model.sampler.temperature=-1"], "temperature must be positive and finite, got -1.0"),
        (["--model.sampler.temperature=hot"], "Expected a float. Got value: hot"),
        (["--model.chains.size=50"], "model.chains.size must be at least data.batch_size, got 50 and 100"),
        (["--data.batch_size=2000"], "batch_size must be at most the 1257 training points, got 2000"),
        (["--data.binarization=grey"], "binarization must be one of dynamic, static, threshold, none, got 'grey'"),
        (["--evaluation.schedule=cubic"], "schedule must be one of linear, sigmoid, geometric, adaptive, got 'cubic'"),
        (["--seed=-1"], "seed must lie in 0 to 2^32 - 1, got -1"),
        (["--model.backend=compield"], "backend must be one of auto, plain, eager, compiled, graph, got 'compield'"),
        (["--checkpoint_every=0"], "every must be positive, got 0"),
        (["--pictures_every=-1"], "every must not be negative, got -1"),
        (["--trainer.precision=bf16-true"], "trainer.precision bf16-true would round the energies"),
        (["--trainer.strategy=dpp"], "dpp"),
        (["--ema.decay=1"], "decay must lie in [0, 1), got 1.0"),
        (["--adaptation.warmup=-1"], "warmup must not be negative, got -1"),
        (["--adaptation.warmap=100"], "did you mean adaptation.warmup?"),
        (["--trainer.max_steps=0"], "trainer.max_steps must be positive, got 0"),
        (["--model.energy=IsingEnergy", "--data.binarization=none"], "IsingEnergy is for Binary spaces"),
        (
            ["--model.sampler=BlockGibbs", "--model.energy=MLPEnergy"],
            "model.sampler: BlockGibbs needs an energy of pairs of sites",
        ),
        (["--model.sampler=DULA"], "model.sampler: a run estimates its likelihood, for which the kernel must be exact"),
        (["--data=Arrays"], "required: path"),
        (["--data=Arrays", "--data.path=none.npz"], "/none.npz"),  # a run keeps it absolute
        (["--config=none.yaml"], "none.yaml"),
        (["--resume=none"], "none/config.yaml"),
        (["--max_epochs=3"], "--max_epochs=3"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in fails(fit.main, args, capsys)
    assert list(tmp_path.iterdir()) == [], "nothing is written for a mistake"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  nm_steps: 3\n", "'nm_steps' (did you mean model.num_steps?)"),
        (
            "model:\n  sampler:\n    class_path: GWG\n    init_args:\n      temprature: 3\n",
            "did you mean model.sampler.temperature?",
        ),
        ("model: [\n", "config"),
    ],
)
def test_a_mistake_in_a_file(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert expected in fails(fit.main, [f"--config={path}"], capsys)


def test_an_unwritable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    message = fails(fit.main, [f"--run_dir={tmp_path / 'file' / 'run'}"], capsys)
    assert "run_dir:" in message
    assert "cannot be written to" in message


def test_other_commands_name_their_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path)
    for main, args, expected in (
        (evaluate.main, [run, "--num_chains=1"], "num_chains must be at least 2 for a standard error, got 1"),
        (evaluate.main, [], "required: run"),
        (sample.main, [run, "--num=0"], "num must be at least 1, got 0"),
        (sample.main, [run, "--start=noise"], "start must be one of buffer, reference, got 'noise'"),
        (sample.main, [run, "--nmu=3"], "did you mean num?"),
        (bench.main, ["--only=nothing"], "no row has 'nothing' in its name"),
        (bench.main, ["--backend=fast"], "backend must be one of auto, plain, eager, compiled, graph, got 'fast'"),
    ):
        assert expected in fails(main, args, capsys)


def test_print_config_is_a_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        fit.main(["--print_config", "--model.energy=ResNetEnergy"])
    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed)
    assert values["model"]["energy"]["class_path"].endswith("ResNetEnergy")
    assert values["model"]["sampler"]["init_args"] == {"temperature": 2.0, "balancing": "sqrt"}
    (tmp_path / "printed.yaml").write_text(printed)
    config = build_parser().parse_args(["--config", str(tmp_path / "printed.yaml"), "--model.num_steps=77"])
    assert config.model.num_steps == 77


def test_digits_experiment_is_the_default() -> None:
    parser = build_parser()
    path = ROOT / "configs/experiment/digits.yaml"
    assert parser.dump(parser.parse_args([])) == parser.dump(parser.parse_args(["--config", str(path)]))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_runs_two_iterations(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    args = ["--config", str(path), f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=2", "--model.num_steps=2",
            "--data.batch_size=10", "--evaluation.every=2", "--evaluation.num_chains=3",
            "--evaluation.num_temperatures=2",
            "--evaluation.final_temperatures=2", "--pictures_every=2", "--trainer.accelerator=cpu"]  # fmt: skip
    text = path.read_text()
    text += "".join(p.read_text() for p in (path.parent / "../model").glob("*.yaml") if p.name in text)
    if "FashionMNIST" in text:
        root = request.getfixturevalue("shared_data") / "fashion_mnist"
        if not (root / "train-images-idx3-ubyte.gz").is_file():
            pytest.skip(f"Fashion-MNIST is not in {root}")
        args += [f"--data.root={root}"]
    elif any(name in text for name in ("MNIST", "Omniglot", "Caltech", "FreyFaces")):
        args += [f"--data.root={request.getfixturevalue('shared_data')}"]
        args += ["--data.binarization=static"] if "published" in text else []  # that draw is not among the local files
    if "Alignment" in text:
        name = yaml.safe_load(text)["data"]["init_args"]["path"]
        args += [f"--data.path={request.getfixturevalue('shared_data') / name}"]
    if "ResNet" in text:
        args += ["--model.energy.num_channels=4"]
    if "IsingSamples" in text:
        args += ["--data.num_steps=20"]
    fit.main(args)
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"] == 2
    assert (tmp_path / "run/results.json").is_file()
    assert (tmp_path / "run/samples.png").is_file() or "PseudoLikelihood" in text  # which has no chains to show


def test_settings_without_effect_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loss without chains has no use for chains, a binary image none for an embedding; defaults are not mentioned."""
    loss = "--model.objective=PseudoLikelihood"
    embedding = ["--model.energy=ResNetEnergy", "--model.energy.num_channels=2", "--model.energy.num_embedding=8"]
    args = ["--trainer.max_steps=1", "--evaluation.every=0", "--evaluation.num_chains=4", "--pictures_every=0",
            "--evaluation.final_temperatures=2", "--trainer.accelerator=cpu"]  # fmt: skip
    for number, (more, expected) in enumerate(
        (
            ([loss, "--model.num_steps=7"], ["model.num_steps has no effect"]),
            ([loss, "--model.chains.size=200"], ["model.chains has no effect"]),
            (embedding, ["num_embedding has no effect on binary images"]),
            ([loss], []),
        )
    ):
        fit.main([f"--run_dir={tmp_path / str(number)}", *args, *more])
        printed = capsys.readouterr().err
        assert [line for line in printed.splitlines() if "no effect" in line and expected[0] not in line] == []
        assert printed.count("no effect") == len(expected)


def test_experiments_hold_only_differences() -> None:
    """No experiment repeats a default of the code. digits.yaml names its data so that there is something to edit."""
    parser = build_parser()
    defaults = parser.parse_args([]).as_dict()

    def repeated(given: dict, known: dict, where: str) -> list[str]:
        found = []
        for key, value in given.items():
            if isinstance(value, dict) and key != "init_args":
                found += repeated(value, known.get(key) or {}, f"{where}.{key}")
            elif key not in ("class_path", "init_args") and known.get(key) == value:
                found.append(f"{where}.{key}")
        return found

    assert {p.stem: repeated(yaml.safe_load(p.read_text()), defaults, "") for p in EXPERIMENTS} == {
        p.stem: [] for p in EXPERIMENTS
    }


@pytest.mark.parametrize(
    ("args", "key", "expected"),
    [
        (["--data=MNIST"], "data.init_args.binarization", "dynamic"),
        (["--config=mnist_cpu"], "data.init_args.binarization", "dynamic"),
        (["--data=MNIST", "--data.binarization=static"], "data.init_args.binarization", "static"),
        (["--data.batch_size=50", "--data=MNIST"], "data.init_args.batch_size", 50),
        (["--model.energy=RBMEnergy"], "model.energy.init_args.num_hidden", 64),
        ([], "data.init_args.binarization", "threshold"),
    ],
)
def test_a_picked_class_has_its_own_defaults(args: list[str], key: str, expected: object) -> None:
    """Not those of the same name of the class that is the default; what was typed stays."""
    assert build_parser().parse_args(args)[key] == expected
