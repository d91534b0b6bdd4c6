"""A log Z from both sides and the verdict on it: right where it is right, and never "agreed" where it is wrong.

The models that fool forward AIS have an exact log Z, and the estimate alone would be quoted with an error of nothing.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import IsingEnergy, RBMEnergy
from gwg_dist.evaluation import (
    AISSettings,
    Sides,
    assess,
    exact_log_prob,
    exact_log_z,
    hidden_log_z,
    judge,
    settled,
)  # fmt: skip
from gwg_dist.evaluation.sides import DELTA, crooks_distance, mass_of, places
from gwg_dist.evaluation.verdict import AGREED, EXACT, GAP, UNQUOTABLE
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary, Categorical
from tests.support.kernels import make_target

SETTINGS = AISSettings(200, 200)


class Case(NamedTuple):
    """A model, points of it, and its log Z."""

    target: Target
    starts: Tensor
    exact: float


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_samples(target: Target, num: int, seed: int = 0) -> Tensor:
    prob = exact_log_prob(target)[0].exp()
    return target.space.all_codes()[torch.multinomial(prob, num, replacement=True, generator=generator_of(seed))]


def sides(case: Case, settings: AISSettings = SETTINGS, *, seed: int = 0, exact_samples: bool = False) -> Sides:
    found = assess(
        case.target, GWG(), {}, settings, generator=generator_of(seed), starts=case.starts,
        exact_samples=exact_samples,
    ).sides  # fmt: skip
    assert found is not None
    return found


def spurious(excess: float) -> Case:
    """A hidden unit that turns on at one point of 2^30, with e^excess times the mass of all the others.

    Annealing cannot find it: it has no slope and, until beta is near 1, no mass.
    """
    num_sites = 30
    energy = RBMEnergy(Binary(num_sites), num_hidden=2).double()
    with torch.no_grad():
        energy.weight.fill_(0)
        energy.weight[1] = 40.0
        energy.hidden_bias[1] = num_sites * math.log(2) + math.log(2) + excess - 40.0 * num_sites
        energy.hidden_bias[0] = 0.0
    target = Target(energy, Reference(Binary(num_sites)).double())
    ones = torch.rand(200, 1, generator=generator_of(1)) < math.exp(excess) / (1 + math.exp(excess))
    return Case(
        target, target.space.uniform_codes(200, generator=generator_of(2)) | ones.to(torch.uint8), hidden_log_z(target)
    )


def ferromagnet(tilt: float = 0.0, *, num_sites: int = 12, up: float = 0.95) -> Case:
    """Spins that want to be alike, with a reference that sits in one phase; ``tilt`` nats a site for the other one."""
    space = Binary(num_sites)
    energy, reference = IsingEnergy(space).double(), Reference(space, smoothing=1e-6).double()
    reference.fit(torch.tensor([[1 - up, up]], dtype=torch.float64).expand(num_sites, 2))
    with torch.no_grad():
        energy.pairs.fill_(0.25)
        energy.bias.fill_(-(math.log(up / (1 - up)) + tilt) / 2)
    target = Target(energy, reference)
    return Case(target, exact_samples(target, 200), exact_log_z(target))


WRONG = {"spurious mode": spurious(11.29), "smaller spurious mode": spurious(1.3), "one phase": ferromagnet(),
         "the smaller phase": ferromagnet(0.35)}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_confident_and_wrong_is_never_agreed(name: str) -> None:
    """Forward AIS states an error of nothing, its weights have not collapsed, and it is wrong."""
    case = WRONG[name]
    found = sides(case)
    assert case.exact - found.forward.log_z > 0.6
    assert found.forward.stderr < 0.05
    assert not found.forward.collapsed
    standing = judge(found)
    assert standing.kind in (GAP, UNQUOTABLE), standing.sentence()
    assert standing.reasons
    if name == "the smaller phase":
        assert case.exact - found.forward.log_z > 3


@pytest.mark.parametrize("name", ["spurious mode", "smaller spurious mode"])
def test_mass_that_was_seen_counts(name: str) -> None:
    """What log Z is at least does not pass the exact one, and no estimate lies below the mass of the points seen."""
    case = WRONG[name]
    found = sides(case)
    assert found.forward.log_z + 0.2 < found.floor <= case.exact + 1e-9
    assert found.low_log_z == found.floor
    assert found.bracket[1] >= found.log_z == max(found.both.log_z, found.floor)
    assert found.stderr == math.inf
    assert found.spread >= found.floor - found.forward.log_z
    assert judge(found).reasons[0].startswith(f"log Z is at least {found.floor:.2f}")


def test_mass_within_the_error_of_forward_annealing_counts_too() -> None:
    """Mass that is .54 nats above all ways, less than three errors of the forward one: no agreement, none below it."""
    found = sides(two_modes())
    floor = max(route.log_z for route in found.routes) + 0.54
    close = replace(found, floor=floor, forward=found.forward._replace(stderr=0.3))
    assert close.excess == 0
    assert close.log_z == close.low_log_z == close.bracket[1] == floor
    assert close.stderr >= 0.54
    assert close.spread >= 0.54
    assert judge(close).kind in (GAP, UNQUOTABLE)


def two_modes() -> Case:
    """Eight spins that want to be alike, more of them up; all points in the smaller mode, forward AIS in both."""
    space = Binary(8)
    energy = IsingEnergy(space).double()
    with torch.no_grad():
        energy.pairs.fill_(0.25)
        energy.bias.fill_(0.15)
    target = Target(energy, Reference(space).double())
    prob, codes = exact_log_prob(target)[0].exp(), space.all_codes()
    few = prob * (codes.sum(1) < 4)
    stuck = codes[torch.multinomial(few, 200, replacement=True, generator=generator_of(0))]
    return Case(target, stuck, exact_log_z(target))


def test_all_chains_in_one_mode_is_not_agreed() -> None:
    """The reverse estimate is Z p / r of that mode, below Z, with a small error: it bounds nothing."""
    case = two_modes()
    found = sides(case)
    assert abs(found.forward.log_z - case.exact) < 0.1
    assert found.reverse.log_z < case.exact - 0.5
    assert found.reverse.stderr < 0.1
    assert judge(found).kind in (GAP, UNQUOTABLE)


def test_a_mode_that_hides_by_coincidence_is_not_agreed() -> None:
    """Both modes as heavy: the reverse estimate is right, but the chains stand for one of them alone."""
    case = ferromagnet(up=0.5)
    half = case.starts[case.starts.sum(1) < 6]
    found = sides(case._replace(starts=half), AISSettings(200, 400))
    assert found.spread < 0.4
    assert abs(found.log_z - case.exact) < 0.2
    assert found.crooks < 1
    assert judge(found).kind == UNQUOTABLE


SOUND = [(Binary(8), kind, seed) for kind in ("rbm", "ising", "mlp") for seed in range(4)]
SOUND += [(Categorical(4, 3), "mlp", seed) for seed in range(2)] + [(Categorical(3, (2, 3, 4)), "rbm", 0)]


@pytest.fixture(scope="module")
def sound() -> list[tuple[Sides, float]]:
    cases = []
    for space, kind, seed in SOUND:
        target = make_target(space, kind, seed=seed, strength=0.8)
        cases.append(Case(target, exact_samples(target, 200, seed), exact_log_z(target)))
    return [(sides(case, AISSettings(200, 60), seed=n, exact_samples=True), case.exact) for n, case in enumerate(cases)]


def test_sound_estimates_are_agreed_and_right(sound: list[tuple[Sides, float]]) -> None:
    """From exact samples a check fails once in 1,000 times by chance: none of four times 15 does."""
    for found, exact in sound:
        standing = judge(found)
        assert (standing.kind, standing.reasons) == (AGREED, ()), standing.sentence()
        assert abs(found.log_z - exact) < 4 * max(found.both.stderr, 1e-3)
        assert abs(found.log_z - exact) < 2 * standing.nats + 1e-9
        assert found.floor <= exact + 1e-9
        assert found.low_log_z <= exact + 1e-9


def test_a_mutant_of_the_sign_breaks_the_theorem(sound: list[tuple[Sides, float]]) -> None:
    """The check of the works sees a reverse weight of the wrong sign in every model that has works at all."""
    for found, _ in sound:
        spread = float(found.forward.log_weights.std())
        if spread > 0.1:
            assert crooks_distance(found.forward.log_weights, -found.reverse.log_weights) > 1


def test_the_ceiling_is_passed_as_seldom_as_it_says() -> None:
    """Two temperatures and three chains: rough, and still low enough at least 95 times in 100."""
    target = make_target(Binary(8), "rbm", seed=3, strength=2.0)
    exact, starts = exact_log_z(target), exact_samples(target, 3)
    passed = [sides(Case(target, starts, exact), AISSettings(3, 2), seed=seed).low_log_z > exact for seed in range(40)]
    assert sum(passed) <= 40 * DELTA


def test_points_that_stay_and_points_that_drift() -> None:
    """Exact samples stay where they are; points from the reference move towards the model."""
    target = make_target(Binary(10), "rbm", seed=1, strength=2.0)
    there = settled(target, GWG(), exact_samples(target, 300), num_steps=60, generator=generator_of(1))
    assert there is not None
    assert there.codes.shape == (300, 10)
    assert abs(there.drift) < 3.5
    assert target.reference is not None
    far = target.reference.sample(300, generator=generator_of(2))
    moving = settled(target, GWG(), far, num_steps=2, generator=generator_of(1))
    assert moving is not None
    assert abs(moving.drift) > 3.5
    case = Case(target, exact_samples(target, 200), exact_log_z(target))
    drifting = sides(case)
    assert judge(drifting).kind == AGREED
    moved = judge(Sides(**{**vars(drifting), "drift": 5.0}))
    assert moved.kind == GAP
    assert "their mean energy moved by 5.0 standard errors" in moved.sentence()
    assert judge(Sides(**{**vars(drifting), "drift": 5.0, "exact_samples": True})).kind == AGREED
    assert judge(Sides(**{**vars(drifting), "exact": case.exact})).kind == EXACT
    assert settled(target, GWG(), case.starts, num_steps=9, generator=generator_of(1), stop=lambda: True) is None


def test_places_and_mass_by_hand() -> None:
    space = Binary(4)
    ends = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], dtype=torch.uint8)
    points = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.uint8)
    assert places(points, ends, space) == (2, 3)  # two sites away, and no end is more than one from another
    target = make_target(space)
    assert mass_of(target, space.all_codes().repeat(2, 1)) == pytest.approx(exact_log_z(target))


def test_as_many_points_count_as_were_compared(sound: list[tuple[Sides, float]]) -> None:
    """Of 1,000 that were compared with 1,000 ends, 12 elsewhere have a chance of 2^-12, however many more there are."""
    found = sound[0][0]
    many = found.reverse._replace(log_weights=torch.zeros(3000, dtype=torch.float64))
    places_of = {"reverse": many, "num_ends": 1000}
    assert Sides(**{**vars(found), **places_of, "num_elsewhere": 12}).are_elsewhere
    assert not Sides(**{**vars(found), **places_of, "num_elsewhere": 9}).are_elsewhere


def test_starts_of_another_space_are_refused() -> None:
    target = make_target(Binary(4))
    with pytest.raises(ValueError, match="codes must have shape"):
        assess(target, GWG(), {}, AISSettings(4, 4), generator=generator_of(0), starts=torch.zeros(4, 5).byte())
