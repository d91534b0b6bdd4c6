"""Gibbs sampling draws from the exact conditionals, whatever the scan."""

import pytest
import torch

from gwg_dist.samplers import Gibbs
from gwg_dist.samplers.gibbs import GibbsNoise
from tests.support.kernels import SPACES, assert_exact, exact_pi, make_target


def conditional_matrix(name: str, beta: float, sampler: Gibbs) -> tuple[torch.Tensor, torch.Tensor]:
    """P of one random-scan step from the kernel's own conditionals, and pi."""
    target = make_target(SPACES[name])
    space = target.space
    codes = space.all_codes().long()
    place = space.places()
    state = sampler.init(target, space.encode(codes, torch.float64), torch.tensor(beta, dtype=torch.float64))
    matrix = torch.zeros(len(codes), len(codes), dtype=torch.float64)
    rows = torch.arange(len(codes))
    for i in range(space.num_sites):
        site = torch.full((len(codes),), i)
        log_p, _ = sampler.log_conditional(target, state, site)
        for shift in range(space.num_categories):
            category = (codes[:, i] + shift) % space.sizes[i]
            landed = (codes * place).sum(1) + (category - codes[:, i]) * place[i]
            matrix[rows, landed] += log_p[:, shift].exp() / space.num_sites
    return matrix, exact_pi(target, beta)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SPACES)
def test_detailed_balance(name: str, beta: float) -> None:
    matrix, pi = conditional_matrix(name, beta, Gibbs())
    assert (matrix.sum(1) - 1).abs().max() < 1e-12
    assert_exact(matrix, pi)


@pytest.mark.parametrize("name", SPACES)
def test_the_step_draws_what_the_conditional_says(name: str) -> None:
    target = make_target(SPACES[name])
    space = target.space
    codes = space.all_codes()
    sampler = Gibbs()
    state = sampler.init(target, space.encode(codes, torch.float64), torch.tensor(1.0, dtype=torch.float64))
    for i in range(space.num_sites):
        site = torch.full((len(codes),), i)
        log_p, _ = sampler.log_conditional(target, state, site)
        upper = log_p.exp().cumsum(1)
        for shift in range(space.sizes[i]):
            inside = upper[:, shift] - log_p[:, shift].exp() * 1e-6
            after, info = sampler.step(target, state, GibbsNoise(site, inside))
            expected = codes.clone()
            expected[:, i] = (codes[:, i] + shift) % space.sizes[i]
            assert torch.equal(space.decode(after.x), expected)
            assert torch.equal(info.hops, torch.full_like(info.hops, float(shift > 0)))
            assert (after.f - target.f(after.x)).abs().max() < 1e-12


def test_systematic_scan_visits_every_site_once_from_a_random_first_one() -> None:
    target = make_target(SPACES["binary"])
    space = target.space
    sampler = Gibbs(scan="systematic")
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(
        target, space.encode(space.uniform_codes(400, generator=generator), torch.float64), torch.tensor(1.0)
    )
    visited = []
    for _ in range(space.num_sites):
        noise = sampler.draw(state, generator)
        visited.append(torch.where(state.position < 0, noise.site, state.position))
        state, _ = sampler.step(target, state, noise)
    sites = torch.stack(visited, 1)
    assert torch.equal(sites.sort(1).values, torch.arange(space.num_sites).expand(400, -1))
    assert len(sites[:, 0].unique()) == space.num_sites


def test_unknown_scan() -> None:
    with pytest.raises(ValueError, match="scan must be one of random, systematic, got 'spiral'"):
        Gibbs(scan="spiral")
