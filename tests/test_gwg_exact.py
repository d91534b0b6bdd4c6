"""Gibbs-With-Gradients has the right stationary distribution: enumerated in float64, for every state and every move."""

import inspect
import textwrap

import pytest
import torch

from gwg_dist.samplers import GWG, gwg
from gwg_dist.spaces import Categorical, Change
from tests.kernels import SPACES, assert_exact, exact_pi, gwg_transition_matrix, make_target, paper_proposal

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
        log_q = GWG(temperature).log_proposal(target, x, target.evaluate(x), torch.tensor(0.5, dtype=torch.float64))
        torch.testing.assert_close(log_q.exp(), paper_proposal(target, 0.5, temperature), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SPACES)
def test_a_vector_of_betas_is_a_chain_for_each(name: str) -> None:
    target = make_target(SPACES[name])
    x = target.space.encode(target.space.all_codes()[:12], torch.float64)
    sampler, generator = GWG(), torch.Generator().manual_seed(0)
    state = sampler.init(target, x)
    noise = sampler.draw(state, generator)
    betas = torch.linspace(0, 1, 12, dtype=torch.float64)
    together, info = sampler.step(target, state, noise, betas)
    for i, beta in enumerate(betas):
        alone, info_alone = sampler.step(target, state, noise, beta)
        assert torch.equal(together.x[i], alone.x[i])
        assert abs(info.accept_prob[i] - info_alone.accept_prob[i]) < 1e-12


# -- power: a kernel with a known mistake must fail the same test ------------------------------------------------------


def mutant(old: str, new: str) -> GWG:
    """GWG with one piece of the source of its step replaced."""
    source = textwrap.dedent(inspect.getsource(GWG.step))
    assert source.count(old) == 1, f"the mutation no longer applies: {old!r}"
    namespace: dict = dict(vars(gwg))
    exec(compile("from __future__ import annotations\n" + source.replace(old, new), "mutant", "exec"), namespace)
    return type("MutantGWG", (GWG,), {"step": namespace["step"]})()


MUTANTS = {
    "reverse proposal dropped": ("_at(log_q_back, space.reverse_move(change))", "_at(log_q, move)"),
    "both proposals dropped": (
        "+ _at(log_q_back, space.reverse_move(change))\n            - _at(log_q, move)", "+ 0"
    ),
    "stale gradient kept after acceptance": ("grad=select(accepted, there.grad, here.grad)", "grad=here.grad"),
    "stale value kept after acceptance": ("f=torch.where(accepted, there.f, here.f)", "f=here.f"),
    "ratio upside down": ("x_new, there.f, x, here.f, beta", "x, here.f, x_new, there.f, beta"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("mutation", MUTANTS)
def test_mutants_of_the_step_are_caught(mutation: str, name: str) -> None:
    target = make_target(SPACES[name])
    with pytest.raises(AssertionError):
        assert_exact(gwg_transition_matrix(mutant(*MUTANTS[mutation]), target, 1.0), exact_pi(target, 1.0))


class ReverseToTheNewCategory(Categorical):
    def reverse_move(self, change: Change) -> torch.Tensor:
        return change.site * self.num_categories + change.new


class ReverseToAnotherCategory(Categorical):
    def reverse_move(self, change: Change) -> torch.Tensor:
        other = (change.old + 1) % self.num_categories
        other = torch.where(other == change.new, (other + 1) % self.num_categories, other)
        return change.site * self.num_categories + other


class SelfMoveNotMasked(Categorical):
    def first_order_differences(self, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        return (grad - (x * grad).sum(-1, keepdim=True)).flatten(1)


@pytest.mark.parametrize("mutated", [ReverseToTheNewCategory, ReverseToAnotherCategory, SelfMoveNotMasked])
def test_mutants_of_the_space_are_caught(mutated: type[Categorical]) -> None:
    target = make_target(mutated(3, 4))
    with pytest.raises(AssertionError):
        assert_exact(gwg_transition_matrix(GWG(), target, 1.0), exact_pi(target, 1.0))


def test_temperature_must_be_positive() -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            GWG(bad)
