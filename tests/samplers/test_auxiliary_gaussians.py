"""Kernels with a continuous variable z on the way: nothing to enumerate z by, so detailed balance is checked given z.

A kernel leaves pi invariant where pi(x) N(z|x) T(x -> x'|z) is symmetric in x and x' at every z. That is asked of all
pairs of states at many z, with pi, N and the proposal worked out here over all states, without the package's factors.
"""

import inspect
import sys
import textwrap
from typing import TypeVar, cast

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import IsingEnergy, IsingTorusEnergy, PottsEnergy, RBMEnergy
from gwg_dist.samplers import AVG, GaussianIntegralGibbs, Sampler, Target, run_chain
from gwg_dist.samplers.auxiliary_gradient import AVGNoise
from gwg_dist.samplers.gaussian_integral import MAX_NUMBERS, GaussianState
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing import check_invariance
from gwg_dist.testing.models import exact_pi, random_target
from tests.support.kernels import make_target

TOLERANCE = 1e-12
NUM_Z = 40
T = TypeVar("T", bound=Sampler)


def mutant(cls: type[T], method: str, old: str, new: str) -> type[T]:
    """The kernel with one piece of the source of one method replaced."""
    source = textwrap.dedent(inspect.getsource(getattr(cls, method)))
    assert source.count(old) == 1, f"the mutation no longer applies: {old!r}"
    namespace = dict(vars(sys.modules[cls.__module__]))
    exec(compile("from __future__ import annotations\n" + source.replace(old, new), "mutant", "exec"), namespace)
    return cast(type[T], type(f"Mutant{cls.__name__}", (cls,), {method: namespace[method]}))


def pairs_of_states(target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """All points ``(S, ...)``, and numbers of x and x' for every pair, ``(S^2,)`` each."""
    x = target.encode(target.space.all_codes())
    source, destination = torch.cartesian_prod(torch.arange(len(x)), torch.arange(len(x))).T
    return x, source, destination


def slope_of(target: Target, x: Tensor, beta: float) -> Tensor:
    """∇ log p_beta by autograd, flattened to ``(S, N)``."""
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(-beta * target.energy(x).sum(), x)
    assert target.reference is not None
    return (grad + target.reference.weights).flatten(1)


# -- the auxiliary-variable gradient sampler ---------------------------------------------------------------------------

TARGETS = {
    "network": make_target(Binary(4), strength=0.5),
    "hidden units": make_target(Binary(4), "rbm"),
    "categorical": make_target(Categorical(3, 3), strength=0.5),
}


def avg_flow_gap(sampler: AVG, target: Target, beta: float) -> float:
    """The largest asymmetry of pi(x) N(z|x) q(x'|z, x) a(x -> x'|z), relative to the largest flow at that z."""
    x, source, destination = pairs_of_states(target)
    pi, slope, flat = exact_pi(target, beta), slope_of(target, x, beta), x.flatten(1)
    b = torch.tensor(beta, dtype=torch.float64)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for number in range(NUM_Z):
        z = x[number % len(x)] + sampler.delta * torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
        log_normal = -(flat - z.flatten()).square().sum(1) / (2 * sampler.delta**2)
        q = torch.softmax(slope @ flat.T + log_normal, 1)
        with torch.no_grad():
            state = sampler.init(target, x[source], b)
            moved, info = sampler.decide(
                target, state, z.expand_as(x[source]), x[destination], torch.zeros(len(source), dtype=torch.float64)
            )
            fresh = target.evaluate(moved.x)
        assert torch.equal(moved.x, x[destination]), "a move of positive probability was not made"
        torch.testing.assert_close(moved.evaluation.grad, fresh.grad, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(moved.f, fresh.f, rtol=0, atol=TOLERANCE)
        flow = (pi * log_normal.softmax(0))[:, None] * q * info.accept_prob.view(len(x), len(x))
        worst = max(worst, float((flow - flow.T).abs().max() / flow.max()))
    return worst


@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("delta", [0.3, 1.5])
@pytest.mark.parametrize("name", TARGETS)
def test_avg_balances_at_every_z(name: str, delta: float, beta: float) -> None:
    assert avg_flow_gap(AVG(delta), TARGETS[name], beta) < TOLERANCE


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("decide", "self.logits(target, there, z), x)", "self.logits(target, there, x_new + (z - x)), x)"),
        ("decide", "+ log_normal", ""),
        ("decide", "+ log_q_back", ""),
        ("decide", "there, z), x)", "there._replace(evaluation=state.evaluation), z), x)"),
        ("towards", "(z - 0.5)", "z"),
        ("logits", "+ self.towards(z)", "+ 2 * self.towards(z)"),
    ],
    ids=[
        "another z back",
        "density of z dropped",
        "way back dropped",
        "gradient from here",
        "|x'|^2 dropped",
        "half δ²",
    ],
)
def test_avg_mutants_are_caught(method: str, old: str, new: str) -> None:
    sampler = mutant(AVG, method, old, new)(0.8)
    assert max(avg_flow_gap(sampler, TARGETS[name], 1.0) for name in ("network", "categorical")) > 1e-3


