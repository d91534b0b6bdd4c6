"""Maximum mean discrepancy against a plain double loop, its bias, and marginals."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from gwg_dist.evaluation import category_frequencies, marginal_rmse, mmd_squared


def draws(probs: list[float], num: int, sites: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(torch.tensor(probs), num * sites, replacement=True, generator=generator).view(num, sites)


def by_loops(x: Tensor, y: Tensor, scale: float) -> float:
    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        found = [
            math.exp(-int((p != q).sum()) / (scale * len(p)))
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (same and i == j)
        ]
        return sum(found) / len(found)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize(("probs", "scale"), [([0.3, 0.7], 1.0), ([0.2, 0.5, 0.3], 0.3)])
def test_it_is_what_two_loops_say(probs: list[float], scale: float) -> None:
    x, y = draws(probs, 7, 5, 0), draws(probs[::-1], 9, 5, 1)
    found = mmd_squared(x, y, num_categories=len(probs), scale=scale)
    assert found == pytest.approx(by_loops(x, y, scale), rel=1e-6)


def test_it_is_unbiased_and_has_power() -> None:
    same = [mmd_squared(draws([0.5, 0.5], 20, 6, s), draws([0.5, 0.5], 20, 6, 1000 + s), num_categories=2)
            for s in range(200)]  # fmt: skip
    assert abs(statistics.mean(same)) < 4 * statistics.stdev(same) / math.sqrt(200)
    other = mmd_squared(draws([0.5, 0.5], 200, 6, 0), draws([0.7, 0.3], 200, 6, 1), num_categories=2)
    assert other > 5 * statistics.stdev(same) / 10


def test_marginals() -> None:
    codes = torch.tensor([[0, 1], [2, 1]])
    found = category_frequencies(codes, 3)
    assert found.tolist() == [[0.5, 0, 0.5], [0, 1, 0]]
    assert marginal_rmse(found, torch.full((2, 3), 1 / 3)) == pytest.approx(
        math.sqrt((2 * (1 / 6) ** 2 + 3 * (1 / 3) ** 2 + (2 / 3) ** 2) / 6)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mmd_squared(torch.zeros(1, 3), torch.zeros(5, 3), num_categories=2), "two rows or more"),
        (lambda: mmd_squared(torch.zeros(5, 3), torch.zeros(5, 4), num_categories=2), "same sites"),
        (lambda: mmd_squared(torch.zeros(5, 3), torch.zeros(5, 3), num_categories=2, scale=0), "scale must be"),
        (lambda: marginal_rmse(torch.zeros(3, 2), torch.zeros(2, 2)), "marginals must have one shape"),
    ],
)
def test_mistakes(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
