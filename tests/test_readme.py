"""What the README shows runs: its Python, its command lines, and .ci/run takes its test command from it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gwg_dist import doctor, evaluate, launch, sample
from gwg_dist.bench.cli import bench
from gwg_dist.tools.commands import Parser
from gwg_dist.training.settings import build_parser
from gwg_dist.tune.cli import Sweep
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
NAMES = ("fit", "evaluate", "sample", "bench", "tune", "launch", "doctor")
COMMANDS = re.findall(r"^python -m (gwg_dist\.\w+)(.*)$", README, re.MULTILINE)


def test_its_python_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    result = subprocess.run([sys.executable, "-c", blocks[0]], capture_output=True, text=True, cwd=ROOT, check=True)
    log_z, stderr, exact = (float(v) for v in re.search(r"log Z (\S+) ± (\S+) exact (\S+)", result.stdout).groups())  # pyright: ignore[reportOptionalMemberAccess]
    assert abs(log_z - exact) < 4 * stderr


def test_it_shows_every_command() -> None:
    assert {module for module, _ in COMMANDS} == {f"gwg_dist.{name}" for name in NAMES}


@pytest.mark.parametrize(("module", "arguments"), COMMANDS, ids=lambda v: v.strip().replace("/", "_"))
def test_its_settings_exist(module: str, arguments: str) -> None:
    args = shlex.split(arguments)
    if module == "gwg_dist.fit":
        args = [arg for arg in args if arg != "--print_config"]
        if "--resume" in args:
            where = args.index("--resume")
            args[where : where + 2] = []
        build_parser().parse_args(args)
        return
    if "--" in args:
        build_parser().parse_args(args[args.index("--") + 1 :])
        args = args[: args.index("--")]
    parser = Parser(prog=module)
    if module == "gwg_dist.tune":
        pytest.importorskip("ray")
        parser.add_argument("-c", "--config", action="config")
        parser.add_argument("--resume")
        parser.add_class_arguments(Sweep)
        assert parser.parse_args(args) is not None
        return
    function = {
        "gwg_dist.evaluate": evaluate.evaluate, "gwg_dist.sample": sample.sample, "gwg_dist.bench": bench,
        "gwg_dist.launch": launch.launch, "gwg_dist.doctor": doctor.doctor,
    }[module]  # fmt: skip
    parser.add_function_arguments(function, as_positional=True, skip={"quick", "sweep", "fit"})
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    assert parser.parse_args(args) is not None


def test_files_it_names_exist() -> None:
    for path in re.findall(r"configs/\w+/\w+\.yaml|launch/[\w/]+\.(?:sh|sbatch)|docs/\w+\.png", README):
        assert (ROOT / path).is_file(), path


def test_ci_runs_exactly_its_test_command() -> None:
    script = (ROOT / ".ci/run").read_text()
    found = re.search(r"command=\$\((awk .*?)\)\n", script)
    assert found
    printed = subprocess.run(["bash", "-c", found[1]], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    shown = re.search(r"<!-- command: test -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert shown
    assert printed == shown[1]
    assert printed.splitlines()[-1] == "python -m pytest"