def test_avg_draws_from_its_proposal() -> None:
    """A step is ``decide`` on a draw of the sites by the logits that the pairwise check has seen."""
    target, sampler = TARGETS["categorical"], AVG(0.8)
    x = target.encode(target.space.all_codes()).repeat(50, 1, 1)
    state = sampler.init(target, x, torch.tensor(0.7, dtype=torch.float64))
    noise = sampler.draw(state, torch.Generator().manual_seed(0))
    z = x + 0.8 * noise.normal
    x_new = target.space.draw_sites(x, sampler.logits(target, state, z), noise.sites)
    after, info = sampler.step(target, state, noise)
    again, same = sampler.decide(target, state, z, x_new, noise.accept)
    assert torch.equal(after.x, again.x)
    assert torch.equal(info.accept_prob, same.accept_prob)
    refused, _ = sampler.step(target, state, AVGNoise(noise.normal, noise.sites, torch.ones_like(noise.accept)))
    assert torch.equal(refused.x, x)
    assert torch.equal(info.hops, target.space.hamming(x, after.x))


def test_avg_is_never_refused_on_a_linear_model() -> None:
    target = random_target(RBMEnergy(Binary(6), num_hidden=2))
    assert isinstance(target.energy, RBMEnergy)
    with torch.no_grad():
        target.energy.weight.zero_()
    x = target.encode(target.space.all_codes())
    chain = run_chain(AVG(1.0), target, x, num_steps=5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(chain.accept_prob, torch.ones(64, dtype=torch.float64), rtol=0, atol=1e-10)
    assert float(chain.hops.mean()) > 1


@pytest.mark.parametrize("delta", [0.0, -1.0, float("inf"), float("nan")])
def test_avg_refuses_a_bad_delta(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must be positive and finite"):
        AVG(delta)


# -- Gibbs sampling through the Gaussian integral ----------------------------------------------------------------------

QUADRATIC = {
    "ising": random_target(IsingEnergy(Binary(5)), spread=0.6),
    "torus": random_target(IsingTorusEnergy(Binary((3, 3))), spread=0.4),
    "potts": random_target(PottsEnergy(Categorical(3, 3)), spread=0.4),
}


def hessian_of(target: Target) -> Tensor:
    """J, ``(N, N)``, by second differences of the energy's polynomial."""
    x = torch.zeros(1, *target.encode(target.space.all_codes()[:1]).shape[1:], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda y: -target.energy(y).sum(), x)
    return cast(Tensor, hessian).reshape(x.numel(), x.numel())


def integral_flow_gap(sampler: GaussianIntegralGibbs, target: Target, beta: float) -> float:
    """The largest asymmetry of pi(x) N(z; beta K x, beta K) p(x'|z), relative to the largest flow at that z.

    N is taken on the range of K, where all z lie. At every x the kernel gets the noise that leads to the same z.
    """
    target = target.frozen()
    x, source, destination = pairs_of_states(target)
    b, pi, flat = torch.tensor(beta, dtype=torch.float64), exact_pi(target, beta), x.flatten(1)
    state = sampler.init(target, x, b)
    k = hessian_of(target.plain()) + state.shift * torch.eye(flat.shape[1], dtype=torch.float64)
    torch.testing.assert_close(state.factor.T @ state.factor, k, rtol=0, atol=TOLERANCE)
    inverse, to_noise = torch.linalg.pinv(k, hermitian=True, rtol=1e-10), torch.linalg.pinv(state.factor.T, rtol=1e-6)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for number in range(NUM_Z):
        normal = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64)
        z = beta * k @ flat[number % len(x)] + beta**0.5 * state.factor.T @ normal
        away = z - beta * flat @ k
        log_normal = -(away @ inverse * away).sum(1) / (2 * beta)
        noise = away @ to_noise.T / beta**0.5
        logits = sampler.logits(target, state, noise)
        log_p = target.space.log_prob_sites(x[source], logits[source], x[destination]).view(len(x), len(x))
        assert (log_p.logsumexp(1)).abs().max() < 1e-10
        flow = (pi.log() + log_normal)[:, None] + log_p
        flow = (flow - flow.max()).exp()
        worst = max(worst, float((flow - flow.T).abs().max()))
    return worst


@pytest.mark.parametrize("beta", [0.4, 1.0])
@pytest.mark.parametrize("name", ["ising", "potts"])
def test_the_conditionals_through_z_are_those_of_one_joint_law(name: str, beta: float) -> None:
    assert integral_flow_gap(GaussianIntegralGibbs(), QUADRATIC[name], beta) < TOLERANCE


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("logits", "beta.sqrt()", "beta"),
        ("logits", "(x - 0.5)", "x"),
        ("logits", "+ beta * state.shift * (x - 0.5)", ""),
        ("logits", "beta * state.shift", "2 * beta * state.shift"),
    ],
    ids=["noise not rescaled by sqrt(beta)", "|x|^2 forgotten", "c forgotten", "another c than the factor's"],
)
def test_mutants_of_the_integral_are_caught(method: str, old: str, new: str) -> None:
    sampler = mutant(GaussianIntegralGibbs, method, old, new)()
    assert integral_flow_gap(sampler, QUADRATIC["ising"], 0.4) > 1e-3


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("name", QUADRATIC)
def test_the_integral_leaves_its_target_invariant(name: str, beta: float) -> None:
    check_invariance(GaussianIntegralGibbs(), QUADRATIC[name], beta=beta, backend="eager")


