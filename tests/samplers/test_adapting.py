"""The search for a tunable field: where it ends, that it does not stick, and that ranks search alike."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from gwg_dist.energies import RBMEnergy
from gwg_dist.samplers import ACS, DMALA, GWG, Gibbs, MultiGWG, RandomWalk, Sampler, Target, adapting, run_chain
from gwg_dist.samplers.adapting import adapt_kernel
from gwg_dist.samplers.tuners import (
    DECAY,
    GAIN,
    NARROWEST,
    TUNERS,
    AcceptanceTuner,
    CyclicalTuner,
    JumpTuner,
    Seen,
    Tuner,
    value_of,
)
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


def search(tuner: Tuner, base: Sampler, curve: Callable[[Sampler], Seen], target: Target | None = None) -> Sampler:
    """The kernel after 60 looks at which ``curve`` was seen."""
    for _ in range(60):
        kernel = tuner.kernel(base, target)
        assert target is None or kernel.refusal(target) is None
        tuner.observe(base, curve(kernel), target)
    return tuner.frozen(base)


def ten(kernel: Sampler) -> float:
    """A curve with its maximum at ten."""
    return math.exp(-0.5 * math.log(value_of(kernel) / 10) ** 2)


@pytest.mark.parametrize("start", [1, 3, 200])
def test_the_jump_distance_of_whole_numbers(start: int) -> None:
    assert value_of(search(JumpTuner(), MultiGWG(max_draws=start), lambda kernel: Seen(1.0, ten(kernel)))) in (
        9,
        10,
        11,
    )


def test_the_jump_distance_of_a_real_field() -> None:
    found = search(JumpTuner(), Flips(0.01), lambda kernel: Seen(1.0, -abs(math.log(value_of(kernel) / 0.123))))
    assert abs(math.log(value_of(found) / 0.123)) <= NARROWEST / 2 + 1e-9


def test_a_mutant_that_minimises_is_caught() -> None:
    found = search(JumpTuner(), MultiGWG(max_draws=8), lambda kernel: Seen(1.0, -ten(kernel)))
    assert ten(found) < 0.5


# -- cycles ------------------------------------------------------------------------------------------------------------


def slopes(kernel: Sampler) -> Seen:
    """One step size is accepted with 1 / (1 + α / c): c = 2 with a balance of 1/2, 6 with .75, 4 with the others."""
    assert isinstance(kernel, ACS)
    steps = torch.arange(kernel.cycle)
    alpha = kernel.step_size(steps)
    b = kernel.balance(alpha)
    c = torch.where(b == 0.5, 2.0, torch.where((b - 0.75).abs() < 0.01, 6.0, 4.0))
    return Seen(float((1 / (1 + alpha / c)).mean()), 1.0)


def test_both_ends_of_a_cycle_and_the_balance_are_found() -> None:
    """α = 6 with the best of three balances and α = 2 with a balance of 1/2 are accepted with a half."""
    for wanted in (None, 0.8):
        found = search(CyclicalTuner(wanted), ACS(0.5, 0.1), slopes)
        assert isinstance(found, ACS)
        assert found.balance_max == 0.75
        accepted = [1 / (1 + found.step_size_max / 6), 1 / (1 + found.step_size_min / 2)]
        assert accepted == pytest.approx([wanted or 0.5] * 2, abs=0.07)


def test_ends_that_are_found_the_other_way_round_are_a_cycle() -> None:
    tuner = CyclicalTuner(largest=0.2, smallest=0.7, looks=10)
    for _ in range(5):
        kernel = tuner.kernel(ACS(), None)
        tuner.observe(ACS(), slopes(kernel), None)
    found = tuner.frozen(ACS())
    assert isinstance(found, ACS)
    assert found.step_size_min < found.step_size_max


def test_cycles_are_found_on_a_model() -> None:
    """The two ends are accepted with a half each, and a look is a whole cycle."""
    generator, target = torch.Generator().manual_seed(0), rbm()
    found = adapt_kernel(
        ACS(cycle=12), target, torch.zeros(50, 30), num_steps=600, generator=generator, objective="cyclical"
    ).kernel
    assert isinstance(found, ACS)
    low = seen_of(DMALA(found.step_size_min), target, 100)
    high = seen_of(DMALA(found.step_size_max, found.balance_max), target, 100)
    assert abs(low.accept_prob - 0.5) < 0.07
    assert abs(high.accept_prob - 0.5) < 0.07 or found.step_size_max > 5, "or nothing is accepted as seldom"
    with pytest.raises(ValueError, match=r"objective cyclical needs a kernel that goes through cycles.*, got DMALA"):
        adapt_kernel(DMALA(), target, torch.zeros(2, 30), num_steps=9, generator=generator, objective="cyclical")


# -- whole numbers -----------------------------------------------------------------------------------------------------


def test_small_errors_of_one_sign_move_a_whole_number() -> None:
    """A mutant that rounds after every look stays at 3 for ever."""
    tuner, base = AcceptanceTuner(looks=8), RandomWalk(radius=3)
    rounded: Sampler = base
    for look in range(8, 40):
        tuner.observe(base, Seen(0.234 + 0.1, 1.0), None)
        rounded = rounded.adapted(0.234 + 0.1, gain=GAIN / (look + 1) ** DECAY)
    assert rounded == base
    found = tuner.frozen(base)
    assert value_of(found) > 4
    assert type(value_of(found)) is int


def test_a_whole_number_comes_back_from_one_at_once() -> None:
    tuner, base = AcceptanceTuner(), MultiGWG(max_draws=1)
    assert search(tuner, base, lambda kernel: Seen(0.0, 0.0)) == base
    assert tuner.value == 1.0


@pytest.mark.parametrize("tuner", [AcceptanceTuner(), JumpTuner()], ids=lambda tuner: type(tuner).__name__)
def test_a_value_that_the_model_refuses_is_not_tried(tuner: Tuner) -> None:
    found = search(tuner, RandomWalk(radius=2), lambda kernel: Seen(1.0, value_of(kernel)), rbm(5))
    assert value_of(found) > 3


# -- the same everywhere -----------------------------------------------------------------------------------------------


def test_the_sums_of_all_ranks_decide(monkeypatch) -> None:
    monkeypatch.setattr(adapting, "all_sum", lambda sums: sums + torch.tensor([0.0, 0.0, 300.0]))
    generator = torch.Generator().manual_seed(0)
    found = adapt_kernel(Flips(0.01), rbm(), torch.zeros(100, 30), num_steps=10, generator=generator)
    assert found.accept_prob < 0.25, "three other ranks accept nothing"


@pytest.mark.parametrize(
    ("tuner", "base"),
    [(AcceptanceTuner(), MultiGWG(max_draws=3)), (JumpTuner(), MultiGWG(max_draws=3)), (CyclicalTuner(), ACS())],
    ids=lambda part: type(part).__name__,
)
def test_a_tuner_goes_on_from_its_numbers(tuner: Tuner, base: Sampler) -> None:
    for number in range(20):
        again = type(tuner)(**tuner.state())
        kernel = tuner.kernel(base, None)
        assert again.kernel(base, None) == kernel
        for one in (tuner, again):
            one.observe(base, Seen(0.8 - 0.02 * number, ten(kernel)), None)
        assert again == tuner


# -- the edges ---------------------------------------------------------------------------------------------------------


def test_a_kernel_with_nothing_to_tune_runs_its_steps() -> None:
    target, x = rbm(), torch.zeros(10, 30)
    for objective in TUNERS:
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
