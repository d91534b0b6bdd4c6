"""What a kernel buys in training: one run of the study, and its table."""

import math
from pathlib import Path

import pytest

from gwg_dist.bench.training import KERNELS, Trained, draw, runs_table, trained, training_study
from gwg_dist.tools.errors import InputError


def ended(kernel: str, steps: int, test: float) -> Trained:
    return Trained(kernel, steps, 0, 100 * steps, test, 0.1, 50.0, 0.9, 0.9, 1.0)


def test_a_run_of_the_study() -> None:
    settings = ["--data=Digits", "--model.energy.num_hidden=4"]
    run = trained(settings, "GWG", 2, 1, length=60, temperatures=10)
    assert (run.kernel, run.steps, run.seed, run.gradients) == ("GWG", 2, 1, 120)
    assert all(map(math.isfinite, (run.test, run.stderr, run.accepted, run.hops)))
    assert (run.stderr, math.isnan(run.ess)) == (0.0, True), "four hidden units are summed over"


def test_the_gain_is_over_the_kernel_of_the_paper(tmp_path: Path) -> None:
    runs = [ended("GWG", 10, -16.5), ended("PAS", 2, -16.25), ended("DMALA", 2, -math.inf)]
    table = runs_table("digits", runs)
    assert list(table.columns[5].cells) == ["+0.00", "+0.25", "-inf"]
    draw("digits", runs, tmp_path / "digits.png")
    assert (tmp_path / "digits.png").stat().st_size > 5000


def test_kernels_are_compared_with_that_of_the_paper() -> None:
    assert KERNELS["GWG"][0] == 10


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mnist\.npz"):
        training_study(quick=True, data_dir=str(tmp_path), seeds=[0], sets="", out=tmp_path / "bench.json")


def test_a_set_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sets: none of digits has 'cifar' in its name"):
        training_study(quick=True, data_dir=None, seeds=[0], sets="cifar", out=tmp_path / "bench.json")
