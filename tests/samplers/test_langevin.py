"""Langevin proposals against the paper's equation, site by site; what the correction is worth; what is refused."""

import itertools

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, IsingEnergy, RBMEnergy
from gwg_dist.evaluation import ais
from gwg_dist.samplers import ACS, DMALA, DULA, Metropolis, MetropolisState, Move, Sampler, Target, run_chain
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.testing import CheckError, check_kernel, random_target
from tests.support.kernels import TOLERANCE, assert_exact, exact_pi, make_target

SPACES: dict[str, Space] = {"binary": Binary(4), "categorical": Categorical(3, 3)}


def proposal_of_the_paper(target: Target, beta: float, alpha: list[float], balance: float) -> Tensor:
    """q(x'|x) for every pair of states, by loops over sites and categories from autograd alone."""
    space = target.space
    codes, point = space.all_codes().long(), target.encode(space.all_codes()).requires_grad_()
    weights = torch.zeros(()) if target.reference is None else target.reference.weights
    log_p = -beta * target.energy(point) + (point * weights).flatten(1).sum(1)
    (grad,) = torch.autograd.grad(log_p.sum(), point)
    sites = torch.zeros(len(codes), space.num_sites, space.num_categories, dtype=torch.float64)
    for s, i, k in itertools.product(range(len(codes)), range(space.num_sites), range(space.num_categories)):
        old = int(codes[s, i])
        if space.width == 1:
            d, distance = (k - old) * grad[s, i], (k - old) ** 2
        else:
            d, distance = grad[s, i, k] - grad[s, i, old], 2 * (k != old)
        sites[s, i, k] = balance * d - distance / (2 * alpha[i])
    sites = sites.softmax(2)
    chosen = sites[:, torch.arange(space.num_sites), codes]  # [s, t, i]: site i of state t from state s
    return chosen.prod(2)


def metropolis(q: Tensor, pi: Tensor) -> Tensor:
    """P of Hastings (1970), worked out in full."""
    matrix = q * torch.minimum(torch.ones_like(q), pi * q.T / (pi[:, None] * q))
    matrix.fill_diagonal_(0)
    return matrix + torch.diag(1 - matrix.sum(1))


def all_pairs(target: Target) -> Move:
    """From every state to every state."""
    x = target.encode(target.space.all_codes())
    return Move(x.repeat_interleave(len(x), 0), x.repeat(len(x), *[1] * (x.ndim - 1)))


def forced(sampler: Metropolis, target: Target, state: MetropolisState, move: Move) -> Tensor:
    """P of a kernel whose chains may go anywhere: all pairs are forced, their probability and acceptance are read."""
    num = target.space.num_states
    q = sampler.log_prob(target, state, move).exp().view(num, num)
    assert (q.sum(1) - 1).abs().max() < TOLERANCE
    _, info = sampler.decide(target, state, move, torch.zeros(len(move.x), dtype=torch.float64))
    matrix = (q * info.accept_prob.view(num, num)).fill_diagonal_(0)
    return matrix + torch.diag(1 - matrix.sum(1))


def matrix_of(sampler: DMALA, target: Target, beta: float) -> Tensor:
    move = all_pairs(target)
    return forced(sampler, target, sampler.init(target, move.x, torch.tensor(beta, dtype=torch.float64)), move)


