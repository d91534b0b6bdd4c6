"""Blocks of sites drawn at once: the numbers that lead to each state are those of the exact conditional, to 1e-12."""

import itertools
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from gwg_dist.draws import inverse_cdf
from gwg_dist.energies import IsingEnergy
from gwg_dist.samplers import EnumeratedGibbs, HammingBall, Target, enumerated_gibbs, run_chain
from gwg_dist.samplers.enumerated_gibbs import BlockNoise, all_shifts
from gwg_dist.samplers.hamming_ball import BallNoise
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.testing import check_invariance
from gwg_dist.testing.kernels import number_of
from tests.support.kernels import assert_exact, exact_pi, make_target

SPACES: dict[str, Space] = {"binary": Binary(4), "categorical": Categorical(3, 3), "ragged": Categorical(3, (2, 3, 4))}
spaces = pytest.mark.parametrize("name", SPACES)
betas = pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
EDGE = 1e-12


def orders(space: Space, block: int) -> Iterator[tuple[list[int], Tensor]]:
    """Every block of sites, and the noise that picks it."""
    for sites in itertools.combinations(range(space.num_sites), block):
        order = torch.full((space.num_states, space.num_sites), 0.9, dtype=torch.float64)
        order[:, list(sites)] = torch.linspace(0.1, 0.2, block, dtype=torch.float64)
        yield list(sites), order


def destinations(target: Target, centre: Tensor, sites: list[int], shifts: Tensor) -> Tensor:
    """The numbers of the points around ``centre`` (codes), ``(num_states, S)``."""
    codes = centre[:, None].repeat(1, len(shifts), 1)
    codes[:, :, sites] = (codes[:, :, sites] + shifts) % torch.tensor(target.space.sizes)[sites]
    return number_of(target, target.encode(codes.flatten(0, 1))).unflatten(0, (-1, len(shifts)))


def each_once(space: Space, sites: list[int], shifts: Tensor) -> Tensor:
    """The shifts, in their order, that lead to different points."""
    return shifts[(shifts < torch.tensor(space.sizes)[sites]).all(1)]


def assert_draws(step, weights: Tensor, to: Tensor, target: Target) -> None:
    """``step(uniform)`` leads to state ``to[:, s]`` just between the cumulative probabilities of s - 1 and s."""
    upper = (weights / weights.sum(1, keepdim=True)).cumsum(1)
    lower = torch.cat([torch.zeros_like(upper[:, :1]), upper[:, :-1]], 1)
    for s in range(weights.shape[1]):
        assert (upper[:, s] - lower[:, s] > 3 * EDGE).all()
        for uniform in (lower[:, s] + EDGE, upper[:, s] - EDGE):
            after, info = step(uniform)
            assert torch.equal(number_of(target, after.x), to[:, s])
            assert (after.f - target.f(after.x)).abs().max() < 1e-12
            assert torch.equal(info.accept_prob, torch.ones_like(after.f))


def enumerated_matrix(sampler: EnumeratedGibbs, target: Target, beta: float) -> tuple[Tensor, Tensor]:
    """P, every entry read off the numbers that lead to it, and pi."""
    space, pi = target.space, exact_pi(target, beta)
    codes = space.all_codes().long()
    state = sampler.init(target, target.encode(codes), torch.tensor(beta, dtype=torch.float64))
    shifts = all_shifts(space.num_categories, sampler.block, codes.device)
    matrix, blocks = torch.zeros(len(pi), len(pi), dtype=torch.float64), list(orders(space, sampler.block))
    for sites, order in blocks:
        to = destinations(target, codes, sites, each_once(space, sites, shifts))
        assert_draws(lambda u, order=order: sampler.step(target, state, BlockNoise(order, u)), pi[to], to, target)
        matrix.scatter_add_(1, to, pi[to] / pi[to].sum(1, keepdim=True) / len(blocks))
    return matrix, pi


