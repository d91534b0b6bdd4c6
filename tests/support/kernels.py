"""What a kernel must satisfy, worked out independently of the package and by enumeration.

Proposal probabilities are recomputed here from the paper's equations with loops over sites and categories; the kernel
is then run from every state with its noise forced into every move, and its acceptance probability read off.
"""

import inspect
import itertools
import textwrap
from typing import TypeVar, cast

import torch
from torch import Tensor

from gwg_dist.energies import IsingEnergy, MLPEnergy, RBMEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Metropolis, Target, metropolis
from gwg_dist.samplers.gwg import GWGNoise
from gwg_dist.spaces import Binary, Categorical, Space

TOLERANCE = 1e-12
T = TypeVar("T", bound=Metropolis)


def make_target(space: Space, kind: str = "mlp", *, seed: int = 0, strength: float = 1.0) -> Target:
    """A random model in float64 with a random reference."""
    torch.manual_seed(seed)
    if kind == "mlp":
        energy = MLPEnergy(space, num_hidden=8)
        spread = 1.0
    elif kind == "rbm":
        energy, spread = RBMEnergy(space, num_hidden=5), 0.7
    else:
        energy, spread = IsingEnergy(space), 0.4
    energy = energy.double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.normal_(0, spread * strength)
    reference = Reference(space, smoothing=0.1).double()
    reference.fit(space.without_padding(torch.rand(space.num_sites, space.num_categories)).softmax(1))
    return Target(energy, reference)


def exact_pi(target: Target, beta: float) -> Tensor:
    """p_beta over all states, from energies and site probabilities alone."""
    space = target.space
    codes = space.all_codes().long()
    reference = target.reference
    assert isinstance(reference, Reference)
    log_ref = torch.stack([reference.probs[i, codes[:, i]].log() for i in range(space.num_sites)]).sum(0)
    with torch.no_grad():
        dtype = reference.weights.dtype
        energy = target.energy(space.encode(codes, dtype)).double()
    return torch.softmax(log_ref - beta * energy, 0)


def neighbours(space: Space) -> list[list[tuple[int, int]]]:
    """For every state, in the order of moves: (number of the move, number of the state it leads to)."""
    states = [tuple(row) for row in space.all_codes().long().tolist()]
    index = {state: number for number, state in enumerate(states)}
    result = []
    for state in states:
        moves = []
        for site, category in itertools.product(range(space.num_sites), range(space.num_categories)):
            if category != state[site] and category < space.sizes[site]:
                move = site if isinstance(space, Binary) else site * space.num_categories + category
                moves.append((move, index[(*state[:site], category, *state[site + 1 :])]))
        result.append(sorted(moves))
    return result


def paper_proposal(target: Target, beta: float, temperature: float) -> Tensor:
    """q(move | state), ``(num_states, num_moves)``, from equations 3 to 5 of the paper, one entry at a time."""
    space = target.space
    codes = space.all_codes().long()
    x = space.encode(codes, torch.float64).requires_grad_()
    reference = target.reference
    assert isinstance(reference, Reference)
    (grad,) = torch.autograd.grad((-beta * target.energy(x)).sum(), x)
    log_site = reference.probs.log()
    num_moves = space.num_sites if isinstance(space, Binary) else space.num_sites * space.num_categories
    logits = torch.full((len(codes), num_moves), -torch.inf, dtype=torch.float64)
    for s in range(len(codes)):
        for i in range(space.num_sites):
            old = int(codes[s, i])
            for k in range(space.num_categories):
                if k == old or k >= space.sizes[i]:
                    continue
                if isinstance(space, Binary):
                    slope = grad[s, i] + log_site[i, 1] - log_site[i, 0]
                    logits[s, i] = -(2 * old - 1) * slope
                else:
                    logits[s, i * space.num_categories + k] = (grad[s, i, k] + log_site[i, k]) - (
                        grad[s, i, old] + log_site[i, old]
                    )
    return torch.softmax(logits / temperature, 1)


