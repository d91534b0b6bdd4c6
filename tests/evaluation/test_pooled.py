"""Two ranks are one pooled run, for every estimator; and an estimate's memory does not grow with its temperatures."""

import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from gwg_dist.evaluation import (
    AISSettings,
    Trace,
    ais,
    ais_result,
    ais_start,
    anneal,
    bennett,
    beta_schedule,
    exact_log_prob,
    ladder_of,
    resampler,
    reverse_ais,
    rungs_of,
    set_aside,
    smc,
    take_up,
)
from gwg_dist.evaluation.ais import summarize
from gwg_dist.evaluation.annealing import AnnealPoint
from gwg_dist.evaluation.reverse import reverse_start
from gwg_dist.samplers import GWG
from gwg_dist.spaces import Binary
from gwg_dist.tools import distributed
from gwg_dist.tools.distributed import gather_rows, rank
from tests.support.kernels import make_target

T, SMC = 40, AISSettings(200, 40, estimator="smc")
TARGET = make_target(Binary(8), "rbm", seed=2, strength=3.0)
Found = TypeVar("Found")


class TwoRanks:
    """What ``torch.distributed`` does, for two threads of this process."""

    class ReduceOp:
        MAX = "max"

    def __init__(self) -> None:
        self.here, self.barrier, self.slots = threading.local(), threading.Barrier(2, timeout=60), [torch.empty(0)] * 2

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return hasattr(self.here, "rank")

    def get_rank(self) -> int:
        return self.here.rank

    def get_world_size(self) -> int:
        return 2

    def both(self, tensor: Tensor) -> list[Tensor]:
        self.slots[self.here.rank] = tensor.clone()
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> None:
        stacked = torch.stack(self.both(tensor))
        tensor.copy_(stacked.amax(0) if op == "max" else stacked.sum(0))

    def all_gather(self, parts: list[Tensor], tensor: Tensor) -> None:
        for part, found in zip(parts, self.both(tensor), strict=True):
            part.copy_(found)


@pytest.fixture
def on_two_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Any]]:
    """Calls a function on two ranks at once; what each of them returns."""
    two = TwoRanks()
    monkeypatch.setattr(distributed, "dist", two)

    def call(function: Callable[[], Found]) -> list[Found]:
        def on(number: int) -> Found:
            two.here.rank = number
            try:
                return function()
            except BaseException:
                two.barrier.abort()
                raise

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(on, range(2)))

    return call


def of_rank(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 + number)


def starts(num: int) -> Tensor:
    prob = exact_log_prob(TARGET)[0].exp()
    return TARGET.space.all_codes()[torch.multinomial(prob, num, replacement=True, generator=of_rank(7))]


def forward_by(**settings: Any) -> Callable[[], Any]:
    return lambda: ais(TARGET, GWG(), generator=of_rank(rank()), num_temperatures=T, backend="eager", **settings)


def systems() -> Any:
    return smc(TARGET, GWG(), generator=of_rank(rank()), num_chains=200, num_temperatures=T, every=5, backend="eager")


def back() -> Any:
    return reverse_ais(TARGET, GWG(), starts(31), generator=of_rank(rank()), num_temperatures=T, backend="eager")


def pooled(start: Callable[[torch.Generator, int], AnnealPoint], betas: Tensor, **settings: Any) -> list[AnnealPoint]:
    """Both ranks' ends, one after the other in this process."""
    ends = []
    for number in range(2):
        generator = of_rank(number)
        points = anneal(
            TARGET, GWG(), start(generator, number), betas, generator=generator, backend="eager", **settings
        )
        ends.append(list(points)[-1])
    return ends


def test_two_ranks_are_one_pooled_run(on_two_ranks: Callable[[Callable[[], Any]], list[Any]]) -> None:
    """Forward of 61 chains, 31 and 30; systems of ten, ten on each; reverse from 31 points; Bennett's of them."""
    betas = beta_schedule(T)
    ours, reverse, many = (on_two_ranks(each) for each in (forward_by(num_chains=61), back, systems))
    ends = pooled(lambda g, n: ais_start(TARGET, generator=g, num_chains=31 - n), betas)
    forward = torch.cat([end.log_weights for end in ends])
    ends = pooled(lambda _, n: reverse_start(TARGET, starts(31)[(slice(16), slice(16, 31))[n]]), betas.flip(0))
    backward = torch.cat([end.log_weights for end in ends])
    ends = pooled(
        lambda g, _: ais_start(TARGET, generator=g, num_chains=100, num_systems=10), betas, every=5,
        between=resampler(10),
    )  # fmt: skip
    weights = torch.cat([end.log_weights for end in ends])
    added = torch.cat([end.added for end in ends if end.added is not None])
    assert bool(added.any())
    for number in range(2):
        assert ours[number].log_z == pytest.approx(summarize(forward)[0], abs=1e-12)
        assert reverse[number].log_z == pytest.approx(-summarize(backward)[0], abs=1e-12)
        assert torch.equal(many[number].log_weights, weights)
        assert torch.equal(many[number].added, added)
        by_hand = torch.stack([part.exp().mean().log() for part in weights.split(10)])
        assert many[number].log_z == pytest.approx(summarize(by_hand)[0], abs=1e-12)
        assert many[number].interval == many[0].interval
        both, expected = bennett(ours[number].works, reverse[number].log_weights), bennett(forward, backward)
        assert both == pytest.approx(expected, abs=1e-9)


