"""The stated intervals of log Z on random small models whose log Z is summed: RBM, Ising, MLP, ragged sites."""

from typing import NamedTuple

import pytest
import torch

from gwg_dist.evaluation import Interval, ais, exact_log_prob, exact_log_z, interval_of_weights, reverse_ais
from gwg_dist.samplers import GWG
from gwg_dist.spaces import Binary, Categorical
from tests.support.kernels import make_target

NUM_MODELS, NUM_CHAINS = 80, 100


class Stated(NamedTuple):
    """Intervals minus the exact log Z, where no warning is printed, and those with the sign of the weights wrong."""

    forward: list[Interval]
    reverse: list[Interval]
    mutants: list[Interval]


@pytest.fixture(scope="module")
def stated() -> Stated:
    found = Stated([], [], [])
    spaces = [("rbm", Binary(9)), ("ising", Binary(8)), ("mlp", Binary(9)), ("mlp", Categorical(4, (2, 5, 3, 4)))]
    for seed in range(NUM_MODELS):
        kind, space = spaces[seed % len(spaces)]
        target = make_target(space, kind, seed=seed, strength=0.5 + seed / NUM_MODELS)
        log_prob, exact = exact_log_prob(target)[0], exact_log_z(target)
        generator = torch.Generator().manual_seed(seed)
        there = ais(target, GWG(), generator=generator, num_chains=NUM_CHAINS, num_temperatures=30, backend="eager")
        at = torch.multinomial(log_prob.exp(), NUM_CHAINS, replacement=True, generator=generator)
        back = reverse_ais(
            target, GWG(), space.all_codes()[at], generator=generator, num_temperatures=30, backend="eager"
        )
        if not there.collapsed:
            found.forward.append(shifted(there.interval, exact))
            found.mutants.append(shifted(interval_of_weights(-there.log_weights), exact))
        if not back.collapsed:
            found.reverse.append(shifted(back.interval, exact))
    return found


def shifted(interval: Interval, exact: float) -> Interval:
    return Interval(interval.low - exact, interval.high - exact)


def coverage(intervals: list[Interval]) -> float:
    return sum(each.low <= 0 <= each.high for each in intervals) / len(intervals)


def test_intervals_cover_as_often_as_they_say(stated: Stated) -> None:
    """Nine tenths and more where 95 % is said; of 70 such intervals with a coverage of .95, 63 are 2 errors below."""
    for intervals in (stated.forward, stated.reverse):
        assert len(intervals) >= 0.6 * NUM_MODELS
        assert coverage(intervals) >= 0.9, [round(end, 2) for each in intervals for end in each]


def test_weights_of_the_wrong_sign_are_seen(stated: Stated) -> None:
    assert coverage(stated.mutants) < 0.5
