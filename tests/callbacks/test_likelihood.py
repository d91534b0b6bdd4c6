"""The likelihood of points that count more or less than once."""

import math

import pytest
import torch

from gwg_dist.evaluation import AISResult, ais, bootstrap_mean_error, log_likelihood, unnormalised_log_prob
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary
from tests.support.kernels import make_target


@pytest.fixture(scope="module")
def target() -> Target:
    return make_target(Binary(6), "rbm", strength=0.7)


@pytest.fixture(scope="module")
def estimate(target: Target) -> AISResult:
    return ais(target, GWG(), generator=torch.Generator().manual_seed(1), num_chains=20, num_temperatures=10)


def test_whole_weights_are_repeated_points(target: Target, estimate: AISResult) -> None:
    """The mean over points of weight 0, 1, 2, ... is that over each point so many times."""
    generator = torch.Generator().manual_seed(0)
    codes = target.space.uniform_codes(50, generator=generator)
    times = torch.randint(4, (50,), generator=generator)
    weighted = log_likelihood(target, codes, estimate, weights=times.double(), batch_size=7)
    repeated = log_likelihood(target, codes.repeat_interleave(times, 0), estimate)
    plain = log_likelihood(target, codes, estimate)
    assert abs(weighted.mean - repeated.mean) < 1e-12
    assert abs(weighted.mean - plain.mean) > 1e-3
    assert weighted.num == 50


def test_the_error_is_that_of_a_weighted_mean(target: Target, estimate: AISResult) -> None:
    """Over 2,000 data sets of points and weights drawn together, the mean scatters by what the error says."""
    generator = torch.Generator().manual_seed(0)
    states = unnormalised_log_prob(target, target.space.all_codes())
    means, errors = [], []
    for _ in range(2000):
        rows = torch.randint(64, (200,), generator=generator)
        weights = torch.rand(200, generator=generator, dtype=torch.float64) ** 3
        found = log_likelihood(target, target.space.all_codes()[rows], estimate, weights=weights)
        means.append(found.mean)
        errors.append(found.data_stderr)
    scatter = float(torch.tensor(means, dtype=torch.float64).std())
    assert abs(sum(errors) / 2000 / scatter - 1) < 0.08, "five standard errors of a scatter of 2,000 numbers"
    unweighted = float(states.std()) / math.sqrt(200)
    assert abs(unweighted / scatter - 1) > 0.2, "the plain error would pass as well"


def test_drawing_points_again_gives_the_same_error(target: Target, estimate: AISResult) -> None:
    """Of a weighted mean too, whose plain error is another."""
    generator = torch.Generator().manual_seed(2)
    codes = target.space.uniform_codes(400, generator=generator)
    weights = torch.rand(400, generator=generator, dtype=torch.float64) ** 3
    values = unnormalised_log_prob(target, codes)
    for each in (None, weights):
        stated = log_likelihood(target, codes, estimate, weights=each).data_stderr
        assert bootstrap_mean_error(values, each, num=1000) == pytest.approx(stated, rel=0.1)
    plain, weighted = (log_likelihood(target, codes, estimate, weights=each).data_stderr for each in (None, weights))
    assert weighted > 1.2 * plain


def test_equal_weights_are_none(target: Target, estimate: AISResult) -> None:
    codes = target.space.uniform_codes(101, generator=torch.Generator().manual_seed(0))
    plain = log_likelihood(target, codes, estimate)
    assert log_likelihood(target, codes, estimate, weights=torch.ones(101)) == plain
    values = unnormalised_log_prob(target, codes)
    variance = float(values.square().sum()) / 101 - (float(values.sum()) / 101) ** 2
    assert plain.mean == float(values.sum()) / 101 - estimate.log_z
    assert plain.data_stderr == math.sqrt(variance / 101)
    with pytest.raises(ValueError, match="weights must be one for each of the 101 points, got 3"):
        log_likelihood(target, codes, estimate, weights=torch.ones(3))
