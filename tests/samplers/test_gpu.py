"""Steps replayed as graphs are the steps themselves, and nothing in a step waits for the device.

Tests that need a CUDA device are skipped where there is none. The memory that a graph reads and writes is checked
everywhere, with a stand-in for the capture that runs the function again where a graph would be replayed.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from scipy import stats
from torch import Tensor, nn

from gwg_dist.energies import PottsEnergy, ResNetEnergy
from gwg_dist.evaluation import ais, annealing
from gwg_dist.reference import Reference
from gwg_dist.samplers import (
    ACS,
    AVG,
    DMALA,
    DULA,
    GWG,
    PAS,
    ChainResult,
    EnumeratedGibbs,
    GaussianIntegralGibbs,
    Gibbs,
    HammingBall,
    Kernel,
    MultiGWG,
    ParallelTempering,
    RandomWalk,
    Sampler,
    Target,
    run,
    run_chain,
)
from gwg_dist.samplers.fast import graphs
from gwg_dist.samplers.fast.graphs import Graphed, Memory, tree_copy
from gwg_dist.samplers.run import Plan, plan_chains
from gwg_dist.spaces import Binary
from gwg_dist.target import StructuredTarget
from tests.samplers.test_gwg_exact import mutant
from tests.support.kernels import MUTANTS, SPACES, exact_pi, make_target
from tests.support.runs import checkpoint, run_fit

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ALPHA = 1e-6
NUM_CHAINS = 40_000
TOLERANCE = 1e-10  # float64, sums in another order
SAMPLERS = [
    GWG(), Gibbs(), Gibbs("systematic"), MultiGWG(), RandomWalk(), DMALA(0.5), DMALA(0.5, 0.8, (0.5, 1.0, 2.0)), DULA(),
    PAS(max_length=3), HammingBall(radius=1, block=2), EnumeratedGibbs(block=2), AVG(), GaussianIntegralGibbs(),
    ParallelTempering(GWG(), (0.5, 1.0)), ACS(cycle=4),
]  # fmt: skip
MODELS = [("mlp", "binary"), ("mlp", "categorical"), ("rbm", "binary"), ("ising", "binary"), ("potts", "categorical")]


def model(kind: str, name: str, device: str) -> Target:
    """A random float64 model on ``device``; "resnet" takes its own space, 8x8 binary images."""
    if kind == "resnet":
        torch.manual_seed(0)
        space = Binary((8, 8))
        target = Target(ResNetEnergy(space, num_channels=8, num_blocks=1).double(), Reference(space).double())
    else:
        target = make_target(SPACES[name], "mlp" if kind == "potts" else kind)
    if kind == "potts":
        target = Target(PottsEnergy(target.space, scale=0.5).double(), target.reference)
    for module in (target.energy, target.reference):
        assert isinstance(module, nn.Module)
        module.to(device)
    return target


def starts(target: Target, device: str) -> Tensor:
    codes = target.space.uniform_codes(64, generator=torch.Generator().manual_seed(0))
    return target.space.encode(codes, torch.float64).to(device)


def same_chain(sampler: Sampler, target: Target, x: Tensor, backend: str, **settings: Any) -> ChainResult:
    """The chain by ``backend``, which must be that of eager steps on the same noise."""
    before = x.clone()
    ends = []
    for name in ("eager", backend):
        generator = torch.Generator(x.device).manual_seed(2)
        ends.append(run_chain(sampler, target, x, num_steps=25, generator=generator, backend=name, **settings))
    eager, other = ends
    assert torch.equal(x, before), "the starting points were overwritten"
    assert torch.equal(eager.x, other.x), "another chain"
    for a, b in ((eager.state.f, other.state.f), (eager.accept_prob, other.accept_prob), (eager.hops, other.hops)):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)
    return other


def skip_refused(sampler: Sampler, target: Target) -> None:
    reason = sampler.refusal(target)
    if reason is not None:
        pytest.skip(f"by design: {reason}")


def change_weights(target: Target) -> None:
    """In place, as an optimizer does."""
    assert isinstance(target.energy, nn.Module)
    with torch.no_grad():
        for parameter in target.energy.parameters():
            parameter.mul_(-0.5)


def check_graph(sampler: Sampler, target: Target, device: str) -> None:
    """A run, one on new weights, one by a schedule, one from another start; no run disturbs the results of another."""
    skip_refused(sampler, target)
    x = starts(target, device)
    first = same_chain(sampler, target, x, "graph", beta=0.8)
    kept = first.x.clone(), first.state.f.clone()
    change_weights(target)
    second = same_chain(sampler, target, x, "graph", beta=0.8)
    assert not torch.equal(first.x, second.x), "the weights make no difference: nothing was tested"
    schedule = torch.linspace(0, 1, 25, dtype=torch.float64)
    same_chain(sampler, target, x, "graph", schedule=schedule)
    change_weights(target)
    same_chain(sampler, target, x.flip(0), "graph", beta=0.3)
    same_chain(sampler, target, x, "graph", schedule=schedule.flip(0))
    assert torch.equal(first.x, kept[0]), "a later run overwrote x"
    assert torch.equal(first.state.f, kept[1]), "a later run overwrote f"


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Memory]:
    """The graphs captured during a test."""
    made: list[Memory] = []

    class Noted(Memory):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(graphs, "Memory", Noted)
    return made


# -- everywhere: the memory of a graph ---------------------------------------------------------------------------------


def rerun(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Stands in for a capture: to replay is to run the function again, into the outputs of its first run."""
    outputs = function()
    return lambda: tree_copy(outputs, function()), outputs


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend "graph" by ``rerun`` on a CPU, against eager steps on the same noise; increments refreshed often."""

    def plan(kernel: Kernel, target: Target, x: Tensor, *, beta: Tensor | None = None, backend: str = "auto") -> Plan:
        return Plan(Graphed(kernel, rerun) if backend == "graph" else kernel, target.frozen())

    for user in (run, annealing):
        monkeypatch.setattr(user, "plan_chains", plan)
    monkeypatch.setattr(StructuredTarget, "refresh_every", 10)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(("kind", "name"), MODELS)
def test_memory_of_a_graph(kind: str, name: str, sampler: Sampler, stand_in: None, captures: list[Memory]) -> None:
    """One capture of the step and one of the change of beta, whatever the weights, betas and starts."""
    check_graph(sampler, model(kind, name, "cpu"), "cpu")
    assert [sorted(memory.graphs) for memory in captures] == [["step", "temper"]]


class KeepsIncrements(Memory):
    """Steps on the weights as they were at the capture."""

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Any]:
        return super().step(self.target, state, noise)


class KeepsState(Memory):
    """Goes on from where the last run ended."""

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Any]:
        return super().step(target, self.state, noise)


class KeepsNoise(Memory):
    """Makes the same move again and again."""

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Any]:
        return super().step(target, state, self.inputs.get("step", noise))


class KeepsBeta(Memory):
    """Goes on at the beta of the first change."""

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        return super().temper(target, state, self.inputs.get("temper", beta))


@pytest.mark.parametrize("mutated", [KeepsIncrements, KeepsState, KeepsNoise, KeepsBeta])
def test_mutants_of_the_memory_are_caught(
    mutated: type[Memory], stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "Memory", mutated)
    monkeypatch.setattr(graphs, "_memories", cache(OrderedDict))
    with pytest.raises(AssertionError, match="another chain"):
        check_graph(GWG(), model("rbm", "binary", "cpu"), "cpu")


def test_a_graph_takes_the_state_that_it_is_given() -> None:
    """Its own state goes on; another one, at the start of a run or evaluated afresh, replaces it and is left alone."""
    target = model("rbm", "binary", "cpu").frozen()
    x, beta = starts(target, "cpu"), torch.tensor(0.8, dtype=torch.float64)
    sampler, generator = GWG(), torch.Generator().manual_seed(1)
    state = sampler.init(target, x, beta)
    memory = Memory(Graphed(sampler, rerun), target, state)
    for start in (x, x.flip(0), x):
        given = expected = sampler.init(target, start, beta)
        found = given
        for _ in range(3):
            noise = sampler.draw(expected, generator)
            expected, info = sampler.step(target, expected, noise)
            found, found_info = memory.step(target, found, noise)
            assert torch.equal(found.x, expected.x)
            assert torch.equal(found_info.accept_prob, info.accept_prob)
        assert torch.equal(given.x, start)


def test_weights_in_another_place_are_captured_anew(stand_in: None, captures: list[Memory]) -> None:
    target = model("mlp", "binary", "cpu")
    assert isinstance(target.energy, nn.Module)
    x = starts(target, "cpu")
    for number in (1, 2):
        same_chain(GWG(), target, x, "graph")
        assert len(captures) == number
        for parameter in target.energy.parameters():
            parameter.data = parameter.data.clone()


@pytest.mark.parametrize("kind", ["rbm", "mlp", "resnet"])
def test_a_structure_in_another_precision_is_captured_anew(kind: str, stand_in: None, captures: list[Memory]) -> None:
    """The same energy with gradients in bfloat16 and without, turn by turn: each chain is its own."""
    source = model(kind, "binary", "cpu")
    assert isinstance(source.energy, nn.Module)
    energy, reference = source.energy.float(), Reference(source.space)
    x = starts(source, "cpu").float()
    mixed, plain = (Target(energy, reference, mixed_precision=on) for on in (True, False))
    for target in (mixed, plain, mixed):
        assert isinstance(structured := target.frozen(), StructuredTarget)
        assert ("bfloat16" in structured.how) == (target is mixed)
        same_chain(DMALA(0.5), target, x, "graph")
    assert len(captures) == 2


def test_annealing_reads_the_state_before_it_is_overwritten(stand_in: None) -> None:
    same_log_weights("cpu")


def same_log_weights(device: str) -> None:
    eager, graph = (
        ais(model("mlp", "binary", device), GWG(), generator=torch.Generator(device).manual_seed(3), num_chains=50,
            num_temperatures=40, backend=backend)
        for backend in ("eager", "graph")
    )  # fmt: skip
    torch.testing.assert_close(graph.log_weights, eager.log_weights, rtol=0, atol=TOLERANCE)
    assert torch.equal(graph.codes, eager.codes)


def test_a_graph_needs_cuda() -> None:
    target = model("mlp", "binary", "cpu")
    with pytest.raises(ValueError, match="backend graph needs a CUDA device, the chains are on cpu"):
        plan_chains(GWG(), target, starts(target, "cpu"), backend="graph")


# -- on a CUDA device --------------------------------------------------------------------------------------------------


@needs_cuda
def test_graphs_are_the_usual_backend_on_cuda() -> None:
    target = model("mlp", "binary", "cuda")
    assert isinstance(plan_chains(GWG(), target, starts(target, "cuda")).kernel, Graphed)


@needs_cuda
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(("kind", "name"), [*MODELS, ("resnet", "image")])
def test_graph_equals_eager(kind: str, name: str, sampler: Sampler, captures: list[Memory]) -> None:
    """On the same noise; neither new weights nor new betas are captured again, and nothing is compiled."""
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    check_graph(sampler, model(kind, name, "cuda"), "cuda")
    assert [sorted(memory.graphs) for memory in captures] == [["step", "temper"]]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


@needs_cuda
def test_annealing_by_graph_equals_eager() -> None:
    same_log_weights("cuda")


@needs_cuda
@pytest.mark.parametrize(("kind", "name"), [("mlp", "binary"), ("mlp", "categorical"), ("rbm", "binary")])
def test_compiled_equals_eager(kind: str, name: str, compiler: None) -> None:
    """And neither new weights nor a new beta compile again."""
    target = model(kind, name, "cuda")
    x = starts(target, "cuda")
    same_chain(GWG(), target, x, "compiled", beta=0.8)
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled > 0
    change_weights(target)
    same_chain(GWG(), target, x, "compiled", beta=0.3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def chi_square_p_value(sampler: Sampler, kind: str, name: str, backend: str) -> float:
    """The p-value of the end points of exact draws moved by seven steps at beta 0.7 on the device."""
    target = model(kind, name, "cpu")
    space, pi = target.space, exact_pi(target, 0.7)
    states = torch.multinomial(pi, NUM_CHAINS, replacement=True, generator=torch.Generator().manual_seed(1))
    x = space.encode(space.all_codes()[states], torch.float64).cuda()
    generator = torch.Generator("cuda").manual_seed(2)  # not the stream of the states
    chain = run_chain(
        sampler, model(kind, name, "cuda"), x, num_steps=7, generator=generator, beta=0.7, backend=backend
    )
    place = space.num_categories ** torch.arange(space.num_sites - 1, -1, -1)
    ends = (space.decode(chain.x).cpu().long() * place).sum(1)
    observed, expected = torch.bincount(ends, minlength=space.num_states).double(), pi * NUM_CHAINS
    rare = expected < 5
    if rare.any():  # one cell, with the rarest of the others so that it is not too small
        rare[expected.masked_fill(rare, torch.inf).argmin()] = True
        observed, expected = (torch.cat([n[~rare], n[rare].sum()[None]]) for n in (observed, expected))
    return float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)


@needs_cuda
@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("sampler", [GWG(), GWG(1.0), Gibbs()], ids=str)
@pytest.mark.parametrize(("kind", "name"), MODELS[:3])
def test_invariance(kind: str, name: str, sampler: Sampler, backend: str) -> None:
    assert chi_square_p_value(sampler, kind, name, backend) > ALPHA


@needs_cuda
@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("mutation", ["reverse proposal dropped", "stale gradient kept after acceptance"])
def test_power(mutation: str, backend: str) -> None:
    assert chi_square_p_value(mutant(*MUTANTS[mutation]), "mlp", "binary", backend) < ALPHA


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """An error wherever the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_a_synchronisation_is_caught() -> None:
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="synchroniz"), no_synchronisation():
        float(x.sum())


