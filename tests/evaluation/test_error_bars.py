"""Intervals of log Z cover as often as they say, on weights of known expectation."""

import math

import pytest
import torch
from torch import Tensor

from gwg_dist.evaluation.ais import AISResult, summarize
from gwg_dist.evaluation.error_bars import (
    Interval,
    interval_of_log_mean,
    interval_of_weights,
    standard_error,
    weight_variance,
    weights_collapsed,
)
from gwg_dist.evaluation.reverse import ReverseResult


def log_normal(num: int, spread: float, generator: torch.Generator) -> Tensor:
    """Log weights whose mean exponential is one in expectation."""
    return spread * torch.randn(num, dtype=torch.float64, generator=generator) - spread**2 / 2


def stuck(num: int, generator: torch.Generator) -> Tensor:
    """The same where three chains of ten ended far below, in a place of no weight."""
    good = torch.rand(num, generator=generator) < 0.7
    return torch.where(good, log_normal(num, 0.7, generator) - math.log(0.7), torch.full((num,), -60.0).double())


def by_the_delta_method(log_weights: Tensor) -> Interval:
    log_z, stderr, _ = summarize(log_weights)
    return Interval(log_z - 1.96 * stderr, log_z + 1.96 * stderr)


def test_it_covers_at_every_effective_size_where_the_delta_method_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    inside: dict[int, list[tuple[bool, bool, float]]] = {}
    for spread in (0.5, 1.0, 1.3, 1.5, 1.7):
        for num in (50, 200):
            for _ in range(150):
                log_weights = log_normal(num, spread, generator)
                _, stderr, ess = summarize(log_weights)
                found, plain = interval_of_weights(log_weights), by_the_delta_method(log_weights)
                if math.isfinite(found.high):
                    share = sum(ess / num > edge for edge in (0.1, 0.2, 0.4, 0.7))
                    width = (found.high - found.low) / (3.92 * stderr)
                    inside.setdefault(share, []).append((found.low < 0 < found.high, plain.low < 0 < plain.high, width))
    covered, before = ({at: sum(row[k] for row in rows) / len(rows) for at, rows in inside.items()} for k in (0, 1))
    assert len(covered) == 5
    assert all(0.92 <= share <= 1 for share in covered.values()), covered
    assert min(before.values()) < 0.85, before
    assert max(width for rows in inside.values() for *_, width in rows) < 3.5


def test_stuck_chains_do_not_widen_it_without_end() -> None:
    generator = torch.Generator().manual_seed(1)
    found = [interval_of_weights(stuck(200, generator)) for _ in range(200)]
    assert sum(each.low < 0 < each.high for each in found) >= 185
    assert max(each.high - each.low for each in found) < 1


def test_equal_weights_have_no_error() -> None:
    assert interval_of_weights(torch.full((50,), 3.0)) == pytest.approx((3, 3), abs=1e-9)
    assert weight_variance(torch.zeros(4)) == 0


def test_collapsed_weights_bound_log_z_from_below_alone() -> None:
    log_weights = torch.tensor([0.0] + [-50.0] * 39)
    found = interval_of_weights(log_weights)
    assert found == pytest.approx((-math.log(40) - math.log(20), math.inf))
    estimate = AISResult(*summarize(log_weights), log_weights, torch.zeros(1, 4), 70)
    assert estimate.collapsed
    assert estimate.error == math.inf
    log_z, stderr, ess = summarize(-log_weights[1:])
    assert not weights_collapsed(ess, 39)
    back = ReverseResult(-log_z, stderr, ess, -log_weights[1:], 70)
    assert (back.collapsed, back.interval, back.error) == (False, pytest.approx((-50, -50)), pytest.approx(0, abs=1e-9))


def test_single_weights_are_collapsed() -> None:
    assert interval_of_weights(torch.tensor([2.0])).high == math.inf


def test_the_interval_of_a_mean_leans_upwards_and_becomes_the_delta_method() -> None:
    low, high = interval_of_log_mean(1.0, 30.0, 100)
    assert high - 1 > 1 - low
    low, high = interval_of_log_mean(1.0, 1e-4, 10_000)
    assert (low, high) == pytest.approx((1 - 1.96e-4, 1 + 1.96e-4), abs=1e-6)
    assert standard_error(1.0, Interval(0.5, 2.96)) == pytest.approx(1)
    assert Interval(1.0, 2.0).turned() == (-2, -1)
