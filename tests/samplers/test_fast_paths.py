"""Every fast path is the same kernel: enumerated, compared with the plain path, and followed for ten thousand steps."""

import copy
import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gwg_dist.draws import block_size
from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.evaluation import ais
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, PAS, Info, SurrogateGWG, Target, plan_chains, run_chain
from gwg_dist.samplers.block_gibbs import BlockGibbs
from gwg_dist.samplers.conditionals import PairConditionals
from gwg_dist.samplers.fast import binary, fastest, native
from gwg_dist.samplers.fast.binary import BinaryGWG
from gwg_dist.samplers.fast.dense import DensePairGWG
from gwg_dist.samplers.fast.in_place import InPlaceGWG, MoveNoise
from gwg_dist.samplers.fast.pair_sweep import PairSweep
from gwg_dist.samplers.fast.sparse import SparsePairGWG
from gwg_dist.spaces import Binary, Categorical, Change, Space
from gwg_dist.target import StructuredTarget
from tests.samplers.test_invariance import ALPHA, chi_square_p_value
from tests.support.kernels import TOLERANCE, assert_exact, exact_pi, make_target, neighbours, paper_proposal

needs_a_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler")


def with_reference(energy: Energy, *, spread: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> Target:
    """Random weights and a random reference."""
    generator = torch.Generator().manual_seed(seed)
    energy = copy.deepcopy(energy).to(dtype)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    space = energy.space
    reference = Reference(space, smoothing=0.1).to(dtype)
    random = torch.rand(space.num_sites, space.num_categories, generator=generator)
    reference.fit(space.without_padding(random).softmax(1))
    return Target(energy, reference)


CASES: dict[str, tuple[type[InPlaceGWG], Energy, float]] = {
    "torus": (SparsePairGWG, IsingTorusEnergy(Binary((3, 3))), 0.15),
    "ising": (DensePairGWG, IsingEnergy(Binary(5)), 0.4),
    "potts": (DensePairGWG, PottsEnergy(Categorical(3, 4)), 0.7),
    "ragged potts": (DensePairGWG, PottsEnergy(Categorical(3, (3, 2, 5))), 0.7),
    "binary potts": (DensePairGWG, PottsEnergy(Binary(7)), 0.7),
    "rbm": (BinaryGWG, RBMEnergy(Binary(6), num_hidden=11), 0.7),
    "wide rbm": (BinaryGWG, RBMEnergy(Binary(3), num_hidden=1100), 0.2),
    "mlp": (BinaryGWG, MLPEnergy(Binary(7), num_hidden=8), 1.0),
    "deep mlp": (BinaryGWG, MLPEnergy(Binary(6), num_hidden=5, num_layers=3), 1.0),
    "resnet": (BinaryGWG, ResNetEnergy(Binary((3, 2)), num_channels=3, num_blocks=1), 0.7),
}


# -- the transition matrix of kernels that work in place ---------------------------------------------------------------


def in_place_matrix(sampler: InPlaceGWG, target: Target, beta: float) -> Tensor:
    """P: the paper's proposal times the kernel's acceptance, every move of every state forced once."""
    space, moves = target.space, neighbours(target.space)
    q = paper_proposal(target, beta, sampler.temperature)
    rows = torch.tensor([(s, move, s_new) for s, found in enumerate(moves) for move, s_new in found])
    source, move, destination = rows.T
    size = block_size(space.num_sites) if isinstance(space, Binary) else space.num_categories
    blocks = torch.nn.functional.pad(q, (0, -q.shape[1] % size)).unflatten(1, (-1, size))[source]
    sums, block = blocks.sum(2), move // size
    chain = torch.arange(len(rows))
    inside = blocks[chain, block]
    uniform = torch.stack([middle(sums, block), middle(inside, move % size), torch.zeros(len(rows)).double()])

    frozen, beta_tensor = target.frozen(), torch.tensor(beta, dtype=torch.float64)
    codes = space.all_codes()
    x = space.encode(codes[source], torch.float64)
    accepted, info = sampler.step(frozen, sampler.init(frozen, x, beta_tensor), MoveNoise(uniform))
    assert torch.equal(space.decode(accepted.x), codes[destination]), "the move did not lead where it should"
    assert (info.hops == 1).all()
    uniform[2] = 1 - 1e-16
    rejected, again = sampler.step(frozen, sampler.init(frozen, x, beta_tensor), MoveNoise(uniform))
    assert torch.equal(info.accept_prob, again.accept_prob)
    for after in (accepted, rejected):
        fresh = sampler.init(frozen, after.x, beta_tensor)
        for name in {"position", "slope", "grad", "weights", "sums"} & set(vars(fresh)):
            kept, right = getattr(after, name), getattr(fresh, name)  # -inf in the padding
            assert torch.isclose(kept, right, rtol=0, atol=1e-11).all(), f"stale {name}"
        assert (after.f - target.f(after.x)).abs().max() < TOLERANCE

    matrix = torch.zeros(len(codes), len(codes), dtype=torch.float64)
    matrix[source, destination] = q[source, move] * info.accept_prob
    matrix.diagonal().copy_(1 - matrix.sum(1))
    return matrix


def middle(weights: Tensor, index: Tensor) -> Tensor:
    """The uniform number in the middle of an index's share."""
    probs = weights / weights.sum(1, keepdim=True)
    at = torch.arange(len(index))
    return probs.cumsum(1)[at, index] - probs[at, index] / 2


@needs_a_compiler
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("name", CASES)
def test_detailed_balance_of_kernels_in_c(name: str, temperature: float) -> None:
    kind, energy, spread = CASES[name]
    for beta in (0.0, 0.6, 1.0):
        target = with_reference(energy, spread=spread)
        assert_exact(in_place_matrix(kind(temperature), target, beta), exact_pi(target, beta))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_detailed_balance_of_the_lattice_without_a_compiler(temperature: float, monkeypatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    target = with_reference(CASES["torus"][1], spread=0.15)
    assert_exact(in_place_matrix(SparsePairGWG(temperature), target, 0.6), exact_pi(target, 0.6))


@dataclass(frozen=True)
class AlwaysAccepts(SparsePairGWG):
    """A mutant."""

    def step(self, target, state, noise):
        state, info = super().step(target, state, MoveNoise(noise.uniform * torch.tensor([[1.0], [1.0], [0.0]])))
        return state, Info(torch.ones_like(info.accept_prob), info.hops)


@dataclass(frozen=True)
class WrongTemperature(DensePairGWG):
    """A mutant: proposes with one τ and corrects for another."""

    def init(self, target, x, beta):
        state = super().init(target, x, beta)
        state.kernel.values.temperature = self.temperature + 1
        return state


@needs_a_compiler
@pytest.mark.parametrize(("mutant", "name"), [(AlwaysAccepts(), "torus"), (WrongTemperature(), "potts")])
def test_mutants_of_kernels_in_c_are_caught(mutant: InPlaceGWG, name: str) -> None:
    target = with_reference(CASES[name][1], spread=CASES[name][2])
    with pytest.raises(AssertionError):
        assert_exact(in_place_matrix(mutant, target, 1.0), exact_pi(target, 1.0))


@needs_a_compiler
def test_which_paths_take_sites_of_different_sizes() -> None:
    """Steps and sweeps of dense pairs do; those of many sites are for binary points."""
    target = with_reference(PottsEnergy(Categorical(3, (3, 2, 5))), spread=0.5)
    x = target.encode(target.space.all_codes())
    for kernel, path in ((GWG(), DensePairGWG), (BlockGibbs(), PairSweep), (DMALA(), DMALA), (PAS(), PAS)):
        assert isinstance(fastest(kernel, target.frozen(), x, torch.ones(())), path)
    with pytest.raises(AssertionError):
        assert_exact(in_place_matrix(ProposesThePadding(), target, 1.0), exact_pi(target, 1.0))


@dataclass(frozen=True)
class ProposesThePadding(DensePairGWG):
    """A mutant: weights of the padding are finite."""

    def init(self, target, x, beta):
        state = super().init(target, x, beta)
        state.slope.nan_to_num_(neginf=0.0)
        return state


# -- as they are run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_chains_stay_at_the_target(name: str, dtype: torch.dtype, backend: str) -> None:
    _, energy, spread = CASES[name]
    target = with_reference(energy, spread=spread, dtype=dtype)
    assert chi_square_p_value(GWG(), target, beta=0.8, num_steps=9, backend=backend, dtype=dtype) > ALPHA


LARGE: dict[str, Energy] = {
    "torus": IsingTorusEnergy(Binary((12, 12)), sigma=0.15),
    "ising": IsingEnergy(Binary(60), scale=0.05),
    "potts": PottsEnergy(Categorical(20, 5), scale=0.2),
    "rbm": RBMEnergy(Binary(100), num_hidden=40, scale=0.3),
    "mlp": MLPEnergy(Binary(100), num_hidden=12),
}


@pytest.mark.parametrize("special", [False, True], ids=["whole arrays", "specialised"])
@pytest.mark.parametrize("name", LARGE)
def test_increments_are_from_scratch_to_rounding_over_ten_thousand_steps(name: str, special: bool) -> None:
    """Without a refresh, in float32: drift of the gradient below 1e-4 of its size."""
    energy = LARGE[name]
    target = Target(energy, Reference(energy.space)).frozen()
    sampler, generator, beta = GWG(), torch.Generator().manual_seed(0), torch.ones(())
    x = energy.space.encode(energy.space.uniform_codes(4, generator=generator))
    kernel = fastest(sampler, target, x, beta) if special else sampler
    with torch.no_grad():
        state: Any = kernel.init(target, x, beta)
        for _ in range(10_000):
            state, _ = kernel.step(target, state, kernel.draw(state, generator))
        fresh: Any = kernel.init(target, state.x, beta)
    assert not torch.equal(state.x, x)
    if special and kernel is not sampler:
        pairs = [(getattr(state, name), getattr(fresh, name)) for name in {"slope", "grad", "f"} & set(vars(fresh))]
        pairs.append((state.sums.log(), fresh.sums.log()))
    else:
        pairs = [(state.evaluation.grad, fresh.evaluation.grad), (state.f, fresh.f)]
    for followed, scratch in pairs:
        assert (followed - scratch).abs().max() < 1e-4 * (1 + scratch.abs().max())


@pytest.mark.parametrize("name", LARGE)
def test_increments_move_as_they_start(name: str) -> None:
    """After any move: value, gradient and what else is carried, in float64 to 1e-10."""
    energy = copy.deepcopy(LARGE[name]).double()
    space, target = energy.space, Target(energy).frozen()
    generator = torch.Generator().manual_seed(1)
    x = space.encode(space.uniform_codes(50, generator=generator), torch.float64)
    site = torch.randint(space.num_sites, (50,), generator=generator)
    old = space.category_at(x, site)
    change = Change(site, old, (old + 1) % space.num_categories)
    y = space.apply(x, change)
    moved, scratch, plain = target.move(target.evaluate(x), y, change), target.evaluate(y), target.plain().evaluate(y)
    for found in (moved, scratch):
        torch.testing.assert_close(found.f, plain.f, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.grad, plain.grad, rtol=0, atol=1e-10)


def test_a_refresh_changes_nothing_but_rounding(monkeypatch) -> None:
    energy = RBMEnergy(Binary(30), num_hidden=10, scale=0.5).double()
    x = energy.space.encode(energy.space.uniform_codes(8, generator=torch.Generator().manual_seed(0)), torch.float64)
    ends = []
    for every in (0, 7):
        monkeypatch.setattr(StructuredTarget, "refresh_every", every)
        generator = torch.Generator().manual_seed(1)
        ends.append(run_chain(GWG(), Target(energy), x, num_steps=60, generator=generator, backend="eager").x)
    assert torch.equal(*ends)


# -- what is picked ----------------------------------------------------------------------------------------------------


@needs_a_compiler
@pytest.mark.parametrize(
    ("energy", "fixed", "annealed"),
    [
        (LARGE["torus"], "SparsePairGWG", "GWG"),
        (LARGE["ising"], "DensePairGWG", "GWG"),
        (LARGE["potts"], "DensePairGWG", "GWG"),
        (LARGE["rbm"], "BinaryGWG", "BinaryGWG"),
        (MLPEnergy(Binary(9)), "BinaryGWG", "BinaryGWG"),
        (MLPEnergy(Categorical(9, 3)), "GWG", "GWG"),
        (IsingTorusEnergy(Binary((4, 4)), sigma=8.0), "GWG", "GWG"),
    ],
)
def test_the_fastest_exact_way_is_picked_without_a_flag(energy: Energy, fixed: str, annealed: str) -> None:
    x = energy.space.encode(energy.space.uniform_codes(3, generator=torch.Generator().manual_seed(0)))
    for name, beta in ((fixed, torch.ones(())), (annealed, None)):
        plan = plan_chains(GWG(), Target(energy), x, beta=beta)
        assert type(plan.kernel).__name__ == name
        assert isinstance(plan.target, StructuredTarget)
    plain = plan_chains(GWG(), Target(energy), x, backend="plain")
    assert type(plain.kernel) is GWG
    assert type(plain.target) is Target
    assert plain.target.how == "autograd"


@dataclass(frozen=True)
class Mine(GWG):
    """A user's variant."""


def test_a_subclass_of_the_sampler_is_run_as_it_is() -> None:
    energy = MLPEnergy(Binary(9))
    plan = plan_chains(Mine(), Target(energy), torch.zeros(2, 9))
    assert type(plan.kernel) is Mine


@needs_a_compiler
@pytest.mark.parametrize("energy", [LARGE["rbm"], MLPEnergy(Binary(20), num_hidden=6)], ids=["rbm", "mlp"])
def test_annealing_in_c_is_annealing(energy: Energy) -> None:
    """f in the state is that of the target along a schedule, and the estimate agrees with the plain path's."""
    target = Target(energy, Reference(energy.space))
    seen: list[float] = []

    def look(t: int, state) -> None:
        seen.append(float((state.f - target.f(state.x)).abs().max()))

    x = energy.space.encode(energy.space.uniform_codes(6, generator=torch.Generator().manual_seed(0)))
    run_chain(
        GWG(), target, x, num_steps=50, generator=torch.Generator().manual_seed(1),
        schedule=torch.linspace(0.02, 1, 50), before_step=look,
    )  # fmt: skip
    assert len(seen) == 50
    assert max(seen) < 1e-3
    estimates = [
        ais(
            target, GWG(), generator=torch.Generator().manual_seed(2), num_chains=400, num_temperatures=100,
            backend=backend,
        )
        for backend in ("auto", "plain")
    ]  # fmt: skip
    spread = sum(estimate.stderr**2 for estimate in estimates) ** 0.5
    assert abs(estimates[0].log_z - estimates[1].log_z) < 5 * spread


def test_a_subclass_that_changes_its_energy_is_not_trusted_with_increments() -> None:
    class Shifted(RBMEnergy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + x.sum(1)

    assert isinstance(Target(RBMEnergy(Binary(5))).frozen(), StructuredTarget)
    assert type(Target(Shifted(Binary(5))).frozen()) is Target


def test_how_chains_run_is_logged_once(caplog) -> None:
    energy = MLPEnergy(Binary(7), num_hidden=3)
    x = energy.space.encode(energy.space.uniform_codes(3, generator=torch.Generator().manual_seed(0)))
    with caplog.at_level(logging.INFO, logger="gwg_dist"):
        for _ in range(3):
            run_chain(GWG(2.125), Target(energy), x, num_steps=1, generator=torch.Generator().manual_seed(0))
    kernel = GWG(2.125) if native.library() is None else BinaryGWG(2.125)
    said = [record.message for record in caplog.records if record.name == "gwg_dist"]
    assert said == [f"chains: {kernel} on MLPEnergy by Perceptron"]


def test_nothing_is_compiled_again_for_new_weights_betas_or_averages(compiler: None) -> None:
    energy = RBMEnergy(Binary(12), num_hidden=5, scale=0.3)
    average = RBMEnergy(Binary(12), num_hidden=5, scale=0.1)
    target, generator = Target(energy, Reference(energy.space)), torch.Generator().manual_seed(0)
    x = energy.space.encode(energy.space.uniform_codes(6, generator=generator))
    schedule = torch.linspace(0, 1, 4)

    def run() -> None:
        run_chain(GWG(), target, x, num_steps=3, generator=generator, beta=torch.rand(()), backend="compiled")
        run_chain(GWG(), target, x, num_steps=4, generator=generator, schedule=schedule, backend="compiled")

    run()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert before >= 2
    for _ in range(3):
        with torch.no_grad():
            for parameter, other in zip(energy.parameters(), average.parameters(), strict=True):
                held = parameter.clone()
                parameter.copy_(other)
                other.copy_(held * 1.1)
        run()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_every_setting_of_a_kernel_is_compiled_for_itself(compiler: None) -> None:
    """A tuned kernel is many kernels: torch would stop compiling one function anew after its limit."""
    target, generator = Target(RBMEnergy(Binary(13), num_hidden=5, scale=0.3)), torch.Generator().manual_seed(0)
    x = target.space.encode(target.space.uniform_codes(6, generator=generator))
    with torch._dynamo.config.patch(recompile_limit=2):
        for temperature in (1.9, 2.0, 2.1, 2.2):
            run_chain(GWG(temperature), target, x, num_steps=1, generator=generator, backend="compiled")


# -- reduced precision -------------------------------------------------------------------------------------------------


class BadSurrogate(SurrogateGWG):
    """Its surrogate is another model altogether."""

    def surrogate(self, target: Target) -> Target:
        energy = target.energy
        return Target(lambda x: 0.6 * energy(x) + 0.3 * x.flatten(1).sum(1), target.reference, space=target.space)


class NeverCorrected(BadSurrogate):
    def step(self, target, state, noise):
        return super().step(target, state, noise._replace(accept=torch.zeros_like(noise.accept) - 1))


@pytest.mark.parametrize("name", ["binary", "categorical"])
def test_a_surrogate_block_is_exact_however_bad_the_surrogate(name: str) -> None:
    spaces: dict[str, Space] = {"binary": Binary(5), "categorical": Categorical(3, 3)}
    target = make_target(spaces[name])
    assert chi_square_p_value(BadSurrogate(block=4), target, beta=0.9, num_steps=3) > ALPHA
    assert chi_square_p_value(NeverCorrected(block=4), target, beta=0.9, num_steps=3) < ALPHA


def test_bfloat16_is_used_and_corrected() -> None:
    target = with_reference(MLPEnergy(Binary(5), num_hidden=8), spread=2.0, dtype=torch.float32)
    sampler = SurrogateGWG(block=4)
    x = target.space.encode(target.space.all_codes())
    gap = sampler.surrogate(target).f(x) - target.f(x)
    assert 1e-3 < gap.abs().max() < 1
    assert chi_square_p_value(sampler, target, beta=1.0, num_steps=3, dtype=torch.float32) > ALPHA


def test_a_surrogate_in_full_precision_accepts_every_block() -> None:
    target = make_target(Binary(5))
    x = target.space.encode(target.space.all_codes(), torch.float64)
    generator = torch.Generator().manual_seed(0)
    chain = run_chain(SurrogateGWG(precision="float32"), target, x, num_steps=4, generator=generator)
    assert chain.accept_prob.min() > 1 - 1e-12


# -- block Gibbs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6), (3, 3), (5, 4, 3)])
def test_no_two_neighbours_have_one_colour(shape: tuple[int, ...]) -> None:
    energy = IsingTorusEnergy(Binary(shape))
    graph = energy.graph
    assert (graph.colour[:, None] != graph.colour[graph.neighbours]).all()
    assert int(graph.colour.max()) + 1 == 2 or any(length % 2 for length in shape)
    order = torch.cat(graph.blocks)
    assert torch.equal(order.sort().values, torch.arange(energy.space.num_sites))


def test_block_conditionals_are_those_of_the_enumerated_model() -> None:
    target = with_reference(IsingTorusEnergy(Binary((3, 3))), spread=0.3)
    codes, pi = target.space.all_codes().long(), exact_pi(target, 0.7)
    sampler, beta = BlockGibbs(), torch.tensor(0.7, dtype=torch.float64)
    state = sampler.init(target, target.space.encode(codes, torch.float64), beta)
    assert isinstance(state.blocks, PairConditionals)
    place = 2 ** torch.arange(8, -1, -1)
    index = (codes * place).sum(1)
    for colour in state.blocks.blocks:
        probability = state.blocks.probability(state.x, colour, beta)
        for column, site in enumerate(colour.tolist()):
            other = index + place[site] * (1 - 2 * codes[:, site])
            on = torch.where(codes[:, site] == 1, pi[index], pi[other])
            torch.testing.assert_close(probability[:, column], on / (pi[index] + pi[other]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_a_compiler), False], ids=["in C", "in torch"])
def test_a_sweep_leaves_the_target_invariant(compiled: bool, monkeypatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    target = with_reference(IsingTorusEnergy(Binary((3, 3))), spread=0.3, dtype=torch.float32)
    assert chi_square_p_value(BlockGibbs(), target, beta=0.8, num_steps=3, dtype=torch.float32) > ALPHA


def test_block_gibbs_names_the_energy_that_it_cannot_sweep() -> None:
    target = Target(MLPEnergy(Binary(9)))
    with pytest.raises(ValueError, match=r"BlockGibbs needs .* such as IsingTorusEnergy or PottsEnergy; got MLPEnergy"):
        run_chain(BlockGibbs(), target, torch.zeros(2, 9), num_steps=1, generator=torch.Generator())


@needs_a_compiler
@pytest.mark.parametrize("name", ["rbm", "mlp"])
def test_memory_of_a_run_serves_the_next_run_and_nobody_else(name: str) -> None:
    """Neither what a run returned nor a run that is going on is touched by another; new weights are taken up."""
    target = with_reference(CASES[name][1], spread=CASES[name][2])
    x = target.encode(target.space.all_codes())

    def run(seed: int, inner: bool = False) -> tuple[Tensor, Tensor]:
        def look(t: int, state: Any) -> None:
            if inner:
                run(9)

        generator = torch.Generator().manual_seed(seed)
        chain = run_chain(GWG(), target, x, num_steps=5, generator=generator, before_step=look)
        return chain.x, chain.state.f

    assert isinstance(target.energy, torch.nn.Module)
    binary.FREE.clear()
    first = run(0)
    kept = [part.clone() for part in first]
    run(1)
    for found in (first, run(0), run(0, inner=True)):
        assert all(map(torch.equal, found, kept))
    with torch.no_grad():
        next(target.energy.parameters()).mul_(-1.5)
    again = run(0)
    binary.FREE.clear()
    assert all(map(torch.equal, again, run(0)))
    assert not torch.equal(again[1], kept[1])
