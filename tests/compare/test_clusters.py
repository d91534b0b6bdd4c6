"""Cluster sampling leaves its target invariant; the samples of every problem are of its own energy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from gwg_dist.compare.clusters import cluster_samples, cluster_sweep
from gwg_dist.compare.problems import Bernoulli, Cliques, IsingLattice, PottsLattice, Problem, pose_target
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import category_frequencies, exact_log_prob
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical, Space

EDGES = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]])
COUPLING = torch.tensor([0.3, 1.2, 0.7, 0.0, 0.9])
NUM = 40_000


def exact(space: Space) -> Tensor:
    codes = space.all_codes()
    log_prob = ((codes[:, EDGES[:, 0]] == codes[:, EDGES[:, 1]]) * COUPLING).sum(1).double()
    return torch.softmax(log_prob, 0)


def tail_probability(space: Space, sweep=cluster_sweep) -> float:
    """Of chi-square, after two sweeps from points drawn exactly."""
    prob, rng = exact(space), np.random.default_rng(0)
    drawn = torch.multinomial(prob, NUM, replacement=True, generator=torch.Generator().manual_seed(0))
    codes = space.all_codes()[drawn]
    for _ in range(2):
        codes = sweep(codes, EDGES, coupling=COUPLING, num_categories=space.num_categories, rng=rng)
    place = space.num_categories ** torch.arange(space.num_sites - 1, -1, -1)
    counts = torch.bincount((codes.long() * place).sum(1), minlength=space.num_states)
    return float(chi2.sf(((counts - NUM * prob) ** 2 / (NUM * prob)).sum(), space.num_states - 1))


@pytest.mark.parametrize("space", [Binary(4), Categorical(4, 3)], ids=str)
def test_the_target_is_invariant(space: Space) -> None:
    assert tail_probability(space) > 1e-6


def test_a_wrong_bond_is_caught() -> None:
    """Bonds of the Ising model's own J, half of what they must be."""

    def wrong(codes: Tensor, edges: Tensor, *, coupling: Tensor, **rest) -> Tensor:
        return cluster_sweep(codes, edges, coupling=coupling / 2, **rest)

    assert tail_probability(Binary(4), wrong) < 1e-6


def test_couplings_that_repel_are_refused() -> None:
    with pytest.raises(ValueError, match="clusters need couplings that attract, got -1"):
        cluster_samples(2, num_sites=2, edges=torch.tensor([[0, 1]]), coupling=torch.tensor([-1.0]),
                        num_categories=2, sweeps=1, seed=0)  # fmt: skip


@pytest.mark.parametrize(
    "problem",
    [
        Bernoulli(num_sites=8),
        IsingLattice(shape=(3, 3), sigma=0.15),
        PottsLattice(side=3, num_categories=3, coupling=0.5),
        Cliques(num=3, size=4, beta=0.4),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_samples_are_of_the_problems_own_energy(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and variance of f, and the marginals, against enumeration."""
    monkeypatch.setattr("gwg_dist.compare.problems.SWEEPS", 20)
    posed = problem.pose(4000, torch.device("cpu"))
    target, codes = posed.target, posed.target.space.all_codes()
    prob = exact_log_prob(target)[0].exp()
    f = target.f(target.encode(codes)).double()
    assert posed.samples is not None
    found = target.f(target.encode(posed.samples)).double()
    mean, deviation = float((prob * f).sum()), math.sqrt(float((prob * (f - (prob * f).sum()) ** 2).sum()))
    assert abs(float(found.mean()) - mean) < 5 * deviation / math.sqrt(4000)
    assert float(found.std()) == pytest.approx(deviation, rel=0.1)
    assert posed.marginals is not None
    marginals = torch.stack([((codes == k) * prob[:, None]).sum(0) for k in range(target.space.num_categories)], 1)
    torch.testing.assert_close(posed.marginals, marginals, atol=1e-5, rtol=0)
    assert (category_frequencies(posed.samples, target.space.num_categories) - marginals).abs().max() < 0.04


def test_small_models_are_enumerated() -> None:
    torch.manual_seed(0)
    target = Target(RBMEnergy(Binary(5), num_hidden=3, scale=1.0))
    posed = pose_target(target, 4000, 0)
    assert posed.source == "enumeration"
    assert posed.samples is not None
    assert posed.marginals is not None
    assert (category_frequencies(posed.samples, 2) - posed.marginals).abs().max() < 0.04
