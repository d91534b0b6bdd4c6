"""The search for a tunable field: where it ends, that it does not stick, and that ranks search alike."""

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from gwg_dist.energies import RBMEnergy
from gwg_dist.samplers import GWG, Gibbs, MultiGWG, RandomWalk, Sampler, Target, adapting, run_chain
from gwg_dist.samplers.adapting import AcceptanceTuner, JumpTuner, Seen, adapt_kernel, value_of
from gwg_dist.spaces import Binary
from tests.plugins import Flips


def rbm(num_sites: int = 30) -> Target:
    torch.manual_seed(0)
    return Target(RBMEnergy(Binary(num_sites), num_hidden=15, scale=0.3))


@cache
def burnt_in() -> torch.Tensor:
    """200 chains of the machine."""
    generator = torch.Generator().manual_seed(1)
    return run_chain(Gibbs(), rbm(), torch.zeros(200, 30), num_steps=100, generator=generator).x


def seen_of(kernel: Sampler, target: Target, num_steps: int = 50) -> Seen:
    """What chains that follow the model do with a kernel."""
    generator, x = torch.Generator().manual_seed(2), burnt_in()
    return adapting.seen_of(run_chain(kernel, target, x, num_steps=num_steps, generator=generator))


# -- where it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [Flips(0.003), Flips(0.5)], ids=str)
@pytest.mark.parametrize("wanted", [None, 0.574])
def test_the_acceptance_comes_to_its_target(start: Flips, wanted: float | None) -> None:
    generator, target = torch.Generator().manual_seed(0), rbm()
    found = adapt_kernel(
        start, target, torch.zeros(100, 30), num_steps=400, generator=generator, target_acceptance=wanted
    )
    aimed = wanted or Flips.target_acceptance
    assert abs(seen_of(found.kernel, target).accept_prob - aimed) < 0.05
    assert abs(found.accept_prob - aimed) < 0.1
    assert (len(found.values), found.values[0], found.values[-1]) == (41, start.rate, value_of(found.kernel))


@pytest.mark.parametrize("start", [1, 30], ids=str)
def test_the_jump_distance_comes_to_its_maximum(start: int) -> None:
    """From one flip and from as many as there are sites, to within 7 % of the best of all."""
    generator, target = torch.Generator().manual_seed(0), rbm()
    found = adapt_kernel(
        RandomWalk(start), target, torch.zeros(100, 30), num_steps=400, generator=generator, objective="jump"
    )
    end = round(value_of(found.kernel))
    hops = {n: seen_of(RandomWalk(n), target, 100).hops for n in {1, 8, 12, 16, 20, 30, end}}
    assert hops[end] > 0.93 * max(hops.values())
    assert hops[end] > 1.1 * hops[start], "the start was poor"


def test_the_jump_distance_of_a_real_field() -> None:
    """A random walk on a flat target is never refused: the more flips the better, up to what the kernel takes."""
    tuner, kernel = JumpTuner(), Flips(0.01)
    looked: Sampler = tuner.first(kernel, None)
    for _ in range(60):
        assert isinstance(looked, Flips)
        looked = tuner.next(looked, Seen(1.0, -abs(math.log(looked.rate / 0.123))), None)
    found = tuner.frozen(looked)
    assert isinstance(found, Flips)
    assert abs(math.log(found.rate / 0.123)) <= adapting.NARROWEST / 2 + 1e-9


def test_a_mutant_that_minimises_is_caught() -> None:
    tuner, looked = JumpTuner(), MultiGWG(max_draws=8)
    tuner.first(looked, None)
    kernel: Sampler = looked
    for _ in range(60):
        kernel = tuner.next(kernel, Seen(1.0, -seen_hops(kernel)), None)
    assert seen_hops(tuner.frozen(kernel)) < 0.5 * seen_hops(MultiGWG(max_draws=10))


def seen_hops(kernel: Sampler) -> float:
    """A curve with its maximum at ten draws."""
    assert isinstance(kernel, MultiGWG)
    return math.exp(-0.5 * math.log(kernel.max_draws / 10) ** 2)


# -- whole numbers -----------------------------------------------------------------------------------------------------