def ball_matrix(sampler: HammingBall, target: Target, beta: float) -> tuple[Tensor, Tensor]:
    """P over all blocks and centres; how often a centre is drawn is counted on a fine grid of its noise."""
    space, pi = target.space, exact_pi(target, beta)
    codes = space.all_codes().long()
    state = sampler.init(target, target.encode(codes), torch.tensor(beta, dtype=torch.float64))
    size = sampler.num_points(space.num_categories)
    assert state.ball.shape == (size, sampler.block)
    assert len(state.ball.unique(dim=0)) == size
    assert int((state.ball > 0).sum(1).max()) == sampler.radius
    matrix, blocks = torch.zeros(len(pi), len(pi), dtype=torch.float64), list(orders(space, sampler.block))
    for (sites, order), number in itertools.product(blocks, range(size)):
        fine = 1000 * len(each_once(space, sites, state.ball))
        grid = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine
        centres = sampler.centres(target, state.ball, torch.tensor(sites).expand(len(grid), -1), grid)
        if not (centres == number).any():  # a point that comes again
            assert not (state.ball[number] < torch.tensor(space.sizes)[sites]).all()
            continue
        centre = codes.clone()
        centre[:, sites] = (centre[:, sites] + state.ball[number]) % torch.tensor(space.sizes)[sites]
        to = destinations(target, centre, sites, each_once(space, sites, state.ball))
        picks = grid[centres == number]
        noise = partial(BallNoise, order, picks[:1].expand(len(codes)))
        assert_draws(lambda u, noise=noise: sampler.step(target, state, noise(u)), pi[to], to, target)
        matrix.scatter_add_(1, to, pi[to] / pi[to].sum(1, keepdim=True) * len(picks) / len(grid) / len(blocks))
    return matrix, pi


@spaces
@betas
def test_enumerated_gibbs(name: str, beta: float) -> None:
    for block in (1, 2, 3):
        matrix, pi = enumerated_matrix(EnumeratedGibbs(block=block), make_target(SPACES[name], strength=0.5), beta)
        assert (matrix.sum(1) - 1).abs().max() < 1e-12
        assert_exact(matrix, pi)


@spaces
@betas
def test_hamming_ball(name: str, beta: float) -> None:
    for radius, block in ((1, 2), (1, 3), (2, 3)):
        matrix, pi = ball_matrix(HammingBall(radius, block), make_target(SPACES[name], strength=0.5), beta)
        assert (matrix.sum(1) - 1).abs().max() < 1e-12
        assert_exact(matrix, pi)


class CountsAsLogits(HammingBall):
    """The distance of u is drawn by exp(number of points at it)."""

    def centre(self, ball: Tensor, uniform: Tensor) -> Tensor:
        distance = (ball > 0).sum(1)
        counts = distance.bincount().double()
        weights = counts.softmax(0)[distance] / counts[distance]
        return inverse_cdf(weights.expand(len(uniform), -1), uniform)


class ForgetsTheSizes(HammingBall):
    """Points of the ball that come again are drawn more often."""

    def centres(self, target: Target, ball: Tensor, sites: Tensor, uniform: Tensor) -> Tensor:
        return self.centre(ball, uniform)


@pytest.mark.parametrize("name", ["binary", "categorical"])
def test_counts_as_logits_are_caught(name: str) -> None:
    matrix, pi = ball_matrix(CountsAsLogits(1, 2), make_target(SPACES[name], strength=0.5), 1.0)
    with pytest.raises(AssertionError, match="detailed balance"):
        assert_exact(matrix, pi)


def test_forgotten_sizes_are_caught() -> None:
    matrix, pi = ball_matrix(ForgetsTheSizes(1, 2), make_target(SPACES["ragged"], strength=0.5), 1.0)
    with pytest.raises(AssertionError, match="detailed balance"):
        assert_exact(matrix, pi)


@spaces
def test_a_block_of_all_sites_forgets_where_it_was(name: str) -> None:
    """One step from anywhere is a draw from p_beta itself."""
    target = make_target(SPACES[name])
    pi = exact_pi(target, 1.0)
    block = target.space.num_sites
    for sampler in (EnumeratedGibbs(block=block), HammingBall(radius=block, block=block)):
        x = target.encode(torch.zeros(20_000, block, dtype=torch.uint8))
        end = run_chain(sampler, target, x, num_steps=1, generator=torch.Generator().manual_seed(0), backend="eager")
        share = torch.bincount(number_of(target, end.x), minlength=len(pi)) / len(x)
        assert (share - pi).abs().max() < 0.015