@needs_cuda
@pytest.mark.parametrize("annealed", [False, True], ids=["beta", "schedule"])
@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(("kind", "name"), [*MODELS, ("resnet", "image")])
def test_no_step_synchronises(kind: str, name: str, sampler: Sampler, backend: str, annealed: bool) -> None:
    """The body of ``run_chain`` after a first run of it: draw, step, sum up."""
    target = model(kind, name, "cuda")
    skip_refused(sampler, target)
    x, generator = starts(target, "cuda"), torch.Generator("cuda").manual_seed(0)
    betas = torch.linspace(0.5, 1, 5, dtype=torch.float64, device="cuda")
    with torch.no_grad():
        kernel, frozen = plan_chains(sampler, target, x, beta=None if annealed else betas[0], backend=backend)
        state = kernel.init(frozen, x, betas[0])
        accept_prob = x.new_zeros(len(x))
        state = kernel.temper(frozen, state, betas[0])
        state, _ = kernel.step(frozen, state, kernel.draw(state, generator))
        torch.cuda.synchronize()
        with no_synchronisation():
            for t in range(5):
                if annealed:
                    state = kernel.temper(frozen, state, betas[t])
                state, info = kernel.step(frozen, state, kernel.draw(state, generator))
                accept_prob += info.accept_prob
    assert torch.isfinite(accept_prob).all()


@needs_cuda
def test_a_run_on_cuda_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Two iterations and two more have drawn the same random numbers, and moved the same chains, as four."""
    settings = ["--trainer.accelerator=gpu", "--evaluation.every=0", "--pictures_every=0"]
    calm = checkpoint(run_fit(tmp_path / "calm", *settings, "--trainer.max_steps=4") / "last.ckpt")
    run_fit(tmp_path / "run", *settings, "--trainer.max_steps=2")
    assert checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 2
    run_fit(tmp_path / "run", *settings, "--trainer.max_steps=4", "--ckpt_path=last")
    resumed = checkpoint(tmp_path / "run/last.ckpt")
    assert resumed["global_step"] == 4
    for name in ("generators", "packed"):
        assert torch.equal(resumed["chains"][name], calm["chains"][name]), name
    for name, weight in calm["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], weight, rtol=1e-5, atol=1e-6)
