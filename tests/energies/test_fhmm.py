"""The factorial hidden Markov model against its textbook density, and its chains drawn whole, by enumeration."""

import inspect
import math
import textwrap

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import FHMMEnergy
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.reference import Reference
from gwg_dist.samplers import BlockGibbs, Target, run_chain
from gwg_dist.samplers.block_gibbs import BlockGibbsState
from gwg_dist.samplers.conditionals import PathConditionals
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing import check_energy, check_kernel, random_target
from gwg_dist.testing.kernels import number_of
from tests.support.kernels import TOLERANCE, exact_pi

SETTINGS = {"sigma": 0.7, "start": 0.3, "stay": 0.8, "offset": 0.4}
BETAS = (0.0, 0.4, 1.0, 1.5)


def known(space: Binary) -> FHMMEnergy:
    return FHMMEnergy(space, sigma=0.7, start=0.3, stay=0.8, offset=0.4, seed=3).double()


def textbook(energy: FHMMEnergy, codes: Tensor) -> Tensor:
    """log p(x, y), one factor at a time."""
    result = torch.zeros(len(codes), dtype=torch.float64)
    for n, x in enumerate(codes.view(-1, *energy.space.shape).tolist()):
        for t, states in enumerate(x):
            mean = SETTINGS["offset"] + sum(w for w, on in zip(energy.weight.tolist(), states, strict=True) if on)
            z = (float(energy.observed[t]) - mean) / SETTINGS["sigma"]
            result[n] += -(z**2) / 2 - math.log(SETTINGS["sigma"] * math.sqrt(2 * math.pi))
            for k, on in enumerate(states):
                one = SETTINGS["start"]
                if t:
                    one = SETTINGS["stay"] if x[t - 1][k] else 1 - SETTINGS["stay"]
                result[n] += math.log(one if on else 1 - one)
    return result


def test_energy_is_minus_the_log_of_the_joint_density() -> None:
    energy = known(Binary((4, 2)))
    codes = energy.space.all_codes()
    found = -energy(codes.double()).detach()
    torch.testing.assert_close(found, textbook(energy, codes), rtol=0, atol=1e-5)  # settings were rounded to float32
    assert torch.equal(found.argsort(), textbook(energy, codes).argsort())


def test_z_is_the_likelihood_of_the_series() -> None:
    """p(y) by the forward recursion over the 2^K joint states."""
    energy = known(Binary((5, 2)))
    states = Binary(2).all_codes().double()
    mean, sigma = states @ energy.weight + energy.offset, energy.log_sigma.exp()
    emission = torch.distributions.Normal(mean, sigma).log_prob(energy.observed[:, None])
    start, stay = energy.start_logit.sigmoid(), energy.stay_logit.sigmoid()
    log_p = torch.where(states > 0, start, 1 - start).log().sum(1) + emission[0]
    kept = (states[:, None] == states).double()
    moves = (kept * stay + (1 - kept) * (1 - stay)).log().sum(2)
    for row in emission[1:]:
        log_p = torch.logsumexp(log_p[:, None] + moves, 0) + row
    target = Target(energy, Reference(energy.space).double())
    found = exact_log_prob(target)[1] + 10 * math.log(2)  # Z is against the uniform reference
    assert abs(float((torch.logsumexp(log_p, 0) - found).detach())) < 1e-6  # whose logarithms were rounded to float32


@pytest.mark.parametrize("shape", [(2, 1), (3, 3), (6, 2)])
def test_contract_and_structure(shape: tuple[int, int]) -> None:
    energy = FHMMEnergy(Binary(shape))
    random_target(energy, spread=0.7)
    check_energy(energy)


def test_gradient_is_the_exact_change_of_every_flip() -> None:
    """On the quadratic (y - w^T x)² it would be off by w² / 2σ² a flip."""
    target = random_target(FHMMEnergy(Binary((3, 2))), spread=0.7)
    x = target.encode(target.space.all_codes())
    grad = target.evaluate(x).grad
    for site in range(6):
        y = x.clone()
        y[:, site] = 1 - y[:, site]
        step = (y - x)[:, site] * grad[:, site]
        torch.testing.assert_close(target.f(y) - target.f(x), step, rtol=0, atol=1e-11)


