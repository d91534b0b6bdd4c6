"""Gibbs-With-Gradients has the right stationary distribution: enumerated in float64, for every state and every move."""

import pytest
import torch

from gwg_dist.samplers import GWG
from gwg_dist.spaces import Categorical, Change
from tests.support.kernels import (
    MUTANTS,
    SPACES,
    assert_exact,
    exact_pi,
    gwg_transition_matrix,
    make_target,
    mutant_of,
    paper_proposal,
)

BETAS = [0.0, 0.5, 1.0]
TEMPERATURES = [1.0, 2.0, 4.0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", SPACES)
def test_detailed_balance(name: str, temperature: float, beta: float) -> None:
    for seed in range(3):
        target = make_target(SPACES[name], seed=seed)
        matrix = gwg_transition_matrix(GWG(temperature), target, beta)
        assert_exact(matrix, exact_pi(target, beta))


@pytest.mark.parametrize("kind", ["rbm", "ising"])
def test_detailed_balance_of_closed_forms(kind: str) -> None:
    target = make_target(SPACES["binary"], kind)
    assert_exact(gwg_transition_matrix(GWG(), target, 0.7), exact_pi(target, 0.7))


@pytest.mark.parametrize("name", SPACES)
def test_proposal_is_that_of_the_paper(name: str) -> None:
    target = make_target(SPACES[name])
    x = target.space.encode(target.space.all_codes(), torch.float64)
    for temperature in TEMPERATURES:
        q = GWG(temperature).proposal(target, x, target.evaluate(x), torch.tensor(0.5, dtype=torch.float64))
        probs = q.weights / q.weights.sum(1, keepdim=True)
        torch.testing.assert_close(probs, paper_proposal(target, 0.5, temperature), rtol=0, atol=1e-14)
        highest = torch.log(probs.amax(1) / q.weights.amax(1))
        torch.testing.assert_close(highest, -torch.log(q.weights.sum(1)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SPACES)
def test_a_vector_of_betas_is_a_chain_for_each(name: str) -> None:
    target = make_target(SPACES[name])
    x = target.space.encode(target.space.all_codes()[:12], torch.float64)
    sampler, generator = GWG(), torch.Generator().manual_seed(0)
    betas = torch.linspace(0, 1, 12, dtype=torch.float64)
    state = sampler.init(target, x, betas)
    noise = sampler.draw(state, generator)
    together, info = sampler.step(target, state, noise)
    for i, beta in enumerate(betas):
        alone, info_alone = sampler.step(target, sampler.temper(target, state, beta), noise)
        assert torch.equal(together.x[i], alone.x[i])
        assert abs(info.accept_prob[i] - info_alone.accept_prob[i]) < 1e-12


# -- power: a kernel with a known mistake must fail the same test ------------------------------------------------------


def mutant(old: str, new: str) -> GWG:
    """GWG with one piece of the source of the Metropolis step replaced."""
    return mutant_of(GWG, old, new)()


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("mutation", MUTANTS)
def test_mutants_of_the_step_are_caught(mutation: str, name: str) -> None:
    target = make_target(SPACES[name])
    with pytest.raises(AssertionError):
        assert_exact(gwg_transition_matrix(mutant(*MUTANTS[mutation]), target, 1.0), exact_pi(target, 1.0))


class DifferenceToTheNextCategory(Categorical):
    def first_order_difference(self, grad: torch.Tensor, change: Change) -> torch.Tensor:
        return super().first_order_difference(grad, change._replace(new=(change.new + 1) % self.num_categories))


class DifferenceOfTheNextSite(Categorical):
    def first_order_difference(self, grad: torch.Tensor, change: Change) -> torch.Tensor:
        return super().first_order_difference(grad, change._replace(site=(change.site + 1) % self.num_sites))


class SelfMoveNotMasked(Categorical):
    def first_order_differences(self, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        return (grad - (x * grad).sum(-1, keepdim=True)).flatten(1)


@pytest.mark.parametrize("mutated", [DifferenceToTheNextCategory, DifferenceOfTheNextSite, SelfMoveNotMasked])
def test_mutants_of_the_space_are_caught(mutated: type[Categorical]) -> None:
    target = make_target(mutated(3, 4))
    with pytest.raises(AssertionError):
        assert_exact(gwg_transition_matrix(GWG(), target, 1.0), exact_pi(target, 1.0))


def test_temperature_must_be_positive() -> None:
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            GWG(bad)
