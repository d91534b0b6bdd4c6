"""The contributor's house: the Makefile, what CI does without make, the hooks, the citation."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import gwg_dist
from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def ci_target(name: str, folder: Path, *, works: bool = True) -> subprocess.CompletedProcess[str]:
    """What .ci/run does for a target where there is no make and python only says what it was given."""
    found = re.search(r"^target\(\) \{\n.*?^\}\n", (ROOT / ".ci/run").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    for tool in ("bash", "awk"):
        where = shutil.which(tool)
        assert where
        (folder / tool).symlink_to(where)
    (folder / "python").write_text(f"#!{folder}/bash\necho python $*\nexit {0 if works else 1}\n")
    (folder / "python").chmod(0o755)
    script = f"set -e\n{found[0]}\ntarget {name}"
    environment = {**os.environ, "PATH": str(folder)}
    return subprocess.run([folder / "bash", "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize("name", ["lint", "docs", "test"])
def test_ci_without_make_runs_the_recipe(name: str, tmp_path: Path) -> None:
    done = ci_target(name, tmp_path)
    assert done.returncode == 0, done.stderr
    ran = done.stdout.splitlines()
    assert len(ran) == {"lint": 3, "docs": 1, "test": 1}[name]
    if shutil.which("make"):
        planned = subprocess.run(["make", "-n", name], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        expected = [re.sub(r"^(?:\w+=\w+ )*(?:\.venv/bin/)?", "", line) for line in planned.splitlines()]
        assert ran == [line for line in expected if line.startswith("python")]


def test_ci_without_make_fails_with_the_recipe(tmp_path: Path) -> None:
    done = ci_target("lint", tmp_path, works=False)
    assert done.returncode != 0
    assert done.stdout.splitlines() == ["python -m ruff check ."]


def test_ci_knows_no_other_target(tmp_path: Path) -> None:
    done = ci_target("nothing", tmp_path)
    assert done.returncode == 1
    assert "the Makefile has no target nothing" in done.stdout


def test_every_target_is_explained_and_those_that_are_named_exist() -> None:
    assert set(re.findall(r"^([a-z]+):  ## .{8,}", MAKEFILE, re.MULTILINE)) == TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"^make ([a-z ]+?)(?: &&| {2,}|$)|`make ([a-z]+)`", contributing, re.MULTILINE)
    words = {word for groups in named for group in groups for word in group.split()}
    assert {"setup", "test", "lint", "docs"} <= words <= TARGETS


def test_contributing_names_pages_that_exist() -> None:
    links = re.findall(r"\]\(([\w/.]+)\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert {link for link in links if not (ROOT / link).is_file()} == set()
    assert len(links) >= 6


def test_hooks_fetch_nothing() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert {hook["language"] for repo in repos for hook in repo["hooks"]} == {"system"}


def test_the_citation_is_of_this_version() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cff)
    assert str(cff["version"]) == gwg_dist.__version__
    assert cff["authors"] == [{"name": "The gwg_dist developers"}]
    (paper,) = cff["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["authors"][0]["family-names"] == "Grathwohl"
