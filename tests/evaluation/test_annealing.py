"""Annealing as a generator: stopped anywhere and gone on with it is the run that did not stop, bit for bit.

The weights are right in both directions: E[exp(w)] is Z at the end over Z at the beginning, against enumeration.
"""

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gwg_dist.evaluation import AnnealPoint, anneal, annealing, beta_schedule, exact_log_prob, exact_log_z
from gwg_dist.samplers import (
    GWG,
    BlockGibbs,
    Gibbs,
    ParallelTempering,
    Sampler,
    SurrogateGWG,
    Target,
    parallel_tempering,
    plan_chains,
)
from gwg_dist.samplers.fast import Graphed
from gwg_dist.samplers.run import Plan
from gwg_dist.spaces import Binary
from tests import golden
from tests.samplers.test_gpu import rerun
from tests.support.kernels import make_target

T, EVERY = 35, 10
RUNS = [
    (name, sampler, dtype, backend)
    for name in ("mlp", "rbm", "torus", "potts")
    for sampler in (GWG(), Gibbs(), Gibbs("systematic"))
    for dtype in (torch.float32, torch.float64)
    for backend in ("auto", "eager")
] + [
    ("torus", BlockGibbs(), torch.float32, "auto"), ("torus", BlockGibbs(), torch.float64, "auto"),
    ("mlp", SurrogateGWG(block=3), torch.float32, "auto"), ("ising", GWG(), torch.float64, "plain"),
]  # fmt: skip


def begin(name: str, sampler: Sampler, dtype: torch.dtype, backend: str, look: int | None = None, seed: int = 5):
    """A short annealing, and its generator."""
    target, generator = golden.make_target(name, dtype), torch.Generator().manual_seed(seed)
    x = target.space.encode(target.space.uniform_codes(6, generator=generator), dtype)
    return anneal(
        target, sampler, x, beta_schedule(T), generator=generator, every=EVERY, look=look, backend=backend
    ), generator


def go_on(point: AnnealPoint, name: str, sampler: Sampler, dtype: torch.dtype, backend: str) -> Iterator[AnnealPoint]:
    """In what might be another process: from a file, with a generator that stands elsewhere."""
    file = io.BytesIO()
    torch.save(tuple(point), file)
    file.seek(0)
    point = AnnealPoint(*torch.load(file, weights_only=True))
    return anneal(
        golden.make_target(name, dtype), sampler, point, beta_schedule(T), generator=torch.Generator().manual_seed(99),
        every=EVERY, backend=backend,
    )  # fmt: skip


def same(a: AnnealPoint, b: AnnealPoint) -> bool:
    return a.t == b.t and torch.equal(a.x, b.x) and torch.equal(a.log_weights, b.log_weights)


@pytest.mark.parametrize(("name", "sampler", "dtype", "backend"), RUNS, ids=str)
def test_a_stopped_run_goes_on_bit_for_bit(name: str, sampler: Sampler, dtype: torch.dtype, backend: str) -> None:
    points = list(begin(name, sampler, dtype, backend)[0])
    assert [point.t for point in points] == [10, 20, 30, 35]
    assert not torch.equal(points[0].x, points[-1].x)
    for number, point in enumerate(points):
        rest = list(go_on(point, name, sampler, dtype, backend))
        assert [after.t for after in rest] == [10, 20, 30, 35][number + 1 :]
        assert all(same(a, b) for a, b in zip(points[number + 1 :], rest, strict=True))


def test_power_a_run_that_forgets_something_is_seen() -> None:
    """Mutants of resuming: the weights so far, or the generator's state, are lost."""
    settings = ("mlp", GWG(), torch.float64, "auto")
    points = list(begin(*settings)[0])
    zeros = torch.zeros_like(points[1].log_weights)
    for forgetful in (points[1]._replace(log_weights=zeros), points[1]._replace(generator_state=None)):
        assert not same(points[-1], list(go_on(forgetful, *settings))[-1])


@pytest.mark.parametrize("look", [1, 3, 7, 100])
def test_looking_changes_no_number(look: int) -> None:
    settings = ("rbm", GWG(), torch.float32, "auto")
    points, looked = list(begin(*settings)[0]), list(begin(*settings, look=look)[0])
    ends = [point for point in looked if point.generator_state is not None]
    assert all(same(a, b) for a, b in zip(points, ends, strict=True))
    assert [point.t for point in looked] == sorted({*range(look, T, look), 10, 20, 30, T})
    target, start = golden.make_target("rbm", torch.float32), points[0]
    more = list(
        anneal(
            target,
            GWG(),
            start,
            beta_schedule(T),
            generator=torch.Generator(),
            every=EVERY,
            look=look,
            also=[9, 13, 31],
        )
    )
    assert {10 + 3, 31} <= {point.t for point in more}
    assert same(more[-1], points[-1])


