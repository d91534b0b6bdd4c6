"""Cycles of step sizes: every phase is the Langevin kernel of its own step size and balance, both ways."""

import math

import pytest
import torch

from gwg_dist.samplers import ACS, run_chain
from gwg_dist.spaces import Binary
from tests.samplers.test_langevin import SPACES, all_pairs, forced, metropolis, proposal_of_the_paper
from tests.support.kernels import TOLERANCE, assert_exact, exact_pi, make_target

SAMPLER = ACS(step_size_max=2.0, step_size_min=0.3, balance_max=0.9, cycle=4)


def at_number(sampler: ACS, target, x, number: int, beta: float = 1.0):
    state = sampler.init(target, x, torch.tensor(beta, dtype=torch.float64))
    return state._replace(proposal=sampler.at(target, x, state.evaluation, state.beta, torch.full((len(x),), number)))


def phase_matrix(sampler: ACS, target, number: int):
    move = all_pairs(target)
    return forced(sampler, target, at_number(sampler, target, move.x, number), move)


def settings_of(number: int) -> tuple[float, float]:
    """α and b by hand."""
    alpha = max(0.3, 2.0 / 2 * (1 + math.cos(math.pi * (number % 4) / 4)))
    return alpha, 0.5 + (0.9 - 0.5) * (alpha - 0.3) / (2.0 - 0.3)


@pytest.mark.parametrize("name", SPACES)
def test_every_phase_is_exact_and_has_its_step_size(name: str) -> None:
    target = make_target(SPACES[name])
    pi = exact_pi(target, 1.0)
    for number in range(9):
        alpha, balance = settings_of(number)
        right = metropolis(proposal_of_the_paper(target, 1.0, [alpha] * target.space.num_sites, balance), pi)
        found = phase_matrix(SAMPLER, target, number)
        assert (found - right).abs().max() < TOLERANCE
        assert_exact(found, pi)


class WayBackOfTheNextPhase(ACS):
    """A mutant: the step size of the way back is already that of the next step."""

    def arrive(self, target, state, move):
        proposal = state.proposal
        return super().arrive(target, state._replace(proposal=proposal._replace(number=proposal.number + 1)), move)


def test_a_way_back_of_another_phase_is_caught() -> None:
    target = make_target(SPACES["binary"])
    mutant = WayBackOfTheNextPhase(step_size_max=2.0, step_size_min=0.3, balance_max=0.9, cycle=4)
    with pytest.raises(AssertionError, match="detailed balance"):
        assert_exact(phase_matrix(mutant, target, 1), exact_pi(target, 1.0))


def test_a_step_goes_on_to_the_next_phase_and_a_new_beta_does_not() -> None:
    target = make_target(SPACES["categorical"])
    x = target.encode(target.space.all_codes())
    generator = torch.Generator().manual_seed(0)
    state = SAMPLER.init(target, x, torch.ones((), dtype=torch.float64))
    for number in range(6):
        assert (state.proposal.number == number).all()
        right = at_number(SAMPLER, target, state.x, number)
        torch.testing.assert_close(state.proposal.logits, right.proposal.logits, rtol=0, atol=1e-12)
        half = SAMPLER.temper(target, state, torch.tensor(0.5, dtype=torch.float64))
        right = at_number(SAMPLER, target, state.x, number, 0.5)
        torch.testing.assert_close(half.proposal, right.proposal, rtol=0, atol=1e-12)
        assert (SAMPLER.refresh(target, state).proposal.number == number).all()
        state, _ = SAMPLER.step(target, state, SAMPLER.draw(state, generator))


def test_a_flat_cycle_is_one_step_size() -> None:
    flat = ACS(step_size_max=0.5, step_size_min=0.5, balance_max=0.5, cycle=7)
    step_size = flat.step_size(torch.arange(20))
    assert (step_size == 0.5).all()
    assert (flat.balance(step_size) == 0.5).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size_max": -1.0}, "step_size_max must be positive and finite, got -1.0"),
        ({"step_size_min": 0.0}, "step_size_min must be positive and finite, got 0.0"),
        ({"step_size_min": 3.0}, "step_size_min must be at most step_size_max, got 3.0 and 1.0"),
        ({"balance_max": 1.2}, r"balance_max must lie in \[0.5, 1\], got 1.2"),
        ({"cycle": 0}, "cycle must be positive, got 0"),
    ],
)
def test_bad_settings_name_themselves(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ACS(**settings)


def test_scales_of_another_space_are_refused() -> None:
    target = make_target(Binary(4))
    with pytest.raises(ValueError, match="scales must hold one number for each of the 4 sites, got 1"):
        run_chain(ACS(scales=(1.0,)), target, torch.zeros(2, 4), num_steps=1, generator=torch.Generator())