def test_a_systematic_scan_goes_on_where_the_last_block_ended() -> None:
    target, sampler = make_target(Binary(10)), EnumeratedGibbs(block=4, scan="systematic")
    x = target.encode(torch.zeros(300, 10, dtype=torch.uint8))
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(target, x, torch.tensor(1.0))
    visited = []
    for _ in range(5):
        noise = sampler.draw(state, generator)
        visited.append(sampler.sites(state, noise))
        state, _ = sampler.step(target, state, noise)
    sites = torch.cat(visited, 1)
    assert torch.equal(sites, (sites[:, :1] + torch.arange(20)) % 10)
    assert len(sites[:, 0].unique()) == 10


def test_a_systematic_scan_leaves_the_target_invariant() -> None:
    check_invariance(EnumeratedGibbs(block=3, scan="systematic"), make_target(Binary(4)), backend="eager")


@pytest.mark.parametrize("sampler", [EnumeratedGibbs(block=6), HammingBall(radius=3, block=7)], ids=str)
def test_parts_are_bounded_and_change_nothing(sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    target, sizes = make_target(Binary(20)), []
    assert isinstance(target.energy, torch.nn.Module)
    target.energy.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].numel()))
    x = target.encode(target.space.uniform_codes(7, generator=torch.Generator().manual_seed(0)))
    ends = []
    for limit in (2**24, 3000, 40):
        monkeypatch.setattr(enumerated_gibbs, "MAX_NUMBERS", limit)
        sizes.clear()
        generator = torch.Generator().manual_seed(1)
        ends.append(run_chain(sampler, target, x, num_steps=4, generator=generator, backend="eager"))
        assert max(sizes) <= max(limit, x.numel())
    assert all(torch.equal(end.x, ends[0].x) for end in ends)
    assert float(ends[0].hops.sum()) > 0


def test_a_ball_is_listed_once() -> None:
    """And not in every iteration of a training: with many categories that takes longer than its steps."""
    balls = {}
    for radius, categories in ((2, 3), (1, 3), (2, 4)):
        target = make_target(Categorical(5, categories))
        x = target.encode(torch.zeros(2, 5, dtype=torch.uint8))
        found = [HammingBall(radius).init(target, x, torch.tensor(1.0)).ball for _ in range(2)]
        assert found[0] is found[1]
        balls[radius, categories] = len(found[0])
    assert balls == {(2, 3): 33, (1, 3): 9, (2, 4): 67}


def test_twelve_sites_at_once_cross_what_single_sites_cannot() -> None:
    """Twelve spins that all hold each other: half of the chains are on the other side after one step."""
    energy = IsingEnergy(Binary(12)).double()
    with torch.no_grad():
        energy.pairs.fill_(1.0)
    target = Target(energy)
    x = target.encode(torch.zeros(100, 12, dtype=torch.uint8))
    end = run_chain(EnumeratedGibbs(block=12), target, x, num_steps=1, generator=torch.Generator().manual_seed(0))
    assert 25 < int((end.x.sum(1) > 6).sum()) < 75


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnumeratedGibbs(block=0), r"block must lie in 1\.\.12, got 0"),
        (lambda: EnumeratedGibbs(block=13), r"block must lie in 1\.\.12, got 13"),
        (lambda: EnumeratedGibbs(scan="spiral"), "scan must be one of random, systematic, got 'spiral'"),
        (lambda: HammingBall(radius=0), r"radius must lie in 1\.\.block = 1\.\.4, got 0"),
        (lambda: HammingBall(radius=5), r"radius must lie in 1\.\.block = 1\.\.4, got 5"),
    ],
)
def test_settings_outside_their_range(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("sampler", "space", "message"),
    [
        (EnumeratedGibbs(block=4), Binary(3), "block must be at most the 3 sites, got 4"),
        (EnumeratedGibbs(block=4), Categorical(9, 21), "block must have at most 4,096 joint states, got 194,481"),
        (HammingBall(radius=4, block=4), Binary(3), "radius and block must be at most the 3 sites, got 4 and 4"),
        (HammingBall(radius=4), Categorical(9, 21), "a ball of at most 65,536 points, got 194,481"),
    ],
)
def test_what_does_not_fit_the_target_is_said_before_the_run(sampler, space: Space, message: str) -> None:
    target = make_target(space)
    x = target.encode(torch.zeros(2, space.num_sites, dtype=torch.uint8))
    with pytest.raises(ValueError, match=message):
        run_chain(sampler, target, x, num_steps=1, generator=torch.Generator())