@pytest.mark.parametrize("sampler", [GWG(), Gibbs(), BlockGibbs()], ids=str)
def test_a_point_is_the_caller_s(sampler: Sampler) -> None:
    """What is yielded does not change afterwards, nor does what the caller does with it change the run."""
    name = ("torus", sampler, torch.float32, "auto")
    calm = list(begin(*name, look=2)[0])
    kept, copies = [], []
    for point in begin(*name, look=2)[0]:
        kept.append(point)
        copies.append((point.x.clone(), point.log_weights.clone()))
    assert all(torch.equal(p.x, x) and torch.equal(p.log_weights, w) for p, (x, w) in zip(kept, copies, strict=True))
    assert all(same(a, b) for a, b in zip(calm, kept, strict=True))
    assert torch.is_grad_enabled()
    run, _ = begin(*name, look=2)
    next(run)
    assert torch.is_grad_enabled(), "between two points the caller's mode of gradients is its own"


def test_graph_memory_may_serve_another_run_between_two_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for CUDA graphs: two runs of one kernel, turn by turn, are the two runs one after the other."""

    def planned(*args: Any, **settings: Any) -> Plan:
        plan = plan_chains(*args, **{**settings, "backend": "eager"})
        return plan._replace(kernel=Graphed(plan.kernel, rerun))

    monkeypatch.setattr(annealing, "plan_chains", planned)
    target = golden.make_target("mlp", torch.float64)

    def chains(seed: int) -> Iterator[AnnealPoint]:
        generator = torch.Generator().manual_seed(seed)
        x = target.space.encode(target.space.uniform_codes(6, generator=generator), torch.float64)
        return anneal(target, GWG(), x, beta_schedule(T), generator=generator, every=EVERY, look=3)

    apart = list(chains(1)), list(chains(2))
    together = list(zip(chains(1), chains(2), strict=True))
    assert all(same(a, b) for one, pairs in zip(apart, zip(*together, strict=True), strict=True)
               for a, b in zip(one, pairs, strict=True))  # fmt: skip


# -- both directions against the exact sums ---------------------------------------------------------------------------

NUM = 4000


def exact_samples(target: Target, beta: float, generator: torch.Generator) -> Tensor:
    log_prob, _ = exact_log_prob(target, beta=beta)
    states = torch.multinomial(log_prob.exp(), NUM, replacement=True, generator=generator)
    return target.space.encode(target.space.all_codes()[states], torch.float64)


def z_score(target: Target, sampler: Sampler, betas: Tensor, *, seed: int = 0, every: int = 20) -> float:
    """(mean exp(w) / (Z_end / Z_begin) - 1) / stderr."""
    generator = torch.Generator().manual_seed(seed)
    x = exact_samples(target, float(betas[0]), generator)
    *_, point = anneal(target, sampler, x, betas, generator=generator, every=every)
    truth = exact_log_z(target, beta=float(betas[-1])) - exact_log_z(target, beta=float(betas[0]))
    ratio = (point.log_weights - truth).exp()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(NUM)))


@pytest.mark.parametrize("sampler", [GWG(), Gibbs(), Gibbs("systematic")], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "rbm", "ising"])
def test_both_directions_against_the_exact_sum(kind: str, sampler: Sampler) -> None:
    target = make_target(Binary(7), kind, seed=1, strength=0.8)
    rising = beta_schedule(50)
    for seed, betas in enumerate((rising, rising.flip(0), 0.3 + 0.5 * rising, (0.3 + 0.5 * rising).flip(0))):
        assert abs(z_score(target, sampler, betas, seed=seed)) < 4, (kind, betas[:2])


class Late(annealing._Chains):
    """The mutant: the weight is taken after the step, at x_t, instead of before it."""

    def advance(self, end: int) -> None:
        weights, increments = self.log_weights, self.increments
        self.increments = [0.0] * len(increments)
        for t in range(self.t, end):
            super().advance(t + 1)
            weights.add_(self.state.f, alpha=increments[t])
        self.increments = increments


def test_power_weights_after_the_step_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    target, betas = make_target(Binary(7), "mlp", seed=1, strength=0.8), beta_schedule(10)
    assert abs(z_score(target, GWG(), betas)) < 4
    assert abs(z_score(target, GWG(), betas.flip(0))) < 4
    monkeypatch.setattr(annealing, "_Chains", Late)
    assert abs(z_score(target, GWG(), betas)) > 5
    assert abs(z_score(target, GWG(), betas.flip(0))) > 5


def test_a_segment_costs_one_evaluation_more() -> None:
    target, calls = make_target(Binary(6)), []
    forward = target.energy
    counted = Target(lambda x: calls.append(1) or forward(x), target.reference, space=target.space)
    x = target.space.encode(target.space.all_codes()[:5], torch.float64)
    for every, look, expected in ((50, None, 51), (500, 3, 51), (20, None, 53), (20, 1, 53)):
        calls.clear()
        list(anneal(
            counted, GWG(), x, beta_schedule(50), generator=torch.Generator(), every=every, look=look, backend="eager"
        ))  # fmt: skip
        assert len(calls) == expected, (every, look)


def test_replicas_are_not_annealed_their_kernel_is() -> None:
    target, ladder, betas = make_target(Binary(5), "ising"), ParallelTempering(), beta_schedule(20)
    with pytest.raises(ValueError, match=r"needs a sampler of x alone, ParallelTempering\(.*\) swaps x with chains"):
        z_score(target, ladder, betas)
    assert abs(z_score(target, ladder.annealed(), betas)) < 4
    assert ParallelTempering(ladder).annealed() == GWG()


def test_power_annealed_replicas_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap brings in a replica that carries no weight."""
    monkeypatch.setattr(ParallelTempering, "of_x_alone", True)
    monkeypatch.setattr(parallel_tempering, "SETTLE", 0)
    target, betas = make_target(Binary(7), "ising", seed=1, strength=2.0), beta_schedule(60)
    assert abs(z_score(target, GWG(), betas, every=60)) < 4
    assert abs(z_score(target, ParallelTempering(GWG(), (0.4, 0.7, 1.0)), betas, every=60)) > 8


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named() -> None:
    target, generator, fine = make_target(Binary(4)), torch.Generator(), beta_schedule(4)
    x = target.space.encode(target.space.all_codes()[:3], torch.float64)

    def refused(start: Tensor | AnnealPoint = x, betas: Tensor = fine, every: int = 500, look: int = 10) -> str:
        with pytest.raises(ValueError, match=" got ") as error:
            anneal(target, GWG(), start, betas, generator=generator, every=every, look=look)
        return str(error.value)

    row = "betas must be one row of at least two float64 numbers, got "
    assert refused(betas=torch.zeros(1, dtype=torch.float64)) == f"{row}torch.float64 (1,)"
    assert refused(betas=torch.linspace(0, 1, 5)) == f"{row}torch.float32 (5,)"
    assert refused(betas=torch.zeros(2, 2, dtype=torch.float64)) == f"{row}torch.float64 (2, 2)"
    for wrong in (1.5, -0.1, math.nan):
        betas = torch.tensor([0, wrong], dtype=torch.float64)
        assert refused(betas=betas).startswith("betas must lie in [0, 1], got values from ")
    betas = torch.tensor([0, 0.5, 0.5, 0.25, 1], dtype=torch.float64)
    assert refused(betas=betas) == "betas must rise or fall all the way, got [0.5, 0.25] at t = 2"
    assert refused(betas=betas.flip(0)) == "betas must rise or fall all the way, got [0.25, 0.5] at t = 1"
    assert refused(every=0) == "every must be positive, got 0"
    assert refused(look=-1) == "look must be positive, got -1"
    assert refused(x[:, :3]) == "x must hold floats of shape (any, 4) for Binary((4,)), got torch.float64 (3, 3)"
    assert refused(x.long()).endswith("got torch.int64 (3, 4)")
    weights = torch.zeros(3, dtype=torch.float64)
    assert refused(AnnealPoint(5, x, weights)) == "t must lie in 0 to 4, the number of temperatures, got 5"
    assert refused(AnnealPoint(0, x, weights[:2])) == "log_weights must hold 3 float64 numbers, got torch.float64 (2,)"
    assert refused(AnnealPoint(0, x, weights.float())).endswith("got torch.float32 (3,)")


def test_a_finished_point_has_nothing_left() -> None:
    *_, last = begin("mlp", GWG(), torch.float64, "auto")[0]
    assert list(go_on(last, "mlp", GWG(), torch.float64, "auto")) == []


def test_evaluation_needs_torch_alone() -> None:
    code = (
        "import sys, gwg_dist.evaluation; "
        "print([m for m in ('lightning', 'torchmetrics', 'sklearn', 'ray', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