# -- whole chains ------------------------------------------------------------------------------------------------------


def blocks_of(target: Target) -> PathConditionals:
    blocks = BlockGibbs().init(target, target.encode(target.space.all_codes()), torch.tensor(1.0)).blocks
    assert isinstance(blocks, PathConditionals)
    return blocks


def path_matrix(blocks: PathConditionals, target: Target, number: int, beta: float) -> Tensor:
    """P of drawing one path, each entry the product of the probabilities by which its sites are drawn."""
    codes = target.space.all_codes()
    x, tempered = target.encode(codes), torch.tensor(beta, dtype=torch.float64)
    path, pull = blocks.paths[number], list((tempered * blocks.along[number]).expand(len(x), -1).unbind(1))
    odds = blocks.log_odds(x, path, pull, tempered)
    matrix = torch.zeros(len(x), len(x), dtype=torch.float64)
    for values in Binary(len(path)).all_codes().double():
        log_p = torch.zeros(len(x), dtype=torch.float64)
        for t, alone in enumerate(odds):
            later = alone + pull[t] * values[t + 1] if t + 1 < len(odds) else alone
            log_p += torch.nn.functional.logsigmoid(later if values[t] else -later)
        y = x.clone()
        y[:, path] = values
        matrix[torch.arange(len(x)), number_of(target, y)] += log_p.exp()
    return matrix


def gap_of_invariance(target: Target, beta: float) -> float:
    """max |π P - π| over the matrix of a whole sweep."""
    blocks, pi = blocks_of(target), exact_pi(target, beta)
    flow = pi
    for number in range(len(blocks.paths)):
        matrix = path_matrix(blocks, target, number, beta)
        assert (matrix.sum(1) - 1).abs().max() < TOLERANCE
        flow = flow @ matrix
    return float((flow - pi).abs().max())


@pytest.mark.parametrize("beta", BETAS)
def test_each_chain_is_drawn_from_its_exact_conditional(beta: float) -> None:
    target = random_target(FHMMEnergy(Binary((4, 2))), spread=0.8)
    pi, codes = exact_pi(target, beta), target.space.all_codes()
    blocks = blocks_of(target)
    assert torch.equal(blocks.paths, torch.tensor([[0, 2, 4, 6], [1, 3, 5, 7]]))
    for number, path in enumerate(blocks.paths):
        others = [site for site in range(8) if site not in path.tolist()]
        same = (codes[:, None, others] == codes[None, :, others]).all(2)
        exact = torch.where(same, pi, 0.0)
        exact = exact / exact.sum(1, keepdim=True)
        assert (path_matrix(blocks, target, number, beta) - exact).abs().max() < TOLERANCE
    assert gap_of_invariance(target, beta) < TOLERANCE


@pytest.mark.parametrize("beta", BETAS)
def test_a_sweep_draws_by_these_probabilities(beta: float) -> None:
    """Just below and above the probability that a site becomes 1, it becomes 1 and 0."""
    target = random_target(FHMMEnergy(Binary((3, 2))), spread=0.8)
    blocks, tempered = blocks_of(target), torch.tensor(beta, dtype=torch.float64)
    x = target.encode(target.space.all_codes())
    uniform = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    after = blocks.sweep(x, (), uniform, tempered).x
    path, others = blocks.paths[1], blocks.paths[0]
    mid = x.clone()
    mid[:, others] = after[:, others]  # the second path is drawn given the first as it has become
    pull = list((tempered * blocks.along[1]).expand(len(x), -1).unbind(1))
    odds = blocks.log_odds(mid, path, pull, tempered)
    for t, site in enumerate(path.tolist()):
        later = odds[t] + pull[t] * after[:, path[t + 1]] if t + 1 < len(path) else odds[t]
        for shift, value in ((-1e-9, 1.0), (1e-9, 0.0)):
            edge = uniform.clone()
            edge[:, site] = later.sigmoid() + shift
            assert (blocks.sweep(x, (), edge, tempered).x[:, site] == value).all()


