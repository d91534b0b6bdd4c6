"""log Z from both sides, against exact sums: reverse AIS from exact samples, and Bennett's ratio of both directions.

The models are random and small. The reverse estimate is unbiased for 1 / Z, so it is judged on that scale.
"""

import math
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from scipy import stats
from torch import Tensor

from gwg_dist.energies import IsingEnergy
from gwg_dist.evaluation import Bennett, ais, anneal, bennett, beta_schedule, exact_log_prob, exact_log_z, reverse_ais
from gwg_dist.evaluation.reverse import reverse_result, reverse_start
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Gibbs, Target
from gwg_dist.spaces import Binary
from tests.support.kernels import make_target

KINDS, NUM = ["rbm", "ising", "mlp"], 400


class Sides(NamedTuple):
    """Log weights of both directions, and log Z."""

    forward: Tensor
    reverse: Tensor
    exact: float


def exact_samples(target: Target, num: int, seed: int) -> Tensor:
    log_prob, _ = exact_log_prob(target)
    generator = torch.Generator().manual_seed(seed)
    return target.space.all_codes()[torch.multinomial(log_prob.exp(), num, replacement=True, generator=generator)]


def sides(target: Target, seed: int, *, num_temperatures: int = 60, num: int = NUM) -> Sides:
    generator = torch.Generator().manual_seed(2000 + seed)
    forward = ais(target, GWG(), generator=generator, num_chains=num, num_temperatures=num_temperatures)
    reverse = reverse_ais(
        target, GWG(), exact_samples(target, num // 2, seed), generator=generator, num_temperatures=num_temperatures
    )
    return Sides(forward.log_weights, reverse.log_weights, exact_log_z(target))


def many() -> Iterator[Sides]:
    for kind in KINDS:
        for seed in range(12):
            yield sides(make_target(Binary(8), kind, seed=seed, strength=0.8), seed)


@pytest.fixture(scope="module")
def both() -> list[Sides]:
    return list(many())


def z_of_reverse(side: Sides, sign: int = 1) -> float:
    """Z times the mean weight, minus one, in standard errors."""
    ratio = (sign * side.reverse + side.exact).exp()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


def scores(both: list[Sides]) -> list[float]:
    found = [bennett(side.forward, side.reverse) for side in both]
    return [(each.log_z - side.exact) / each.stderr for each, side in zip(found, both, strict=True)]


def test_the_mean_weight_from_exact_samples_is_one_over_z(both: list[Sides]) -> None:
    found = [z_of_reverse(side) for side in both]
    assert max(map(abs, found)) < 4
    assert stats.kstest(found, "norm").pvalue > 1e-3


def test_a_weight_of_the_wrong_sign_is_seen(both: list[Sides]) -> None:
    assert max(abs(z_of_reverse(side, sign=-1)) for side in both) > 4


def test_forward_is_low_and_reverse_high_on_average() -> None:
    """Few temperatures and few chains, so that the inequality of Jensen is a tenth of a nat and more."""
    target = make_target(Binary(8), "rbm", seed=3, strength=2.0)
    low, high = [], []
    for seed in range(60):
        side = sides(target, seed, num_temperatures=4, num=8)
        low.append(float(side.forward.logsumexp(0)) - math.log(8) - side.exact)
        high.append(-(float(side.reverse.logsumexp(0)) - math.log(4)) - side.exact)
    for values, sign in ((low, -1), (high, 1)):
        mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
        assert sign * mean > 3.1 * error  # p < 1e-3


def test_bennett_is_right_within_its_error(both: list[Sides]) -> None:
    found = scores(both)
    assert max(map(abs, found)) < 4
    assert stats.kstest(found, "norm").pvalue > 1e-3
    assert 0.6 < float(torch.tensor(found).std()) < 1.5


def test_bennett_counts_runs_of_both_directions(both: list[Sides]) -> None:
    """With the numbers of runs exchanged, or the reverse weights turned, it is wrong by many standard errors."""
    wrong = []
    for side in both:
        right = bennett(side.forward, side.reverse)
        turned = bennett(side.forward, -side.reverse)
        wrong.append(abs(turned.log_z - side.exact) / right.stderr)
    assert max(wrong) > 10


def test_bennett_has_a_smaller_error_than_either_side(both: list[Sides]) -> None:
    better = 0
    for side in both:
        ratio = (side.forward - side.exact).exp()
        better += bennett(side.forward, side.reverse).stderr < float(ratio.std()) / math.sqrt(len(ratio))
    assert better >= 0.9 * len(both)


def test_bennett_against_the_closed_form_of_normal_works() -> None:
    """Works a ~ N(log Z - v/2, v) forward have -b ~ N(log Z + v/2, v), by Crooks; log Z is 3."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        noise = torch.randn(500, generator=generator, dtype=torch.float64)
        forward = 3 - 2 + 2 * noise[:300]
        reverse = -(3 + 2 + 2 * noise[300:])
        found.append(bennett(forward, reverse))
    z = torch.tensor([(each.log_z - 3) / each.stderr for each in found])
    assert float(z.abs().max()) < 4.5
    assert 0.85 < float(z.std()) < 1.15
    slope = torch.tensor([(each.slope - 1) / each.slope_stderr for each in found])
    assert stats.kstest(slope, "norm").pvalue > 1e-3


def test_same_works_both_ways_overlap_wholly() -> None:
    weights = torch.full((50,), 1.5, dtype=torch.float64)
    found = bennett(weights, -weights)
    assert found.log_z == pytest.approx(1.5)
    assert (found.overlap, found.stderr) == (pytest.approx(1), pytest.approx(0, abs=1e-9))


def test_works_that_do_not_overlap_say_so() -> None:
    found: Bennett = bennett(torch.linspace(-60, -50, 20), -torch.linspace(50, 60, 20))
    assert found.overlap < 1e-6
    assert found.stderr > 100
    assert not found.slope_stderr < 100


def test_chains_of_one_mode_put_the_reverse_estimate_below_log_z() -> None:
    """From chains it bounds nothing: Z p_B / r_B comes back, p_B and r_B the shares of their mode at 1 and where modes
    part."""
    target = two_modes()
    log_prob, _ = exact_log_prob(target)
    codes, prob = target.space.all_codes(), log_prob.exp()
    few = codes.sum(1) < target.space.num_sites / 2  # the smaller mode
    assert 0.05 < float(prob[few].sum()) < 0.2
    generator = torch.Generator().manual_seed(0)
    stuck = codes[torch.multinomial(prob * few, 300, replacement=True, generator=generator)]
    found = reverse_ais(target, GWG(), stuck, generator=generator, num_temperatures=400)
    assert found.stderr < 0.1
    assert found.log_z < exact_log_z(target) - 0.5
    right = reverse_ais(target, GWG(), exact_samples(target, 300, 0), generator=generator, num_temperatures=400)
    assert right.log_z > exact_log_z(target) - 4 * right.stderr


def two_modes() -> Target:
    """Eight spins that want to be alike, more of them up than down."""
    target = make_target(Binary(8), "ising")
    energy = target.energy
    assert isinstance(energy, IsingEnergy)
    with torch.no_grad():
        energy.pairs.fill_(0.25)
        energy.bias.fill_(0.15)
    return Target(energy, Reference(target.space).double())


def test_a_reverse_run_goes_on_bit_for_bit() -> None:
    target = make_target(Binary(8), "mlp", seed=1)
    codes, betas = exact_samples(target, 20, 0), beta_schedule(60).flip(0)
    whole = reverse_ais(target, Gibbs(), codes, generator=torch.Generator().manual_seed(1), num_temperatures=60)
    points = anneal(
        target, Gibbs(), reverse_start(target, codes), betas, generator=torch.Generator().manual_seed(1), every=20
    )
    first = next(points)
    *_, last = anneal(target, Gibbs(), first, betas, generator=torch.Generator().manual_seed(9), every=20)
    again = reverse_ais(target, Gibbs(), codes, generator=torch.Generator().manual_seed(1), num_temperatures=60)
    assert torch.equal(whole.log_weights, again.log_weights)
    *_, undisturbed = anneal(
        target, Gibbs(), reverse_start(target, codes), betas, generator=torch.Generator().manual_seed(1), every=20
    )
    assert torch.equal(reverse_result(last).log_weights, undisturbed.log_weights)


def test_bad_settings_name_themselves() -> None:
    target, generator = make_target(Binary(4), "rbm"), torch.Generator()
    with pytest.raises(ValueError, match="codes must have shape"):
        reverse_ais(target, GWG(), torch.zeros(3, 5, dtype=torch.uint8), generator=generator)
    with pytest.raises(ValueError, match="at least the 1 processes, got 0"):
        reverse_ais(target, GWG(), torch.zeros(0, 4, dtype=torch.uint8), generator=generator)
    with pytest.raises(ValueError, match="needs a target with a reference"):
        reverse_ais(Target(target.energy), GWG(), torch.zeros(3, 4, dtype=torch.uint8), generator=generator)
    with pytest.raises(ValueError, match="reverse must hold at least two finite"):
        bennett(torch.zeros(3), torch.tensor([0.0, torch.inf]))
