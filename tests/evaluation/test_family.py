"""Samples beside a family: neighbours by hand, axes of the largest variance, a run that leaves both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist.evaluation.family import along, compare_family, nearest_hamming, principal_axes
from gwg_dist.evaluation.gaps import GapBlock, gap_blocks
from tests.support.runs import SMALL, run_fit


def family(num: int, seed: int) -> torch.Tensor:
    """Two clans of one family, which differ at the first four of eight sites."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(3, (num, 8), generator=generator, dtype=torch.uint8)
    clan = torch.randint(2, (num, 1), generator=generator, dtype=torch.uint8)
    codes[:, :4] = torch.where(torch.rand(num, 4, generator=generator) < 0.9, clan, codes[:, :4])
    return codes


def test_neighbours_are_the_nearest() -> None:
    points, others = family(40, 0), family(700, 1)
    right = (points[:, None] != others).sum(2).amin(1)
    assert nearest_hamming(points, others, 3).tolist() == right.tolist()
    assert nearest_hamming(others, others, 3).max() == 0
    assert len(nearest_hamming(points[:0], others, 3)) == 0


def test_axes_are_those_of_the_covariance() -> None:
    codes, weights = family(300, 0), torch.rand(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.nn.functional.one_hot(codes.long(), 3).flatten(1).numpy()
    right = np.linalg.eigh(np.cov(x.T, aweights=weights.numpy(), bias=True)).eigenvectors[:, ::-1][:, :2]
    mean, axes = principal_axes(codes, 3, weights)
    assert np.allclose(mean, np.average(x, axis=0, weights=weights))
    assert np.allclose(np.abs(right.T @ axes.numpy()), np.eye(2), atol=1e-8)
    first = along(codes, mean, axes)[:, 0]
    clans = codes[:, :4].float().mean(1)
    assert abs(np.corrcoef(first, clans)[0, 1]) > 0.8


def test_a_family_agrees_with_itself_and_not_with_shuffled_columns() -> None:
    train, more, held_out = family(3000, 0), family(3000, 1), family(500, 2)
    generator = torch.Generator().manual_seed(3)
    alone = torch.stack([more[torch.randperm(len(more), generator=generator), i] for i in range(8)], 1)
    good, poor = (compare_family(train, samples, held_out, 3) for samples in (more, alone))
    assert good.two.agreement.pearson > 0.98
    assert good.held_out > 0.95
    assert poor.one.agreement.pearson > 0.98
    assert poor.two.agreement.pearson < 0.5
    assert poor.nearest_samples.mean() > good.nearest_samples.mean()


def test_blocks_of_gaps_are_found_with_the_share_of_the_points_in_them() -> None:
    codes = torch.full((100, 30), 2)
    codes[:20, 5:14] = 0  # nine gaps: two windows of eight, the first of which is taken
    codes[10:13, 20:28] = 0
    codes[:, 29] = 0
    codes[50:, 1:8] = 0  # seven are no block
    assert gap_blocks(codes, 0) == [GapBlock(5, 12), GapBlock(20, 27)]
    weights = torch.ones(100).index_fill(0, torch.arange(10, 13), 0.0)
    assert gap_blocks(codes, 0, weights) == [GapBlock(5, 12)]
    assert GapBlock(5, 12).share(codes, 0) == pytest.approx(0.2)
    assert GapBlock(5, 12).share(codes, 0, weights) == pytest.approx(17 / 97)
    assert gap_blocks(codes[:, :7], 0) == gap_blocks(torch.zeros(5, 20), 0) == []


@pytest.mark.parametrize(("energy", "there"), [("PottsEnergy", True), ("MLPEnergy", False)])
def test_a_run_of_a_model_of_pairs_leaves_them(tmp_path: Path, energy: str, there: bool) -> None:
    np.save(tmp_path / "x.npy", family(200, 0).numpy())
    small = [option for option in SMALL if "RBM" not in option and "num_hidden" not in option]
    run = run_fit(tmp_path / "run", f"{tmp_path}/x.npy", *small, f"--model.energy={energy}", "--trainer.max_steps=3")
    assert (run / "family.json").exists() == there
    if there:
        numbers = json.loads((run / "family.json").read_text())
        assert set(numbers["two sites"]) == {"pearson", "slope", "pearson held out"}
        assert 0 <= numbers["nearest training point of samples"] <= 1
        pytest.importorskip("matplotlib")
        assert (run / "family.png").read_bytes()[1:4] == b"PNG"
