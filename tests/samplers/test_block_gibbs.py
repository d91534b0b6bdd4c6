"""Block Gibbs sampling leaves p_beta invariant: every move of every block is enumerated, for pairs and hidden units."""

import copy
import inspect
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.evaluation import ais
from gwg_dist.graph import Graph
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, BlockGibbs, Target, conditionals, run_chain
from gwg_dist.samplers.conditionals import RULES, HiddenConditionals, PairConditionals
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.sweep import ColourSweep
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.structure import SparseCategoricalPairs, SparsePairs
from gwg_dist.testing import (
    CheckError,
    check_detailed_balance,
    check_energy,
    check_invariance,
    check_kernel,
    random_target,
)  # fmt: skip
from gwg_dist.testing.kernels import number_of
from tests.support.kernels import TOLERANCE, assert_exact, exact_pi


class OnAGraph(Energy):
    """Any pairs of sites, binary or categorical, with a coupling, or a matrix of them, of its own for each."""

    def __init__(self, space: Space, edges: Tensor) -> None:
        super().__init__(space)
        self.graph = Graph(space.num_sites, edges)
        self.register_buffer("edges", edges)
        width = () if isinstance(space, Binary) else (space.num_categories,)
        self.couplings = torch.nn.Parameter(torch.zeros(len(edges), *width, *width))
        self.field = torch.nn.Parameter(torch.zeros(space.num_sites, *width))

    def forward(self, x: Tensor) -> Tensor:
        ends = x[:, self.edges]  # pyright: ignore[reportArgumentType]
        pairs = "bm,bm,m->b" if x.ndim == 2 else "bmk,bml,mkl->b"
        together = torch.einsum(pairs, ends[:, :, 0], ends[:, :, 1], self.couplings)
        return -together - (x * self.field).flatten(1).sum(1)

    def structure(self) -> SparsePairs | SparseCategoricalPairs:
        kind = SparsePairs if isinstance(self.space, Binary) else SparseCategoricalPairs
        rows = self.graph.rows(self.couplings.detach())
        return kind(self.graph, rows, self.field.detach().clone(), rows.new_zeros(()))


def triangular(rows: int, columns: int) -> Tensor:
    """A periodic lattice with one diagonal: three colours or more."""
    site = torch.arange(rows * columns).view(rows, columns)
    steps = [site.roll(-1, 0), site.roll(-1, 1), site.roll((-1, -1), (0, 1))]
    edges = torch.cat([torch.stack([site.flatten(), other.flatten()], 1) for other in steps])
    return edges.sort(1).values.unique(dim=0)


def erdos_renyi(num_sites: int, share: float, seed: int) -> Tensor:
    """Every pair with this probability, in a random order of its two sites."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.combinations(torch.arange(num_sites))
    edges = edges[torch.rand(len(edges), generator=generator) < share]
    flipped = torch.rand(len(edges), 1, generator=generator) < 0.5
    return torch.where(flipped, edges.flip(1), edges)


PAIRS: dict[str, tuple[Energy, float]] = {
    "triangular": (OnAGraph(Binary((3, 3)), triangular(3, 3)), 0.6),
    "random graph": (OnAGraph(Binary(8), erdos_renyi(8, 0.4, 0)), 0.8),
    "potts on a graph": (OnAGraph(Categorical(5, 3), erdos_renyi(5, 0.5, 1)), 0.8),
    "torus": (IsingTorusEnergy(Binary((3, 3))), 0.2),
    "ising": (IsingEnergy(Binary(5)), 0.3),
    "potts": (PottsEnergy(Categorical(3, 4)), 0.6),
    "ragged potts": (PottsEnergy(Categorical(3, (3, 2, 4))), 0.6),
    "ragged potts on a graph": (OnAGraph(Categorical(4, (2, 3, 2, 4)), erdos_renyi(4, 0.5, 1)), 0.8),
    "binary potts": (PottsEnergy(Binary(5)), 0.6),
}
BETAS = (0.0, 0.6, 1.0, 1.5)


# -- pairs of sites ----------------------------------------------------------------------------------------------------


def start(sampler: BlockGibbs, target: Target, beta: float) -> Any:
    x = target.space.encode(target.space.all_codes(), torch.float64)
    return sampler.init(target, x, torch.tensor(beta, dtype=torch.float64))


def site_matrix(target: Target, state: Any, block: Tensor, site: int) -> Tensor:
    """P of drawing one site, from the kernel's own probabilities of what it becomes."""
    codes = target.space.all_codes().long()
    probability = state.blocks.transition(state.x, block, state.beta)[:, block.tolist().index(site)]
    if probability.ndim == 1:
        probability = torch.stack([1 - probability, probability], 1)
    matrix = torch.zeros(len(codes), len(codes), dtype=torch.float64)
    for category in range(target.space.sizes[site]):
        landed = codes.clone()
        landed[:, site] = category
        end = number_of(target, target.encode(landed))
        matrix[torch.arange(len(codes)), end] += probability[:, category]
    return matrix


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PAIRS)
def test_every_site_of_every_block_is_drawn_in_detailed_balance(name: str, rule: str, beta: float) -> None:
    energy, spread = PAIRS[name]
    target = random_target(energy, spread=spread)
    state, pi = start(BlockGibbs(rule), target, beta), exact_pi(target, beta)
    assert isinstance(state.blocks, PairConditionals)
    assert torch.equal(torch.cat(state.blocks.blocks).sort().values, torch.arange(target.space.num_sites))
    for block in state.blocks.blocks:
        for site in block.tolist():
            matrix = site_matrix(target, state, block, site)
            assert (matrix.sum(1) - 1).abs().max() < TOLERANCE
            assert matrix.min() >= 0
            flow = pi[:, None] * matrix
            assert (flow - flow.T).abs().max() < TOLERANCE
        apart = [site_matrix(target, state, block, site) for site in block.tolist()[:2]]
        assert (apart[0] @ apart[-1] - apart[-1] @ apart[0]).abs().max() < TOLERANCE, "sites of a block see each other"