def test_small_errors_of_one_sign_move_a_whole_number() -> None:
    """Rounding after every look would stay at 3 for ever."""
    tuner, kernel = AcceptanceTuner(looks=8), RandomWalk(radius=3)
    stuck: Sampler = kernel
    for look in range(8, 40):
        tuned = tuner.next(kernel, Seen(0.234 + 0.1, 1.0), None)
        assert isinstance(tuned, RandomWalk)
        kernel = tuned
        stuck = stuck.adapted(0.234 + 0.1, gain=adapting.GAIN / (look + 1) ** adapting.DECAY)
    assert stuck == RandomWalk(radius=3)
    assert kernel.radius > 4
    assert type(kernel.radius) is int


def test_a_whole_number_comes_back_from_one_at_once() -> None:
    tuner, kernel = AcceptanceTuner(), MultiGWG(max_draws=1)
    for _ in range(30):
        assert tuner.next(kernel, Seen(0.0, 0.0), None) == kernel
    assert tuner.value == 1.0


def test_a_value_that_the_model_refuses_is_not_tried() -> None:
    target = rbm(5)
    for tuner in (AcceptanceTuner(), JumpTuner()):
        kernel: Sampler = tuner.first(RandomWalk(radius=2), target)
        for _ in range(30):
            kernel = tuner.next(kernel, Seen(1.0, float(value_of(kernel))), target)
            assert kernel.refusal(target) is None
        assert value_of(tuner.frozen(kernel)) > 3


# -- the same everywhere -----------------------------------------------------------------------------------------------


def test_the_sums_of_all_ranks_decide(monkeypatch) -> None:
    monkeypatch.setattr(adapting, "all_sum", lambda sums: sums + torch.tensor([0.0, 0.0, 300.0]))
    generator = torch.Generator().manual_seed(0)
    found = adapt_kernel(Flips(0.01), rbm(), torch.zeros(100, 30), num_steps=10, generator=generator)
    assert found.accept_prob < 0.25, "three other ranks accept nothing"


@pytest.mark.parametrize("tuner", [AcceptanceTuner(), JumpTuner()], ids=lambda tuner: type(tuner).__name__)
def test_a_tuner_goes_on_from_its_numbers(tuner: adapting.Tuner) -> None:
    kernel: Sampler = tuner.first(MultiGWG(max_draws=3), None)
    for number in range(20):
        again, kernel_again = type(tuner)(**tuner.state()), kernel
        seen = Seen(0.8 - 0.02 * number, seen_hops(kernel))
        kernel = tuner.next(kernel, seen, None)
        assert again.next(kernel_again, seen, None) == kernel
        assert again == tuner


# -- the edges ---------------------------------------------------------------------------------------------------------


def test_a_kernel_with_nothing_to_tune_runs_its_steps() -> None:
    target, x = rbm(), torch.zeros(10, 30)
    for objective in adapting.TUNERS:
        found = adapt_kernel(
            GWG(), target, x, num_steps=25, generator=torch.Generator().manual_seed(0), objective=objective
        )
        assert (found.kernel, found.values) == (GWG(), ())
        assert (found.x != x).any()
        assert 0 < found.accept_prob <= 1


def test_what_cannot_be_asked_for_is_named() -> None:
    generator, target, x = torch.Generator(), rbm(), torch.zeros(2, 30)
    for settings, message in (
        ({"objective": "speed"}, "objective must be one of acceptance, jump.*, got 'speed'"),
        ({"num_steps": 0}, "num_steps must be positive, got 0"),
        ({"target_acceptance": 1.0}, r"target_acceptance must lie in \(0, 1\), got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            adapt_kernel(Flips(), target, x, **{"num_steps": 5, "generator": generator, **settings})


@dataclass(frozen=True)
class Never(Flips):
    """Refuses every other value."""

    def __post_init__(self) -> None:
        if self.rate != 0.2:
            raise ValueError("rate must be 0.2")


def test_a_kernel_that_refuses_every_value_stays_as_it_is() -> None:
    for objective in ("acceptance", "jump"):
        found = adapt_kernel(
            Never(0.2), rbm(), torch.zeros(5, 30), num_steps=30, generator=torch.Generator(), objective=objective
        )
        assert found.kernel == Never(0.2)
