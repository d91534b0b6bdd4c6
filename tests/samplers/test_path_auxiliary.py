"""Paths: their probability by hand, and the mistakes that a path invites, each caught by the enumeration."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, IsingEnergy, PottsEnergy, RBMEnergy
from gwg_dist.samplers import GWG, PAS, Move, Sampler, State, Target, run_chain
from gwg_dist.samplers.path_auxiliary import PathProposal, log_prob_ordered
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.target import StructuredTarget
from gwg_dist.testing import CheckError, check_detailed_balance, kernels
from gwg_dist.testing.models import random_target
from tests.support.kernels import make_target, mutant_of, paper_proposal

BACK = "self.log_prob(target, there, move.reversed())"
SMALL = pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3)], ids=["binary", "categorical"])


def by_hand(log_weights: Tensor, path: list[int]) -> float:
    """log q of one path, a product of fractions."""
    left, product = dict(enumerate(log_weights.double().exp().tolist())), 1.0
    for site in path:
        product *= left[site] / sum(left.values())
        del left[site]
    return math.log(product)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_probability_of_a_path_is_a_product_of_fractions(dtype: torch.dtype) -> None:
    log_weights = 2 * torch.randn(1, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for length in range(1, 6):
        for path in itertools.permutations(range(5), length):
            for padded in ([*path, *[-1] * (5 - length)], [*[-1] * (5 - length), *path]):
                found = log_prob_ordered(log_weights, torch.tensor([padded]))
                assert found.dtype == torch.float64
                assert abs(float(found) - by_hand(log_weights[0], list(path))) < (
                    1e-5 if dtype == torch.float32 else 1e-12
                )


def test_a_weight_beyond_all_others_hides_none_of_them() -> None:
    """After the heavy site is drawn the others share the whole probability, whatever their ratio to it."""
    log_weights = torch.tensor([[200.0, -100.0, -100.0]])
    assert abs(float(log_prob_ordered(log_weights, torch.tensor([[0, 1]]))) - math.log(0.5)) < 1e-6


def test_a_path_through_every_site() -> None:
    """Nothing is left over, and the last draw is certain."""
    whole = log_prob_ordered(torch.tensor([[0.3, 1.0]]), torch.tensor([[0, 1]]))
    assert abs(float(whole) - (0.3 - math.log(math.exp(0.3) + math.e))) < 1e-6


class FixedEvenLength(PAS):
    def propose(self, target, state, noise):
        return super().propose(target, state, noise._replace(length=torch.full_like(noise.length, 1 - 1e-16)))

    def log_prob(self, target, state, move):
        return super().log_prob(target, state, move) + math.log(self.max_length)


class KeptSitesForgotten(PAS):
    """The normaliser of a draw has the drawn sites alone."""

    def log_prob(self, target, state, move):
        path = move.sites_in_order
        log_drawn = state.proposal.sites.gather(1, path.clamp(min=0)).masked_fill(path < 0, -torch.inf)
        log_norm = log_drawn.flip(1).logcumsumexp(1).flip(1)
        log_values = target.space.log_prob_changes(move.x, state.proposal.moves, move.x_new)
        return torch.where(path < 0, 0.0, log_drawn - log_norm).sum(1) + log_values - math.log(self.max_length)


class NewCategories(PAS):
    """The way back draws the new categories once more, by the gradient there."""

    def log_prob_back(self, target, there, move):
        moves = self.log_weights(target, move.x, there.evaluation, there.beta)
        proposal = PathProposal(moves, target.space.site_log_weights(moves))
        return self.log_prob(
            target, there._replace(proposal=proposal), Move(move.x, move.x_new, path=move.path.flip(1))
        )


@SMALL
@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_the_probability_of_a_move_from_the_gradients_of_the_paper(space: Space, temperature: float) -> None:
    """Sites by the sums of their moves' weights, categories by their share of it, one fraction after the other."""
    target, sampler = make_target(space), PAS(temperature=temperature, max_length=3)
    codes = space.all_codes()
    shares = paper_proposal(target, 0.7, temperature).unflatten(1, (space.num_sites, -1))
    state = sampler.init(target, target.encode(codes), torch.tensor(0.7, dtype=torch.float64))
    move = sampler.propose(target, state, sampler.draw(state, torch.Generator().manual_seed(0)))
    found, new = sampler.log_prob(target, state, move), space.decode(move.x_new).long()
    lengths = set()
    for n in range(len(codes)):
        path = [site for site in move.sites_in_order[n].tolist() if site >= 0]
        log_q = by_hand(shares[n].sum(1).log(), path) - math.log(3)
        if isinstance(space, Categorical):
            log_q += sum(math.log(shares[n, site, new[n, site]] / shares[n, site].sum()) for site in path)
        assert abs(float(found[n]) - log_q) < 1e-12
        assert (codes[n] != new[n]).nonzero()[:, 0].tolist() == sorted(path)
        lengths.add(len(path))
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize("energy", [RBMEnergy(Binary(4), num_hidden=3), PottsEnergy(Categorical(3, 3))], ids=repr)
def test_paths_on_the_structure_of_an_energy(energy: Energy) -> None:
    target = random_target(energy, spread=0.4).frozen()
    assert isinstance(target, StructuredTarget)
    for beta in (0.0, 1.0):
        check_detailed_balance(PAS(max_length=3, balancing="barker"), target, beta=beta)


@SMALL
def test_the_kernel_itself_passes_what_its_mutants_fail(space: Space) -> None:
    for max_length in (1, 2, 3):
        check_detailed_balance(PAS(max_length=max_length), make_target(space, strength=0.5))