def test_metropolised_draws_stay_less_often_than_gibbs_ones() -> None:
    """Peskun (1973)."""
    target = random_target(PAIRS["potts"][0], spread=0.6)
    states = [start(BlockGibbs(rule), target, 1.0) for rule in ("gibbs", "metropolised")]
    for block in states[0].blocks.blocks:
        site = int(block[0])
        plain, other = (site_matrix(target, state, block, site) for state in states)
        assert (other.diagonal() < plain.diagonal()).all()


@pytest.mark.parametrize("backend", ["eager", "auto"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("space", [Binary(3), Categorical(2, 3)], ids=str)
def test_a_conditional_that_rounds_to_one_is_followed(space: Space, rule: str, backend: str) -> None:
    """Logits of ±50: one sweep leads from every state to the certain one, and the next, also in C, stays there."""
    energy = PottsEnergy(space).double()
    sure = (torch.arange(space.num_sites) + 1) % space.num_categories
    with torch.no_grad():
        energy.field.copy_(100 * space.encode(sure[None], torch.float64).flatten() - 50)
    target = Target(energy)
    x = target.encode(space.all_codes())
    for num_steps in (1, 2):
        generator = torch.Generator().manual_seed(0)
        end = run_chain(BlockGibbs(rule), target, x, num_steps=num_steps, generator=generator, backend=backend)
        assert torch.equal(space.decode(end.x).long(), sure.expand(len(x), -1))


def never_refuses(probability: Tensor, x: Tensor) -> Tensor:
    """A mutant: the proposal among the others, without its correction."""
    moved = (1 - x) * probability
    return moved / moved.sum(2, keepdim=True)


def from_here_alone(probability: Tensor, x: Tensor) -> Tensor:
    """A mutant: accepts with the way there, as if the way back were as likely."""
    moved = (1 - x) * probability
    return moved + x * (1 - moved.sum(2, keepdim=True)) * 0.5 + (1 - x) * probability * 0.5


@pytest.mark.parametrize("mutant", [never_refuses, from_here_alone])
def test_mutants_of_the_rule_are_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "metropolised", mutant)
    with pytest.raises(AssertionError):
        test_every_site_of_every_block_is_drawn_in_detailed_balance("potts", "metropolised", 1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PAIRS)
def test_a_sweep_draws_what_its_probabilities_say(name: str, rule: str) -> None:
    """Block after block, each from where the one before it led."""
    energy, spread = PAIRS[name]
    target = random_target(energy, spread=spread)
    sampler, state = BlockGibbs(rule), start(BlockGibbs(rule), target, 0.8)
    uniform = sampler.draw(state, torch.Generator().manual_seed(0))
    x, blocks = state.x, state.blocks
    for block in blocks.blocks:
        share, drawn = blocks.transition(x, block, state.beta), uniform[:, block]
        landed = target.space.decode(x).long()
        landed[:, block] = (drawn < share).long() if share.ndim == 2 else (share.cumsum(2) <= drawn[..., None]).sum(2)
        x = target.encode(landed)
    after, info = sampler.step(target, state, uniform)
    assert torch.equal(after.x, x)
    assert (info.accept_prob == 1).all()
    assert (after.f - target.f(x)).abs().max() < TOLERANCE


@pytest.mark.skipif(native.library() is None, reason="no C compiler")
@pytest.mark.parametrize("num_chains", [1, 16, 17, 40])
def test_a_chain_is_swept_by_colour_in_company_as_alone(num_chains: int) -> None:
    """Whatever its place in a bundle, with a seed and a beta of its own."""
    energy = IsingTorusEnergy(Binary((5, 7)))
    target = random_target(energy, spread=0.3, dtype=torch.float32).frozen()
    generator, kernel = torch.Generator().manual_seed(0), ColourSweep()
    x = target.encode(target.space.uniform_codes(num_chains, generator=generator))
    beta = torch.rand(num_chains, generator=generator)
    state = kernel.init(target, x, beta)
    assert torch.equal(state.x, x)
    noise = kernel.draw(state, generator)
    state, info = kernel.step(target, state, noise)
    assert torch.equal(info.hops, target.space.hamming(state.x, x))
    for b in range(num_chains):
        alone = kernel.init(target, x[b : b + 1], beta[b : b + 1])
        assert torch.equal(kernel.step(target, alone, noise[b : b + 1])[0].x, state.x[b : b + 1])


GRAPHS = [energy for energy, _ in PAIRS.values() if isinstance(energy, OnAGraph)]


@pytest.mark.parametrize("energy", [*GRAPHS, OnAGraph(Binary((4, 6)), triangular(4, 6))], ids=lambda e: str(e.space))
def test_no_two_sites_that_see_each_other_have_one_colour(energy: OnAGraph) -> None:
    colour, edges = energy.graph.colour, energy.edges
    assert isinstance(edges, Tensor)
    assert (colour[edges[:, 0]] != colour[edges[:, 1]]).all()
    assert int(colour.max()) < int(torch.bincount(edges.flatten()).max()) + 1, "greedy: at most the degree and one"


@pytest.mark.parametrize("energy", GRAPHS, ids=lambda e: str(e.space))
def test_pairs_of_a_graph_are_what_their_energy_says(energy: OnAGraph) -> None:
    """Start, moves and gradient against autograd; and Gibbs-With-Gradients by them, enumerated."""
    energy = copy.deepcopy(energy)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.normal_(0, 0.7, generator=torch.Generator().manual_seed(2))
    check_energy(energy)
    small = OnAGraph(Categorical(3, 3), torch.tensor([[0, 1], [2, 1]]))
    check_detailed_balance(GWG(), random_target(small, spread=0.8).frozen(), beta=0.7)


def test_one_way_of_a_matrix_of_couplings_is_not_the_other() -> None:
    """A mutant: matrices that are not transposed for the second site of a pair."""
    energy = random_target(OnAGraph(Categorical(2, 3), torch.tensor([[1, 0]])), spread=1.0).energy
    assert isinstance(energy, OnAGraph)
    energy.graph.turned.zero_()
    with pytest.raises(CheckError):
        check_energy(energy)


@pytest.mark.parametrize("name", ["triangular", "random graph"])
def test_sweeps_by_colour_of_any_graph_stay_at_the_target(name: str) -> None:
    """As they are run: in C where there is a compiler."""
    energy, spread = PAIRS[name]
    target = random_target(copy.deepcopy(energy), spread=spread, dtype=torch.float32)
    check_invariance(BlockGibbs(), target, num_steps=3, dtype=torch.float32)


# -- hidden units ------------------------------------------------------------------------------------------------------

UNITS, SITES = 4, 5


def rbm(spread: float = 0.7) -> Target:
    return random_target(RBMEnergy(Binary(SITES), num_hidden=UNITS), spread=spread)


def bernoulli(p: Tensor, on: Tensor) -> Tensor:
    """The probability of the units or sites ``on``, each on its own."""
    return torch.where(on > 0.5, p, 1 - p).prod(-1)


def hidden_matrix(target: Target, beta: float) -> Tensor:
    """P(x -> x') over all h: probabilities worked out here, the kernel forced into each, its acceptance read."""
    energy, reference = target.energy, target.reference
    assert isinstance(energy, RBMEnergy)
    assert isinstance(reference, Reference)
    points = Binary(SITES).all_codes().double()
    units = Binary(UNITS).all_codes().double()
    num, num_units = len(points), len(units)
    logit = reference.probs[:, 1].log() - reference.probs[:, 0].log()
    x = points.repeat_interleave(num_units * num, 0)
    h = units.repeat_interleave(num, 0).repeat(num, 1)
    y = points.repeat(num * num_units, 1)
    with torch.no_grad():
        p_h = torch.sigmoid(beta * (x @ energy.weight.T + energy.hidden_bias))
        p_y = torch.sigmoid(beta * (h @ energy.weight + energy.visible_bias) + logit)
    forced = torch.cat([torch.where(h > 0.5, p_h / 2, (1 + p_h) / 2), torch.where(y > 0.5, p_y / 2, (1 + p_y) / 2)], 1)
    ends = []
    for accept in (0.0, 1 - 1e-16):
        sampler, b = BlockGibbs(), torch.tensor(beta, dtype=torch.float64)
        uniform = torch.cat([forced, torch.full((len(x), 1), accept, dtype=torch.float64)], 1)
        with torch.no_grad():
            ends.append(sampler.step(target, sampler.init(target, x, b), uniform))
    (made, info), (kept, again) = ends
    assert torch.equal(made.x, y)
    assert torch.equal(info.accept_prob, again.accept_prob)
    assert torch.equal(kept.x, torch.where(again.accept_prob[:, None] < 1, x, y))
    for state in (made, kept):
        assert (state.carried[0] - state.blocks.start(state.x)[0]).abs().max() < TOLERANCE, "stale"
        assert (state.f - target.f(state.x)).abs().max() < TOLERANCE
    matrix = torch.zeros(num, num, dtype=torch.float64)
    source, end = number_of(target, x), number_of(target, y)
    matrix.index_put_((source, end), bernoulli(p_h, h) * bernoulli(p_y, y) * info.accept_prob, accumulate=True)
    return matrix + torch.diag(1 - matrix.sum(1))


@pytest.mark.parametrize("beta", BETAS)
def test_hidden_units_are_drawn_in_detailed_balance(beta: float) -> None:
    target = rbm()
    assert_exact(hidden_matrix(target, beta), exact_pi(target, beta))


MUTANTS = {
    "no correction": ("accept_probability(log_ratio)", "accept_probability(0 * log_ratio)"),
    "correction upside down": ("accept_probability(log_ratio)", "accept_probability(-log_ratio)"),
    "what is carried is stale": ("return Swept(y, (a_new,), accept_prob)", "return Swept(y, (a,), accept_prob)"),
}


@pytest.mark.parametrize("mutation", MUTANTS)
def test_mutants_of_the_sweep_are_caught(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = MUTANTS[mutation]
    source = textwrap.dedent(inspect.getsource(HiddenConditionals.sweep))
    assert source.count(old) == 1, f"the mutation no longer applies: {old!r}"
    namespace: dict = dict(vars(conditionals))
    exec(compile("from __future__ import annotations\n" + source.replace(old, new), "mutant", "exec"), namespace)
    monkeypatch.setattr(HiddenConditionals, "sweep", namespace["sweep"])
    target = rbm()
    with pytest.raises(AssertionError):
        assert_exact(hidden_matrix(target, 0.6), exact_pi(target, 0.6))


def test_at_beta_one_no_sweep_is_refused() -> None:
    target = random_target(RBMEnergy(Binary(40), num_hidden=60), spread=0.5, dtype=torch.float32)
    x = target.encode(target.space.uniform_codes(50, generator=torch.Generator().manual_seed(0)))
    chain = run_chain(BlockGibbs(), target, x, num_steps=10, generator=torch.Generator().manual_seed(1))
    assert (chain.accept_prob == 1).all()


def test_annealing_by_sweeps_of_hidden_units_finds_log_z() -> None:
    """On the path of every other kernel, with the usual weights."""
    target = rbm(1.0)
    codes = target.space.all_codes()
    x = target.encode(codes)
    exact = float(torch.logsumexp(target.log_prob(x, target.f(x)), 0))
    generator = torch.Generator().manual_seed(0)
    found = ais(target, BlockGibbs(), generator=generator, num_chains=4000, num_temperatures=30)
    assert abs(found.log_z - exact) < 5 * found.stderr
    assert found.stderr < 0.01


# -- both --------------------------------------------------------------------------------------------------------------


def test_both_rules_pass_the_checks_of_users() -> None:
    for rule in RULES:
        check_kernel(BlockGibbs(rule), betas=(1.0,))
    check_invariance(BlockGibbs(), rbm(), beta=0.5, num_steps=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockGibbs(rule="heat"), "rule must be one of gibbs, metropolised, got 'heat'"),
        (lambda: refuse(BlockGibbs("metropolised"), RBMEnergy(Binary(4))), "needs .* pairs of sites; RBMEnergy takes"),
        (lambda: refuse(BlockGibbs("metropolised"), MLPEnergy(Binary(4))), "needs an energy of pairs .* got MLPEnergy"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def refuse(sampler: BlockGibbs, energy: Energy) -> None:
    run_chain(sampler, Target(energy), torch.zeros(2, 4), num_steps=1, generator=torch.Generator())
