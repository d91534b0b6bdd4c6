"""Diagnostics of all ranks together are those of one process that has all chains."""

import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from gwg_dist.callbacks import (
    BatchMeansSampleSize,
    EffectiveSampleSize,
    HammingMMD,
    IntegratedTime,
    MarginalRMSE,
    SplitRhat,
)
from gwg_dist.evaluation import ess, split_rhat


def traces() -> Tensor:
    """Three chains, unlike each other, ``(200, 3)``."""
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise.cumsum(0) * torch.tensor([0.1, 0.2, 0.3]) + noise


def codes() -> Tensor:
    return torch.randint(3, (20, 5), generator=torch.Generator().manual_seed(1))


def metrics() -> list[Metric]:
    return [
        EffectiveSampleSize(), BatchMeansSampleSize(), IntegratedTime(), SplitRhat(),
        HammingMMD(codes(), num_categories=3), MarginalRMSE(torch.full((5, 3), 1 / 3)),
    ]  # fmt: skip


def values(rank: int | None) -> list[float]:
    """The six numbers; of two ranks, the second has two thirds of the chains, in two updates."""
    shares = {None: slice(0, 3), 0: slice(0, 1), 1: slice(1, 3)}
    rows = {None: slice(0, 20), 0: slice(0, 6), 1: slice(6, 20)}
    found = []
    for metric in metrics():
        if isinstance(metric, HammingMMD | MarginalRMSE):
            for part in (codes() // 2)[rows[rank]].split(7):
                metric.update(part)
        else:
            for chain in traces()[:, shares[rank]].split(1, 1):
                metric.update(chain)
        found.append(float(metric.compute()))
    return found


def on_rank(rank: int, store: str, folder: str) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=store, timeout=timedelta(seconds=60))
    torch.save(values(rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (f"file://{tmp_path}/store", str(tmp_path))
    ranks = [context.Process(target=on_rank, args=(rank, *arguments)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    expected = values(None)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(expected, rel=1e-6)


def test_they_are_the_plain_functions() -> None:
    found = values(None)
    assert found[0] == pytest.approx(ess(traces()))
    assert found[3] == pytest.approx(split_rhat(traces()))