def test_a_length_that_is_always_even_never_leaves_half_of_the_space() -> None:
    with pytest.raises(CheckError, match="some states are never reached"):
        check_detailed_balance(FixedEvenLength(max_length=2), make_target(Binary(4)))


@SMALL
def test_a_normaliser_without_the_kept_sites(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MAX_ROUNDS", 8)
    with pytest.raises(CheckError, match="it must be 1"):
        check_detailed_balance(KeptSitesForgotten(max_length=3), make_target(space, strength=0.5))


@SMALL
@pytest.mark.parametrize(
    ("cls", "back"),
    [
        (PAS, f"{BACK[:-1]}._replace(path=move.path.sort(1).values))"),
        (NewCategories, "self.log_prob_back(target, there, move)"),
    ],
    ids=["order forgotten on the way back", "old category replaced by the new"],
)
def test_a_wrong_way_back(cls: type[PAS], back: str, space: Space) -> None:
    with pytest.raises(CheckError, match="detailed balance"):
        check_detailed_balance(mutant_of(cls, BACK, back)(max_length=3), make_target(space, strength=0.5))


@SMALL
def test_the_probability_of_another_order_than_the_drawn_one(space: Space) -> None:
    class Backwards(PAS):
        def log_prob(self, target, state, move):
            return super().log_prob(target, state, move._replace(path=move.sites_in_order.flip(1)))

    with pytest.raises(CheckError, match="propose does not draw moves as often"):
        check_detailed_balance(Backwards(max_length=3), make_target(space, strength=0.5))


@SMALL
def test_the_same_order_back_would_be_exact_too(space: Space) -> None:
    """Reversing the path and keeping it both undo themselves, which is all that the correction needs."""
    same_order = mutant_of(PAS, BACK, f"{BACK[:-1]}._replace(path=move.path))")
    check_detailed_balance(same_order(max_length=3), make_target(space, strength=0.5))


@pytest.mark.parametrize("backend", ["eager", "plain"])
def test_a_path_of_every_length_is_walked(backend: str) -> None:
    """On a flat model every proposal is accepted, so that a step changes as many sites as its path has."""
    target = make_target(Binary(8), strength=0.0)
    target.reference = None
    x = target.encode(torch.zeros(3000, 8, dtype=torch.uint8))
    generator = torch.Generator().manual_seed(0)
    end = run_chain(PAS(max_length=5), target, x, num_steps=1, generator=generator, backend=backend)
    assert torch.equal(end.accept_prob, torch.ones_like(end.accept_prob))
    share = torch.bincount(end.hops.long(), minlength=6) / 3000
    assert share[0] == 0
    assert ((share[1:] - 0.2).abs() < 0.04).all()


def test_settings_outside_their_range() -> None:
    with pytest.raises(ValueError, match="max_length must be positive, got 0"):
        PAS(max_length=0)
    target = make_target(Binary(3))
    x = target.encode(target.space.all_codes())
    with pytest.raises(ValueError, match="max_length must be at most the 3 sites, got 4"):
        run_chain(PAS(), target, x, num_steps=1, generator=torch.Generator())


# -- blocked basins: cliques of spins that hold each other, with a barrier of 24 nats for a single flip ----------------

SIZE = 4


def cliques(num: int) -> Target:
    """log p = 1.5 ∑_cliques s^T J s with J = 1 between the four spins of a clique."""
    energy = IsingEnergy(Binary(num * SIZE))
    clique = torch.arange(num * SIZE) // SIZE
    with torch.no_grad():
        energy.pairs.copy_((clique[:, None] == clique).float() * 1.5)
    return Target(energy)


def crossings_and_flips(sampler: Sampler, target: Target, x: Tensor, num_steps: int) -> tuple[float, float]:
    """How often a clique changes to the other sign than it last had, and how often a site changes, over all chains."""
    last, crossings = sides(x), torch.zeros(())

    def look(_: int, state: State) -> None:
        nonlocal last, crossings
        now = sides(state.x)
        crossings = crossings + (now * last < 0).sum()
        last = torch.where(now != 0, now, last)

    generator = torch.Generator().manual_seed(0)
    end = run_chain(sampler, target, x, num_steps=num_steps, generator=generator, before_step=look, backend="eager")
    look(num_steps, end.state)
    return float(crossings), float(end.hops.sum()) * num_steps


def sides(x: Tensor) -> Tensor:
    """The sign of every clique, ``(B, num)``; 0 for two against two."""
    return (2 * x - 1).unflatten(1, (-1, SIZE)).sum(2).sign()


def test_paths_cross_between_basins_that_single_flips_cannot_leave() -> None:
    """Fifty times as often a flip, and more. Single flips are started outside of a basin; inside, none is accepted."""
    target = cliques(4)
    aligned = target.encode(torch.zeros(300, 4 * SIZE, dtype=torch.uint8))
    crossed, flips = crossings_and_flips(PAS(max_length=4), target, aligned, 400)
    assert crossed > 30
    excited = aligned.repeat(100, 1).index_fill(1, torch.tensor([0]), 1.0)
    one_crossed, one_flips = crossings_and_flips(GWG(), target, excited, 20)
    assert one_flips > 20_000
    upper_bound = (one_crossed + 2 * one_crossed**0.5 + 4) / one_flips
    assert crossed / flips > 50 * upper_bound
    assert crossings_and_flips(GWG(), target, aligned, 400)[0] == 0