def gwg_transition_matrix(sampler: GWG, target: Target, beta: float) -> Tensor:
    """P, ``(num_states, num_states)``: the paper's proposal times the kernel's acceptance, every move forced once.

    Fails at once where the kernel does not make the move that its noise stands for, does not land where the move leads,
    or hands on a state whose cached evaluation is not that of its x.
    """
    space = target.space
    q = paper_proposal(target, beta, sampler.temperature)
    moves = neighbours(space)
    rows = [(s, move, s_new) for s, found in enumerate(moves) for move, s_new in found]
    source = torch.tensor([row[0] for row in rows])
    move = torch.tensor([row[1] for row in rows])
    destination = torch.tensor([row[2] for row in rows])

    upper = q.cumsum(1)
    middle = upper[source, move] - q[source, move] / 2
    codes = space.all_codes()
    x = space.encode(codes[source], torch.float64)
    beta_tensor = torch.tensor(beta, dtype=torch.float64)
    state = sampler.init(target, x, beta_tensor)

    accepted, info = sampler.step(target, state, GWGNoise(middle, torch.zeros_like(middle)))
    assert (info.accept_prob > 0).all(), "a proposal that can never be accepted"
    assert torch.equal(space.decode(accepted.x), codes[destination]), "the move did not lead where it should"
    assert (info.hops == 1).all()
    certain = torch.full_like(middle, 1 - 1e-16)
    rejected, info_again = sampler.step(target, state, GWGNoise(middle, certain))
    assert torch.equal(info.accept_prob, info_again.accept_prob)
    for after in (accepted, rejected):
        fresh = target.evaluate(after.x)
        assert (after.evaluation.f - fresh.f).abs().max() < TOLERANCE, "stale value"
        assert (after.evaluation.grad - fresh.grad).abs().max() < TOLERANCE, "stale gradient"
        proposal = sampler.proposal(target, after.x, fresh, beta_tensor)
        assert (after.proposal.weights - proposal.weights).abs().max() < TOLERANCE, "stale proposal"
        assert (after.proposal.log_norm - proposal.log_norm).abs().max() < TOLERANCE, "stale normaliser"

    matrix = torch.zeros(len(codes), len(codes), dtype=torch.float64)
    matrix[source, destination] = q[source, move] * info.accept_prob
    matrix.diagonal().copy_(1 - matrix.sum(1))
    return matrix


def assert_exact(matrix: Tensor, pi: Tensor) -> None:
    """Rows are distributions, detailed balance to 1e-12, and every state is reached."""
    assert matrix.min() > -TOLERANCE
    flow = pi[:, None] * matrix
    assert (flow - flow.T).abs().max() < TOLERANCE, "detailed balance"
    reached = torch.linalg.matrix_power((matrix > 0).double() + torch.eye(len(pi), dtype=torch.float64), len(pi))
    assert (reached > 0).all(), "some state is never reached"


SPACES: dict[str, Space] = {"binary": Binary(5), "categorical": Categorical(3, 4), "ragged": Categorical(3, (2, 3, 4))}


# -- power: a kernel with a known mistake must fail the same test ------------------------------------------------------

MUTANTS = {
    "reverse proposal dropped": ("+ log_q_back - log_q", "- log_q"),
    "forward proposal dropped": ("+ log_q_back - log_q", "+ log_q_back"),
    "stale gradient kept after acceptance": (
        "there[:3]", "(there.x, there.evaluation._replace(grad=state.evaluation.grad), there.proposal)"
    ),
    "stale value kept after acceptance": (
        "there[:3]", "(there.x, there.evaluation._replace(f=state.f), there.proposal)"
    ),
    "stale proposal kept after acceptance": ("there[:3]", "(there.x, there.evaluation, state.proposal)"),
    "ratio upside down": ("log_ratio = self._log", "log_ratio = -self._log"),
    "way back by the proposal from here": (
        "self.log_prob(target, there, move.reversed())",
        "self.log_prob(target, there._replace(proposal=state.proposal), move.reversed())",
    ),
}  # fmt: skip


def mutant_of(cls: type[T], old: str, new: str) -> type[T]:
    """The kernel with one piece of the source of the Metropolis step replaced."""
    source = textwrap.dedent(inspect.getsource(Metropolis.decide))
    assert source.count(old) == 1, f"the mutation no longer applies: {old!r}"
    namespace: dict = dict(vars(metropolis))
    exec(compile("from __future__ import annotations\n" + source.replace(old, new), "mutant", "exec"), namespace)
    return cast(type[T], type(f"Mutant{cls.__name__}", (cls,), {"decide": namespace["decide"]}))