MUTANTS = {
    "couplings that are not tempered": ("_column(beta, x).double() * along", "(0 * beta + 1) * along"),
    "the reference forgotten": ("if self.target.reference is not None:", "if False:"),
    "no message from the past": ("_softplus(odds[-1] + J) - _softplus(odds[-1])", "0 * J"),
    "the path's own state in its field": ("x.index_fill(1, path, 0.0)", "x"),
    "couplings counted twice": (".expand(len(x), -1)", ".expand(len(x), -1).mul(2)"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_enumeration_sees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By long frequencies of sweeps from exact samples, where the source was changed."""
    old, new = MUTANTS[name]
    target = random_target(FHMMEnergy(Binary((3, 2))), spread=1.0)
    assert distance_after_sweeps(target, 0.6) < 0.02
    for method in ("sweep", "log_odds"):
        source = textwrap.dedent(inspect.getsource(getattr(PathConditionals, method)))
        if old in source:
            scope = dict(vars(conditionals_module()))
            exec("from __future__ import annotations\n" + source.replace(old, new), scope)
            monkeypatch.setattr(PathConditionals, method, scope[method])
    assert distance_after_sweeps(target, 0.6) > 0.04


def conditionals_module():
    return inspect.getmodule(PathConditionals)


def distance_after_sweeps(target: Target, beta: float) -> float:
    """Total variation between p_β and 40,000 chains from it after three sweeps."""
    generator = torch.Generator().manual_seed(1)
    pi = exact_pi(target, beta)
    start = torch.multinomial(pi, 40_000, replacement=True, generator=generator)
    x = target.encode(target.space.all_codes()[start])
    tempered = torch.tensor(beta, dtype=torch.float64)
    after = run_chain(BlockGibbs(), target, x, num_steps=3, generator=generator, beta=tempered, backend="eager").x
    counts = torch.bincount(number_of(target, after), minlength=len(pi)).double()
    return float((counts / counts.sum() - pi).abs().sum() / 2)


def test_blocks_of_single_precision_are_the_same_kernel() -> None:
    """Float32 chains do not fall to the sweep by colours, and stay with p."""
    energy = FHMMEnergy(Binary((4, 3)))
    generator = torch.Generator().manual_seed(0)
    pi = exact_pi(random_target(energy, spread=0.5), 1.0)
    target = random_target(energy, spread=0.5, dtype=torch.float32)
    x = target.space.encode(target.space.uniform_codes(4000, generator=generator))
    after = run_chain(BlockGibbs(), target, x, num_steps=60, generator=generator)
    assert isinstance(after.state, BlockGibbsState)
    assert isinstance(after.state.blocks, PathConditionals)
    exact = (target.space.all_codes().double() * pi[:, None]).sum(0)
    assert (after.x.double().mean(0) - exact).abs().max() < 0.03
    check_kernel(BlockGibbs())


def test_series_is_drawn_from_the_model() -> None:
    energy = FHMMEnergy(Binary((4000, 3)), sigma=0.5, start=0.5, stay=0.9, offset=1.0, seed=1)
    residual = energy.observed - energy.latent.float() @ energy.weight.detach() - 1.0
    assert abs(float(residual.std()) - 0.5) < 0.02
    kept = (energy.latent[1:] == energy.latent[:-1]).float().mean()
    assert abs(float(kept) - 0.9) < 0.02
    assert torch.equal(energy.observed, FHMMEnergy(energy.space, start=0.5, stay=0.9, offset=1.0, seed=1).observed)
    assert not torch.equal(energy.observed, FHMMEnergy(energy.space, start=0.5, stay=0.9, offset=1.0, seed=2).observed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FHMMEnergy(Categorical((4, 4), 3)), "FHMMEnergy is for Binary spaces"),
        (lambda: FHMMEnergy(Binary(16)), r"shape \(N, K\), N times of 2 or more, got \(16,\)"),
        (lambda: FHMMEnergy(Binary((4, 2)), sigma=0.0), "sigma must be positive, got 0.0"),
        (lambda: FHMMEnergy(Binary((4, 2)), stay=1.0), r"stay must lie in \(0, 1\), got 1.0"),
        (lambda: FHMMEnergy(Binary((4, 2)), observed=[1.0, 2.0]), "observed must hold 4 numbers, one a time, got 2"),
        (lambda: FHMMEnergy(Binary((2, 2)), observed=[1.0, math.nan]), "observed must be finite, got nan"),
    ],
)
def test_bad_settings_name_themselves(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
