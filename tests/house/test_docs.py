"""What the pages show runs: their Python, their command lines, their YAML; the files and verbs they name are there."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from gwg_dist import __main__ as command_line
from tests.conftest import ROOT
from tests.support.shown import check_command, commands, python_blocks, run_python

PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
COMMANDS = [(page, *command) for page, text in PAGES.items() for command in commands(text)]
WITH_PYTHON = [page for page, text in PAGES.items() if python_blocks(text)]
FILES = r"\b(?:configs|launch|docs|tests|gwg_dist|templates|examples|docker)/[\w/]+\.\w+"


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of the page stands: the copied templates, and the files that the page shows under a name."""
    for template in (ROOT / "templates").glob("*.py"):
        shutil.copyfile(template, tmp_path / f"my_{template.name}")
    for title, code in python_blocks(PAGES[request.getfixturevalue("page")]):
        if title:
            (tmp_path / title).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in {path.stem for path in tmp_path.glob("*.py")} & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_the_pages_show_something() -> None:
    assert len(COMMANDS) > 30
    assert {"method", "numbers", "add_a_sampler", "add_an_energy", "add_a_loss", "own_data"} <= set(WITH_PYTHON)


@pytest.mark.parametrize(
    ("page", "module", "arguments"), COMMANDS, ids=lambda v: v.strip().replace("/", "_").replace("gwg_dist.", "")
)
def test_settings_exist(page: str, module: str, arguments: str, folder: Path) -> None:
    check_command(module, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs(page: str, folder: Path) -> None:
    blocks = python_blocks(PAGES[page])
    for title, _ in blocks:
        if title:
            runpy.run_path(title)
    run_python("\n".join(code for title, code in blocks if not title), folder)


def test_a_sweep_that_is_shown_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGES["running"], re.DOTALL)
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    check_command("gwg_dist.tune", f"--config {path}")
    assert yaml.safe_load(text)["metric"] == "val/log_likelihood"


def test_files_they_name_exist() -> None:
    named = {path for text in PAGES.values() for path in re.findall(FILES, text) if "NAME" not in path}
    assert len(named) > 20
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_lines_they_quote_are_in_the_code() -> None:
    """Of what a program prints, by three words in a row: the rest may be names and numbers."""
    code = " ".join(path.read_text() for path in (ROOT / "gwg_dist").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    tables = "".join(
        re.findall(r"^\| (?:line|message) \|.*?\n\n", PAGES["troubleshooting"] + PAGES["add_a_sampler"], re.M | re.S)
    )
    quoted = re.findall(r"^\| `([^`]+)`", tables, re.MULTILINE)
    assert len(quoted) > 25

    def known(line: str) -> bool:
        words = [word for word in line.split() if "..." not in word]
        num = min(3, len(words))
        return any(" ".join(words[i : i + num]) in code for i in range(len(words) - num + 1))

    # What the parser's library says itself.
    theirs = [
        "unrecognized arguments: --model.nm_steps=3 (did you mean model.num_steps?)",
        "key \"model.energy\": No module named 'mine'",
    ]
    assert [line for line in quoted if not known(line) and line not in theirs] == []


def test_every_verb_is_shown() -> None:
    text = "".join([(ROOT / "README.md").read_text(), *PAGES.values()])
    assert set(command_line.verbs()) <= {module.removeprefix("gwg_dist.") for module, _ in commands(text)}


def test_the_site_has_every_page_and_asks_nobody() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def files(entry: dict | list | str) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [name for part in (entry.values() if isinstance(entry, dict) else entry) for name in files(part)]

    docs = ROOT / "docs"
    assert sorted(files(config["nav"])) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    assert config["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css", "repo_url"} & set(config)