@pytest.mark.parametrize("sampler", [AVG(), GaussianIntegralGibbs()], ids=str)
def test_chains_at_different_betas_side_by_side(sampler: Sampler) -> None:
    """The same numbers as alone at each beta."""
    target = QUADRATIC["ising"].frozen()
    x = target.encode(target.space.all_codes())[:6]
    betas = torch.linspace(0, 1, 6, dtype=torch.float64)
    together = sampler.init(target, x, betas)
    noise = sampler.draw(together, torch.Generator().manual_seed(0))
    after, _ = sampler.step(target, together, noise)
    for i, beta in enumerate(betas):
        alone = sampler.temper(target, sampler.init(target, x[i : i + 1], torch.ones(())), beta)
        one, _ = sampler.step(target, alone, type(noise)(*(part[i : i + 1] for part in noise)))
        assert torch.equal(one.x[0], after.x[i])


def test_the_factor_is_made_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of steps and of changes of beta; a refresh evaluates anew and keeps it."""
    made, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: made.append(1) or eigh(matrix))
    target, sampler = QUADRATIC["torus"], GaussianIntegralGibbs()
    x = target.encode(target.space.all_codes()[:10])
    schedule = torch.linspace(0, 1, 20, dtype=torch.float64)
    chain = run_chain(sampler, target, x, num_steps=20, generator=torch.Generator().manual_seed(0), schedule=schedule)
    assert len(made) == 1
    again = sampler.refresh(target.frozen(), cast(GaussianState, chain.state))
    assert len(made) == 1
    torch.testing.assert_close(again.f, chain.state.f, rtol=0, atol=1e-12)


def test_the_integral_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="needs an energy of pairs of sites, such as IsingEnergy; got RBMEnergy"):
        run_chain(
            GaussianIntegralGibbs(), make_target(Binary(4), "rbm"), torch.zeros(2, 4), num_steps=1,
            generator=torch.Generator(),
        )  # fmt: skip
    large = Target(IsingTorusEnergy(Binary((100, 100))))
    assert f"at most {MAX_NUMBERS} rows; the energy has 10000" in str(GaussianIntegralGibbs().refusal(large))