def trace(direction: int) -> Trace:
    """As evaluation keeps it: log weights and f of all ranks at every rung."""
    betas = beta_schedule(T).flip(0) if direction else beta_schedule(T)
    generator = of_rank(rank())
    start = reverse_start(TARGET, starts(30)) if direction else ais_start(TARGET, generator=generator, num_chains=30)
    points = anneal(TARGET, GWG(), start, betas, generator=generator, also=rungs_of(T), look=T, backend="eager")
    rows = [rung(start), *map(rung, points)]
    log_weights, f = torch.stack(rows, 1).unbind()
    return Trace(betas[rungs_of(T)], log_weights, f)


def rung(point: AnnealPoint) -> Tensor:
    return gather_rows(torch.stack([point.log_weights, TARGET.f(point.x).detach()], 1)).T


def test_mbar_and_integration_of_two_ranks_are_those_of_all_chains(
    on_two_ranks: Callable[[Callable[[], Any]], list[Any]],
) -> None:
    up, down = on_two_ranks(partial(trace, 0)), on_two_ranks(partial(trace, 1))
    first, second = (ladder_of(up[number], down[number]) for number in range(2))
    assert first == second
    assert up[0].log_weights.shape == (11, 30)
    order = torch.randperm(30, generator=of_rank(0))
    turned = [Trace(each.betas, each.log_weights[:, order], each.f[:, order]) for each in (up[0], down[0])]
    again = ladder_of(*turned)
    assert again.mbar == pytest.approx(first.mbar, abs=1e-9)
    assert again.integral == pytest.approx(first.integral, abs=1e-9)


def test_two_ranks_go_on_with_their_systems_bit_for_bit(
    on_two_ranks: Callable[[Callable[[], Any]], list[Any]],
) -> None:
    """Set aside at temperature 20 of 40 and taken up by generators that stand elsewhere."""

    def undisturbed_and_resumed() -> tuple[Any, Any]:
        generator, fresh = of_rank(rank()), of_rank(50 + rank())
        settings: dict[str, Any] = {"every": 20, "between": SMC.between, "backend": "eager"}
        start = ais_start(TARGET, generator=generator, num_chains=200, num_systems=20)
        middle, calm = list(anneal(TARGET, GWG(), start, SMC.betas(), generator=generator, **settings))
        held = set_aside(middle, TARGET.space, SMC, GWG())
        assert held.generators.shape[0] == 2
        begun = take_up(held, TARGET.space, SMC, dtype=torch.float64, generator=fresh, kernel=GWG())
        assert begun is not None
        *_, last = anneal(TARGET, GWG(), begun, SMC.betas(), generator=fresh, **settings)
        one, other = (ais_result(TARGET.space, point, num_systems=20) for point in (calm, last))
        return one, other

    for one, other in on_two_ranks(undisturbed_and_resumed):
        assert one.added is not None
        assert bool(one.added.any())
        assert torch.equal(one.log_weights, other.log_weights)
        assert torch.equal(one.added, other.added)
        assert (one.log_z, one.interval) == (other.log_z, other.interval)


def peak(num_temperatures: int, *, keep: bool = False) -> int:
    """The most bytes of Python objects, tensors' own among them, that an estimate has at once."""
    generator = of_rank(0)
    start = ais_start(TARGET, generator=generator, num_chains=4)
    tracemalloc.start()
    kept = []
    for point in anneal(
        TARGET, GWG(), start, beta_schedule(num_temperatures), generator=generator, look=1, backend="eager"
    ):
        kept += [point] if keep else []
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_does_not_grow_with_the_number_of_temperatures() -> None:
    """Beyond the list of betas, 100 bytes a temperature at most; points that are kept are several times that."""
    peak(50)  # what is made once
    assert (peak(600) - peak(100)) / 500 < 100
    assert (peak(150, keep=True) - peak(50, keep=True)) / 100 > 250, "a mutant that keeps its points is seen"
