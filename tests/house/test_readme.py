"""What the README shows runs: its Python, its command lines, and .ci/run takes its test command from it."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.shown import check_command, commands, python_blocks, run_python

README = (ROOT / "README.md").read_text()
NAMES = ("fit", "evaluate", "sample", "bench", "tune", "launch", "doctor")
COMMANDS = commands(README)


def test_its_python_runs(tmp_path: Path) -> None:
    ((_, code),) = python_blocks(README)
    found = re.search(r"log Z (\S+) ± (\S+) exact (\S+)", run_python(code, tmp_path))
    assert found
    log_z, stderr, exact = map(float, found.groups())
    assert abs(log_z - exact) < 4 * stderr


def test_it_shows_every_command() -> None:
    assert {module for module, _ in COMMANDS} >= {f"gwg_dist.{name}" for name in NAMES}


@pytest.mark.parametrize(("module", "arguments"), COMMANDS, ids=lambda v: v.strip().replace("/", "_"))
def test_its_settings_exist(module: str, arguments: str) -> None:
    check_command(module, arguments)


def test_a_setting_that_is_not_there_would_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    for module, arguments in (
        ("gwg_dist.fit", "--resume runs/mine --model.nm_steps=3"),
        ("gwg_dist.tune", "--config digits -- --model.nm_steps=3"),
        ("gwg_dist.evaluate", "runs/mine --num_chain=3"),
        ("gwg_dist.doctor", "--quik"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            check_command(module, arguments)
        assert exit_info.value.code == 2
        assert "did you mean" in capsys.readouterr().err


def test_files_it_names_exist() -> None:
    links = re.findall(r"\]\(([\w/.]+)\)", README)
    assert len(links) > 10
    for path in links:
        assert (ROOT / path).is_file(), path


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_ci_runs_exactly_its_test_command() -> None:
    script = (ROOT / ".ci/run").read_text()
    found = re.search(r"command=\$\((awk .*?)\)\n", script)
    assert found
    printed = subprocess.run(["bash", "-c", found[1]], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    shown = re.search(r"<!-- command: test -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert shown
    assert printed == shown[1]
    assert printed.splitlines()[-1] == "python -m pytest"
