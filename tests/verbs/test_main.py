"""``gwg_dist VERB``: the table of verbs, a hint for a misspelt one; configs found by name from any folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gwg_dist
from gwg_dist import __main__ as command_line
from gwg_dist.tools.shipped import config_names, config_path
from gwg_dist.training.settings import build_parser, instantiate
from tests.conftest import ROOT
from tests.support.runs import fails


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gwg_dist", *args], capture_output=True, text=True, cwd=cwd)


def test_every_verb_is_in_the_table_with_its_first_line() -> None:
    verbs = command_line.verbs()
    assert {"fit", "evaluate", "sample", "tune", "bench", "launch", "doctor"} <= set(verbs)
    for name, path in verbs.items():
        assert f"\n  {name:10}{command_line.summary(path)}" in command_line.usage()
        assert len(command_line.summary(path)) > 20, name


def test_a_verb_that_is_one_new_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weigh.py").write_text('"""Weigh a model."""\n\n\ndef main(args=None):\n    pass\n')
    (tmp_path / "helper.py").write_text('"""No verb."""\n')
    monkeypatch.setattr(command_line, "PACKAGE", tmp_path)
    assert list(command_line.verbs()) == ["weigh"]
    assert "weigh     Weigh a model." in command_line.usage()


def test_a_misspelt_verb_gets_the_nearest(tmp_path: Path) -> None:
    done = run("fitt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: there is no verb fitt (did you mean fit?)\n"
    assert f"; there are {', '.join(command_line.verbs())}\n" in run("zzz", cwd=tmp_path).stderr


def test_version_and_help_need_no_torch(tmp_path: Path) -> None:
    code = "import sys; from gwg_dist.__main__ import main; main(['{}']); sys.exit('torch' in sys.modules)"
    for flag, text in (("--version", f"gwg_dist {gwg_dist.__version__}"), ("--help", "usage: gwg_dist VERB")):
        done = subprocess.run([sys.executable, "-c", code.format(flag)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0
        assert text in done.stdout


def test_a_verb_runs_with_its_own_arguments(tmp_path: Path) -> None:
    done = run("fit", "--config", "digits", "--seed=-1", f"--run_dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 2
    assert "seed must lie in 0 to 2^32 - 1, got -1" in done.stderr


def test_configs_are_found_by_name_and_a_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(config_names("experiment")) == {path.stem for path in (ROOT / "configs/experiment").rglob("*.yaml")}
    for kind in ("experiment", "sweep", "model", "sampler", "evaluation", "compare"):
        for name in config_names(kind):
            shipped = next((ROOT / "configs" / kind).rglob(f"{name}.yaml"))
            assert Path(config_path(name, kind)).samefile(shipped)
            assert Path(config_path(f"{kind}/{name}", kind)).samefile(shipped)
    Path("digits").write_text("seed: 5")
    assert build_parser().parse_args(["--config", "digits"]).seed == 5


def test_fragments_are_found_by_name_and_what_follows_wins() -> None:
    parse = build_parser().parse_args
    config = parse(["--evaluation=paper", "--evaluation.every", "7", "--model", "resnet", "--model.sampler=multi_gwg"])
    assert (config.evaluation.every, config.evaluation.final_temperatures) == (7, 300_000)
    assert config.model.energy.class_path == "gwg_dist.energies.ResNetEnergy"
    assert (config.model.num_steps, config.model.sampler.init_args.max_draws) == (40, 8)
    assert parse(["--model.sampler=Gibbs"]).model.sampler.class_path == "gwg_dist.samplers.Gibbs"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("model", "sampler", "evaluation") for name in config_names(kind)]
)
def test_every_fragment_makes_a_model(kind: str, name: str) -> None:
    parser = build_parser()
    option = {"model": "--model", "sampler": "--model.sampler", "evaluation": "--evaluation"}[kind]
    objects = instantiate(parser, parser.parse_args([f"{option}={name}"]))
    assert objects.model.space == objects.data.space


def test_a_config_that_is_not_there(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    parse = build_parser().parse_args
    assert "there is no file digitz (did you mean digits?)" in fails(parse, ["--config", "digitz"], capsys)
    assert "by name there are caltech, chorismate, dhfr, digits, " in fails(parse, ["--config=/nowhere/x.yaml"], capsys)


@pytest.mark.slow
def test_the_wheel_holds_configs_kernels_and_the_mark_of_types(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    wanted = {f"gwg_dist/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.yaml")}
    wanted |= {
        "gwg_dist/py.typed",
        "gwg_dist/report/page.html.j2",
        "gwg_dist/samplers/fast/native/kernels.c",
        "gwg_dist/samplers/fast/native/all_moves.h",
    }
    assert wanted <= names
    assert any(name.endswith("entry_points.txt") for name in names)