@pytest.mark.parametrize("beta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("balance", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("name", SPACES)
def test_the_kernel_is_the_paper_s(name: str, balance: float, beta: float) -> None:
    target = make_target(SPACES[name])
    for step_size, scales in ((0.3, None), (2.0, None), (0.4, (0.5, 1.0, 3.0, 1.5)[: target.space.num_sites])):
        alpha = [step_size * scale for scale in scales or [1.0] * target.space.num_sites]
        right = metropolis(proposal_of_the_paper(target, beta, alpha, balance), exact_pi(target, beta))
        found = matrix_of(DMALA(step_size, balance, scales), target, beta)
        assert (found - right).abs().max() < TOLERANCE
        assert_exact(found, exact_pi(target, beta))


class DistanceOfOne(DMALA):
    """A mutant: every change has squared distance 1, one-hot or not."""

    def proposal(self, target, x, evaluation, beta):
        logits = super().proposal(target, x, evaluation, beta).logits
        return super().proposal(target, x, evaluation, beta)._replace(logits=logits + (1 - x) / (2 * self.step_size))


def test_the_distance_of_one_hot_sites_is_two() -> None:
    target = make_target(SPACES["categorical"])
    right = metropolis(proposal_of_the_paper(target, 1.0, [0.5] * 3, 0.5), exact_pi(target, 1.0))
    assert (matrix_of(DistanceOfOne(0.5), target, 1.0) - right).abs().max() > 1e-3


def test_beta_is_one_a_chain() -> None:
    """Chains of several betas in one state move as chains of one beta each."""
    target = make_target(SPACES["categorical"])
    x = target.encode(target.space.all_codes())
    betas = torch.linspace(0, 1, len(x), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    together = DMALA().init(target, x, betas)
    noise = DMALA().draw(together, generator)
    after, info = DMALA().step(target, together, noise)
    for b, beta in enumerate(betas):
        alone = DMALA().init(target, x, beta)
        end, one = DMALA().step(target, alone, noise)
        torch.testing.assert_close(info.accept_prob[b], one.accept_prob[b], rtol=0, atol=1e-12)
        assert torch.equal(end.x[b], after.x[b])


# -- without the correction --------------------------------------------------------------------------------------------


def stationary(matrix: Tensor) -> Tensor:
    """The distribution that a chain with transition matrix ``matrix`` ends in."""
    balance = matrix.T - torch.eye(len(matrix), dtype=torch.float64)
    balance[-1] = 1
    pi = torch.linalg.solve(balance, torch.eye(len(matrix), dtype=torch.float64)[-1])
    assert (pi @ matrix - pi).abs().max() < TOLERANCE
    return pi


def bias(target: Target, step_size: float) -> float:
    q = proposal_of_the_paper(target, 1.0, [step_size] * target.space.num_sites, 0.5)
    return 0.5 * float((stationary(q) - exact_pi(target, 1.0)).abs().sum())


def mean_bias(energy: Energy, spread: float, step_size: float) -> float:
    """Over eight random draws of the weights."""
    biases = [bias(random_target(energy, spread=spread, seed=seed), step_size) for seed in range(8)]
    return sum(biases) / len(biases)


def test_the_bias_without_correction_is_as_stated_and_falls_with_the_step() -> None:
    """Total variation from the target on machines of 4 visible and 3 hidden units, as the docstring says."""
    machine = RBMEnergy(Binary(4), num_hidden=3)
    found = [mean_bias(machine, 1.0, step_size) for step_size in (0.4, 0.2, 0.1)]
    assert found == pytest.approx([0.08, 0.03, 0.01], abs=0.01)
    assert found == sorted(found, reverse=True)


def test_the_bias_has_a_floor_but_where_log_p_is_quadratic() -> None:
    """First-order differences are exact to second order in both directions together: then single moves balance."""
    assert mean_bias(IsingEnergy(Binary(4)), 1.0, 0.07) < 0.001
    assert mean_bias(RBMEnergy(Binary(4), num_hidden=3), 2.0, 0.07) > 0.01


@pytest.mark.parametrize("name", SPACES)
def test_dula_is_the_proposal_of_dmala_never_refused(name: str) -> None:
    """Where chains of DULA go from each state, against q, by chi-square; and its f is that of where they are."""
    target = make_target(SPACES[name])
    q = proposal_of_the_paper(target, 1.0, [0.5] * target.space.num_sites, 0.5)
    repeats = 2000
    x = target.encode(target.space.all_codes()).repeat_interleave(repeats, 0)
    chain = run_chain(DULA(0.5), target, x, num_steps=1, generator=torch.Generator().manual_seed(0))
    place = target.space.num_categories ** torch.arange(target.space.num_sites - 1, -1, -1)
    end = (target.space.decode(chain.x).long() * place).sum(1).view(-1, repeats)
    counts = torch.stack([torch.bincount(row, minlength=len(q)) for row in end]).double()
    expected = q * repeats
    often = expected >= 5
    statistic = ((counts - expected).square() / expected)[often].sum()
    assert torch.special.gammaincc(often.sum().double() / 2, statistic / 2) > 1e-6
    assert (chain.accept_prob == 1).all()
    torch.testing.assert_close(chain.state.f, target.f(chain.x), rtol=0, atol=1e-12)


def test_what_is_not_exact_is_not_called_so() -> None:
    target = make_target(SPACES["binary"])
    with pytest.raises(CheckError, match=r"DULA\(.*\) is not exact by its own account"):
        check_kernel(DULA(), target)
    with pytest.raises(ValueError, match=r"needs a sampler that leaves p_beta invariant, DULA\(.*\) does not"):
        ais(target, DULA(), generator=torch.Generator(), num_chains=10, num_temperatures=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "name"),
    [(DMALA(0.5, scales=(0.5, 2.0, 1.0)), "categorical"), (DULA(0.5), "binary"), (ACS(cycle=3), "binary")],
    ids=str,
)
def test_compiled_equals_eager_on_the_same_noise(sampler: Sampler, name: str, compiler: None) -> None:
    """The whole step in one graph, along a schedule of beta."""
    target = make_target(SPACES[name])
    x = target.encode(target.space.uniform_codes(64, generator=torch.Generator().manual_seed(0)))
    ends = []
    for backend in ("eager", "compiled"):
        generator, schedule = torch.Generator().manual_seed(2), torch.linspace(0.2, 1, 12, dtype=torch.float64)
        ends.append(
            run_chain(sampler, target, x, num_steps=12, generator=generator, schedule=schedule, backend=backend)
        )
    assert torch.equal(ends[0].x, ends[1].x)
    torch.testing.assert_close(ends[0].state.f, ends[1].state.f, rtol=0, atol=1e-12)
    torch.testing.assert_close(ends[0].accept_prob, ends[1].accept_prob, rtol=0, atol=1e-12)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [DMALA, DULA])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 0.0}, "step_size must be positive and finite, got 0.0"),
        ({"step_size": float("nan")}, "step_size must be positive and finite, got nan"),
        ({"balance": 0.4}, r"balance must lie in \[0.5, 1\], got 0.4"),
        ({"scales": (1.0, -2.0)}, "scales must be positive and finite, got -2.0"),
    ],
)
def test_bad_settings_name_themselves(cls, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**settings)


@pytest.mark.parametrize("cls", [DMALA, DULA])
def test_scales_of_another_space_are_refused(cls) -> None:
    target = make_target(Binary(4))
    x = target.encode(target.space.all_codes())
    with pytest.raises(ValueError, match="scales must hold one number for each of the 4 sites, got 3"):
        run_chain(cls(scales=(1.0, 1.0, 1.0)), target, x, num_steps=1, generator=torch.Generator())
