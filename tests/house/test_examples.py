"""Every example runs in a process of its own, and prints what its docstring promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
NUMBER = r"([-+]?\d+\.?\d*)"


def run(name: str, tmp_path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    return done.stdout


def numbers(pattern: str, text: str) -> list[tuple[float, ...]]:
    """The groups of every match, as numbers."""
    found = [tuple(float(value) for value in match.groups()) for match in re.finditer(pattern, text)]
    assert found, text
    return found


def test_examples_are_short_and_all_are_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"ising_torus", "rbm_digits", "ais_against_exact", "own_kernel", "own_energy"}
    assert {path.name: n for path in EXAMPLES.glob("*.py") if (n := len(path.read_text().splitlines())) > 60} == {}


def test_ising_torus(tmp_path: Path) -> None:
    found = numbers(rf"{NUMBER} ± {NUMBER} exact {NUMBER}", run("ising_torus", tmp_path))
    assert len(found) == 2
    for mean, stderr, exact in found:
        assert abs(mean - exact) < 4 * stderr
        assert stderr < 0.05 * abs(exact)


@pytest.mark.slow
def test_rbm_digits(tmp_path: Path) -> None:
    text = run("rbm_digits", tmp_path)
    ((mean, stderr, reference),) = numbers(rf"log-likelihood {NUMBER} ± {NUMBER} nats, reference {NUMBER}", text)
    assert mean - 4 * stderr > reference + 3
    ((ess, num),) = numbers(rf"chains {NUMBER} of {NUMBER}", text)
    assert ess > num / 20


def test_ais_against_exact(tmp_path: Path) -> None:
    found = numbers(rf"± {NUMBER} error {NUMBER} ESS {NUMBER}", run("ais_against_exact", tmp_path))
    assert len(found) == 3
    (_, first, few), _, (stderr, last, many) = found
    assert abs(last) < 4 * stderr < 0.1
    assert abs(last) < abs(first)
    assert many > 10 * few


def test_own_kernel(tmp_path: Path) -> None:
    wrong, right = run("own_kernel", tmp_path).splitlines()
    assert wrong.startswith("Swap(flips=False) on")
    assert "some states are never reached from others" in wrong
    assert right == "Swap(flips=True) passes"


@pytest.mark.slow
def test_own_energy(tmp_path: Path) -> None:
    pattern = rf"bonds of the chain {NUMBER} to {NUMBER}, the bond that closes it {NUMBER}"
    ((low, high, closing),) = numbers(pattern, run("own_energy", tmp_path))
    assert 0.95 < low < high < 1.25
    assert abs(closing) < 0.15
