"""Every kernel of the package is exact, and mistakes are caught with their reason, by the checks that users call."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gwg_dist.samplers import (
    DMALA,
    GWG,
    Gibbs,
    Metropolis,
    MetropolisState,
    Move,
    RandomWalk,
    Sampler,
    Target,
)
from gwg_dist.samplers.balancing import BALANCING
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing import CheckError, check_detailed_balance, check_invariance, check_kernel, small_targets
from gwg_dist.testing.kernels import number_of
from tests.support.kernels import MUTANTS, make_target, mutant_of
from tests.test_contracts import walk

OF_THE_PROPOSAL = (
    "stale gradient kept after acceptance", "stale proposal kept after acceptance", "way back by the proposal from here"
)  # fmt: skip
SHORT = {"block": 2, "max_draws": 2, "max_length": 2, "step_size": 0.5, "cycle": 3}  # settings of a short check


def variants(base: type) -> list[Sampler]:
    """Every exact kernel with its defaults, with every balancing function and the next larger value of its counts."""
    found = []
    for cls in [cls for cls in walk(base) if cls.exact]:
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        short = {name: value for name, value in SHORT.items() if name in fields}
        found.append(cls(**short))
        found += [cls(balancing=name, **short) for name in list(BALANCING)[1:] if "balancing" in fields]
        counts = [name for name, value in fields.items() if type(value) is int and name != "block"]
        found += [cls(**{name: 3}) for name in counts]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sampler", variants(Sampler), ids=str)
def test_every_kernel_leaves_its_target_invariant(sampler: Sampler) -> None:
    check_kernel(sampler)


@pytest.mark.parametrize("cls", walk(Metropolis), ids=lambda c: c.__name__)
@pytest.mark.parametrize("mutation", MUTANTS)
def test_mutants_of_the_step_are_caught_in_every_kernel(mutation: str, cls: type[Metropolis]) -> None:
    sampler = mutant_of(cls, *MUTANTS[mutation])()
    if not informed(sampler) and mutation in OF_THE_PROPOSAL:
        pytest.skip("by design: it proposes blindly, there is nothing to be stale")
    with pytest.raises(CheckError):
        check_detailed_balance(sampler, next(small_targets(sampler))[1])


def informed(sampler: Metropolis) -> bool:
    """Whether its proposal depends on x."""
    _, target = next(small_targets(sampler))
    x = target.encode(target.space.all_codes())
    return bool(sampler.init(target, x, torch.ones((), dtype=torch.float64)).proposal)


@pytest.mark.parametrize("cls", walk(Metropolis), ids=lambda c: c.__name__)
def test_a_step_costs_one_evaluation(cls: type[Metropolis]) -> None:
    """At the proposal; the state keeps that of x."""
    calls = []

    class Counting(Target):
        def evaluate(self, x: Tensor) -> Any:
            calls.append("gradient")
            return super().evaluate(x)

        def f(self, x: Tensor) -> Tensor:
            calls.append("value")
            return super().f(x)

    model = make_target(Binary(5))
    target, sampler = Counting(model.energy, model.reference), cls()
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(target, target.encode(target.space.all_codes()), torch.ones((), dtype=torch.float64))
    calls.clear()
    for _ in range(3):
        state, _ = sampler.step(target, state, sampler.draw(state, generator))
        state = sampler.temper(target, state, torch.tensor(0.5, dtype=torch.float64))
    assert len(calls) == 3


# -- sites of different sizes ------------------------------------------------------------------------------------------


class WithoutMask(Categorical):
    """A mutant: the padding is proposed and drawn."""

    def without_padding(self, values, fill=-torch.inf, *, sites=None):
        return values


class AnyShift(Categorical):
    """A mutant: categories that come again count again."""

    def are_distinct(self, sites, shifts):
        return torch.ones_like(shifts + sites, dtype=torch.bool)


RAGGED = Categorical(3, (2, 3, 4))


@pytest.mark.parametrize("cls", walk(Metropolis), ids=lambda c: c.__name__)
def test_every_metropolis_kernel_is_exact_on_sites_of_different_sizes(cls: Any) -> None:
    names = {field.name for field in dataclasses.fields(cls)} & SHORT.keys()
    check_detailed_balance(cls(**{name: SHORT[name] for name in names}), make_target(RAGGED, strength=0.5), beta=0.6)


@pytest.mark.parametrize("sampler", [GWG(), DMALA(), RandomWalk()], ids=str)
def test_a_space_that_forgets_its_padding_is_caught(sampler: Metropolis) -> None:
    target = make_target(RAGGED, strength=0.5)
    target.space = WithoutMask(3, RAGGED.sizes)
    with pytest.raises((CheckError, IndexError)):
        check_detailed_balance(sampler, target)


def test_categories_that_count_twice_are_caught() -> None:
    target = make_target(Categorical(3, (3, 2, 5)), strength=0.5)
    check_invariance(Gibbs(), target, backend="eager")
    target.space = AnyShift(3, target.space.sizes)
    with pytest.raises(CheckError, match="leave it"):
        check_invariance(Gibbs(), target, backend="eager")


# -- a kernel of a user's own ------------------------------------------------------------------------------------------


class Noise(NamedTuple):
    flips: Tensor
    accept: Tensor


@dataclass(frozen=True)
class Langevin(Metropolis):
    """Every site on its own, logits d / 2 - 1 / step (Zhang, Liu and Liu, 2022): what a new file looks like."""

    step_size: float = 1.0

    def proposal(self, target, x, evaluation, beta):
        d = target.space.site_differences(x, target.grad_log_prob(evaluation, beta))
        moved = 1 if x.ndim == 2 else 1 - x
        return (d / 2 - moved / self.step_size,)

    def draw(self, state, generator):
        size = (len(state.x), 1 + state.x.shape[1])
        uniform = torch.rand(size, generator=generator, dtype=torch.float64)
        return Noise(uniform[:, 1:], uniform[:, 0])

    def propose(self, target, state, noise):
        return Move(state.x, target.space.draw_sites(state.x, state.proposal[0], noise.flips))

    def log_prob(self, target, state, move):
        return target.space.log_prob_sites(move.x, state.proposal[0], move.x_new)


class WayBackDropped(Langevin):
    def log_prob(self, target, state, move):
        return torch.zeros(len(move.x), dtype=torch.float64)


class NotItsOwnProbability(Langevin):
    def log_prob(self, target, state, move):
        return target.space.log_prob_sites(move.x, state.proposal[0] * 0.9, move.x_new)


class WayBackFromHere(Langevin):
    def decide(self, target: Target, state: MetropolisState, move: Move, uniform: Tensor):
        there = self._at(target, move.x_new, self.follow(target, state.evaluation, move), state.beta)
        q = self.log_prob(target, there._replace(proposal=state.proposal), move.reversed())
        done, info = super().decide(target, state, move, uniform)
        wrong = (
            (self._log_ratio(target, state, there, move) + q - self.log_prob(target, state, move)).exp().clamp(max=1)
        )
        return done._replace(x=torch.where((uniform < wrong)[:, None], move.x_new, move.x)), info._replace(
            accept_prob=wrong
        )


@pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3)], ids=repr)
def test_a_multi_site_kernel_of_thirty_lines_is_accepted(space) -> None:
    check_kernel(Langevin(), make_target(space, strength=0.6))


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (WayBackDropped(), "sums to 16, it must be 1: log_prob is not the probability of the moves"),
        (NotItsOwnProbability(), "propose does not draw moves as often as"),
        (WayBackFromHere(), "detailed balance is broken|keeps the evaluation of another x"),
    ],
)
def test_a_wrong_kernel_is_refused_with_the_reason(kernel: Metropolis, reason: str) -> None:
    with pytest.raises(CheckError, match=reason):
        check_kernel(kernel, make_target(Binary(4), strength=0.6))


def test_a_kernel_that_is_no_metropolis_is_run() -> None:
    """The same mistake in a step of its own: seen by where its chains go."""

    @dataclass(frozen=True)
    class Raw(Sampler):
        def init(self, target, x, beta):
            return GWG().init(target, x, beta)

        def temper(self, target, state, beta):
            return GWG().temper(target, state, beta)

        def draw(self, state, generator):
            return GWG().draw(state, generator)

        def step(self, target, state, noise):
            return GWG().decide(target, state, GWG().propose(target, state, noise), noise.accept * 0)

    with pytest.raises(CheckError, match="chains that start at the target leave it"):
        check_kernel(Raw(), make_target(Binary(4)))


def test_states_are_numbered_in_the_order_of_all_codes() -> None:
    target = make_target(Categorical(3, 3))
    assert torch.equal(number_of(target, target.encode(target.space.all_codes())), torch.arange(27))
