"""One thread against two: the table of the study, and mistakes of the benchmark's command line."""

import json
from pathlib import Path

import pytest
import torch

from gwg_dist.bench.cli import bench
from gwg_dist.bench.threads import works
from gwg_dist.tools.errors import InputError


def test_the_study_writes_its_ratios(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    path = bench(quick=True, only="threads", out=str(tmp_path / "threads.json"), device="cpu")
    (row,) = json.loads(path.read_text())["threads"]
    assert (row["kernel"], row["model"]) == ("GWG", works()[0].name)
    assert len(row["ratios"]) == 3
    assert min(*row["ratios"], row["one_ms"], row["two_ms"]) > 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:77"])
def test_a_device_that_is_none(device: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"device: {device} cannot be used"):
        bench(only="threads", out=str(tmp_path / "threads.json"), device=device)
