"""Inputs that once gave a wrong answer without a word: each is answered rightly, or refused with the reason."""

import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.graph import Graph
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, BlockGibbs, Gibbs, Target, plan_chains, run_chain
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.native import LATE, Bound
from gwg_dist.samplers.fast.native.signatures import TABLE, signature
from gwg_dist.samplers.fast.sparse import SparsePairGWG
from gwg_dist.spaces import Binary, Space
from gwg_dist.structure import DensePairs, SparsePairs
from gwg_dist.testing import check_energy, check_invariance, exact_pi, random_target
from gwg_dist.testing.kernels import number_of
from tests.conftest import ROOT

needs_a_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler")


def total_variation(sampler, target: Target, x: Tensor, num_steps: int = 5, beta: float = 1.0) -> float:
    """Between where chains from x end and p_beta."""
    end = run_chain(sampler, target, x, num_steps=num_steps, generator=torch.Generator().manual_seed(1), beta=beta).x
    found = torch.bincount(number_of(target, end), minlength=target.space.num_states).double() / len(x)
    return float((found - exact_pi(target, beta)).abs().sum()) / 2


def exact_starts(target: Target, num: int, dtype: torch.dtype) -> Tensor:
    pi = exact_pi(target, 1.0)
    states = torch.multinomial(pi, num, replacement=True, generator=torch.Generator().manual_seed(0))
    return target.space.encode(target.space.all_codes()[states], dtype)


@pytest.mark.parametrize(
    "energy", [IsingEnergy(Binary(5)), PottsEnergy(Binary(5)), RBMEnergy(Binary(5), num_hidden=4), MLPEnergy(Binary(5)),
               IsingTorusEnergy(Binary((3, 3)))], ids=lambda e: type(e).__name__
)  # fmt: skip
@pytest.mark.parametrize("sampler", [GWG(), BlockGibbs()], ids=str)
def test_chains_that_are_not_row_major(energy: Energy, sampler) -> None:
    target = random_target(energy, spread=0.3, dtype=torch.float32)
    if sampler.refusal(target) is not None:
        pytest.skip("by design: " + sampler.refusal(target))
    x = exact_starts(target, 40_000, torch.float32)
    strided = x.T.contiguous().T
    assert not strided.is_contiguous()
    ends = [run_chain(sampler, target, start, num_steps=6, generator=torch.Generator().manual_seed(1)).x
            for start in (x, strided)]  # fmt: skip
    assert torch.equal(*ends)
    noise = 3 * (target.space.num_states / len(x)) ** 0.5 / 2
    assert total_variation(sampler, target, strided) < noise


class OneNumberForAll(RBMEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum()


class AColumn(RBMEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:1]


@pytest.mark.parametrize("cls", [OneNumberForAll, AColumn])
@pytest.mark.parametrize("backend", ["auto", "plain"])
def test_an_energy_must_be_one_number_a_point(cls: type[RBMEnergy], backend: str) -> None:
    with pytest.raises(ValueError, match=r"must return one energy a point, shape \(6,\), got"):
        run_chain(GWG(), Target(cls(Binary(5))), torch.zeros(6, 5), num_steps=2,
                  generator=torch.Generator(), backend=backend)  # fmt: skip


class InfiniteAtOne(MLPEnergy):
    """Infinite at the point of ones, and its gradient is not a number there."""

    def forward(self, x: Tensor) -> Tensor:
        wall = torch.where(x.sum(1) > x.shape[1] - 0.5, torch.inf, 0.0)
        return super().forward(x) + wall + 0 * (x.shape[1] - x.sum(1)).reciprocal()


@pytest.mark.parametrize("backend", ["auto", "plain"])
@pytest.mark.parametrize("sampler", [GWG(), Gibbs(), Gibbs("systematic")], ids=str)
def test_no_chain_goes_where_the_energy_is_not_a_number(sampler, backend: str) -> None:
    target = random_target(InfiniteAtOne(Binary(4), num_hidden=5))
    x = torch.zeros(4000, 4, dtype=torch.float64)
    x[:, :3] = 1
    generator = torch.Generator().manual_seed(0)
    chain = run_chain(sampler, target, x, num_steps=60, generator=generator, backend=backend)
    assert torch.isfinite(chain.state.f).all()
    assert (chain.x.sum(1) < 4).all()
    assert torch.isfinite(chain.accept_prob).all()
    assert len(chain.x.unique(dim=0)) == 15


@pytest.mark.parametrize("energy", [IsingEnergy(Binary(5)), PottsEnergy(Binary(5)), RBMEnergy(Binary(5), num_hidden=4),
                                    IsingTorusEnergy(Binary((3, 3)))], ids=lambda e: type(e).__name__)  # fmt: skip
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64, torch.float32),
                                    (torch.float64, torch.float64, torch.float32),
                                    (torch.float32, torch.float32, torch.float64),
                                    (torch.float64, torch.float32, torch.float64)], ids=str)  # fmt: skip
@pytest.mark.parametrize("sampler", [GWG(), BlockGibbs()], ids=str)
def test_precisions_that_differ(energy: Energy, dtypes: tuple, sampler) -> None:
    """(energy, reference, x): the right distribution, or an error of torch's."""
    target = random_target(energy, spread=0.3)
    if sampler.refusal(target) is not None:
        pytest.skip("by design: " + sampler.refusal(target))
    pi, x = exact_pi(target, 1.0), exact_starts(target, 40_000, dtypes[2])
    for model, dtype in zip((target.energy, target.reference), dtypes, strict=False):
        assert isinstance(model, nn.Module)
        model.to(dtype)
    try:
        end = run_chain(sampler, target, x, num_steps=8, generator=torch.Generator().manual_seed(1)).x
    except (RuntimeError, TypeError, ValueError):
        return
    found = torch.bincount(number_of(target, end), minlength=len(pi)).double() / len(x)
    assert float((found - pi).abs().sum()) / 2 < 3 * (len(pi) / len(x)) ** 0.5 / 2


class GradientInDouble(MLPEnergy):
    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = super().forward(x)
            return energy.detach(), torch.autograd.grad(energy.sum(), x)[0].double()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_a_closed_form_in_another_precision() -> None:
    target = random_target(GradientInDouble(Binary(5), num_hidden=6), dtype=torch.float32)
    assert target.how == "closed form"
    assert total_variation(GWG(), target, exact_starts(target, 40_000, torch.float32)) < 0.03


@needs_a_compiler
def test_the_sparse_kernel_is_not_taken_where_its_sums_would_cancel() -> None:
    target = Target(IsingTorusEnergy(Binary((4, 4)), sigma=0.5))
    x = torch.zeros(3, 16)
    kernels = [plan_chains(GWG(), target, x, beta=torch.tensor(beta)).kernel for beta in (1.0, 4.0, -4.0)]
    assert [isinstance(kernel, SparsePairGWG) for kernel in kernels] == [True, False, False]


# -- short cuts that are no longer those of the energy -----------------------------------------------------------------


class WrappedCall(RBMEnergy):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + 2 * x[:, 0]


class Plus:
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 2 * x[:, 0]  # type: ignore[misc]


class MixedIn(Plus, RBMEnergy):
    pass


class Delegating(nn.Module):
    """Passes everything on, but for what it adds."""

    def __init__(self, inner: Energy) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 2 * x[:, 0]


def hooked(energy: RBMEnergy) -> RBMEnergy:
    energy.register_forward_hook(lambda module, inputs, output: output + 2 * inputs[0][:, 0])
    return energy


def replaced(energy: RBMEnergy) -> RBMEnergy:
    forward = energy.forward
    energy.forward = lambda x: forward(x) + 2 * x[:, 0]  # type: ignore[method-assign]
    return energy


@pytest.mark.parametrize(
    "make",
    [hooked, replaced, Delegating, None, MixedIn, WrappedCall],
    ids=["hooked", "replaced", "delegating", "as it is", "mixed in", "wrapped call"],
)
def test_short_cuts_are_off_where_the_energy_is_another(make) -> None:
    space = Binary(5)
    if isinstance(make, type) and issubclass(make, RBMEnergy):
        energy = make(space, num_hidden=4, scale=0.5)
    else:
        inner = RBMEnergy(space, num_hidden=4, scale=0.5)
        energy = inner if make is None else make(inner)
    target = Target(energy.double(), Reference(space).double(), space=space)
    offers = make is None
    assert (target.how == "closed form") == offers
    assert (target.frozen() is not target) == offers
    check_invariance(GWG(), target)


class Increments(NamedTuple):
    """Has the fields of a dense model, and is none."""

    rows: Tensor
    weight: Tensor
    columns: Tensor
    visible_bias: Tensor
    neighbours: Tensor

    def start(self, x: Tensor):
        energy = MLPEnergy(Binary(4), num_hidden=3)
        return Target(energy.double()).plain().evaluate(x)

    def move(self, here, x: Tensor, change):
        return self.start(x)


def test_a_structure_is_known_by_its_type_and_not_by_its_fields() -> None:
    class Own(MLPEnergy):
        def structure(self):  # type: ignore[override]
            energy = self

            class Mine(Increments):
                def start(self, x: Tensor):
                    return Target(energy).plain().evaluate(x)

            return Mine(*[torch.zeros(2, 2)] * 5)

    target = random_target(Own(Binary(4), num_hidden=3))
    assert type(plan_chains(GWG(), target, target.encode(target.space.all_codes()), beta=torch.ones(())).kernel) is GWG
    check_invariance(GWG(), target)


class OnAGraph(Energy):
    """f = sum over edges of w x_i x_j, on any graph."""

    def __init__(self, space: Space, edges: list[tuple[int, int]]) -> None:
        super().__init__(space)
        self.graph = Graph(space.num_sites, torch.tensor(edges))
        self.weight = nn.Parameter(torch.linspace(-0.5, 0.8, len(edges)))
        self.edges = edges

    def forward(self, x: Tensor) -> Tensor:
        i, j = torch.tensor(self.edges).T
        return -(x[:, i] * x[:, j]) @ self.weight - 0.3 * x.sum(1)

    def structure(self) -> SparsePairs:
        rows = self.graph.rows(self.weight.detach())
        return SparsePairs(self.graph, rows, rows.new_full((self.space.num_sites,), 0.3), rows.new_zeros(()))


IRREGULAR = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (5, 4)]


@pytest.mark.parametrize("sampler", [GWG(), BlockGibbs()], ids=str)
def test_any_graph(sampler) -> None:
    """Sites of degree 1 to 4: no place left over counts as a neighbour."""
    energy = OnAGraph(Binary(7), IRREGULAR)
    check_energy(OnAGraph(Binary(6), IRREGULAR))
    target = random_target(energy)
    check_invariance(sampler, target, num_steps=8)
    check_invariance(sampler, random_target(energy, dtype=torch.float32), num_steps=8, dtype=torch.float32)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 1), (1, 0)], r"every pair once, got \[0, 1\] twice"),
        ([(2, 2)], r"different sites, got \[2, 2\]"),
        ([(0, 9)], r"lie in 0..4, got 0 to 9"),
    ],
)
def test_a_graph_has_every_pair_once(edges, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(5, torch.tensor(edges))


# -- the rest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(3, 5) * 2 - 1 - 2 * torch.eye(3, 5), "must be 0 or 1"),
        (torch.zeros(3, 4), r"shape \(any, 5\)"),
        (torch.zeros(3, 5, dtype=torch.uint8), "must hold floats"),
        (torch.full((3, 5), torch.nan), "must be 0 or 1"),
    ],
)
def test_what_is_no_point_is_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_chain(GWG(), Target(MLPEnergy(Binary(5))), x, num_steps=1, generator=torch.Generator())


@pytest.mark.parametrize("beta", [float("nan"), float("inf"), torch.ones(4)])
def test_a_beta_that_is_none_is_refused(beta) -> None:
    with pytest.raises(ValueError, match="beta must be"):
        run_chain(GWG(), Target(MLPEnergy(Binary(5))), torch.zeros(3, 5), num_steps=1, generator=torch.Generator(),
                  beta=beta)  # fmt: skip


def test_a_temperature_is_finite() -> None:
    with pytest.raises(ValueError, match="temperature must be positive and finite, got inf"):
        GWG(float("inf"))


def test_dropout_is_off_while_chains_run() -> None:
    class Dropping(MLPEnergy):
        def __init__(self, space: Space) -> None:
            super().__init__(space, num_hidden=6)
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.dropout(x))

    target = random_target(Dropping(Binary(5)))
    energy = target.energy
    assert isinstance(energy, Dropping)
    energy.eval()
    pi = exact_pi(target, 1.0)
    energy.train()
    states = torch.multinomial(pi, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    end = run_chain(GWG(), target, target.encode(target.space.all_codes()[states]), num_steps=5,
                    generator=torch.Generator().manual_seed(1)).x  # fmt: skip
    assert energy.training
    assert energy.dropout.training
    found = torch.bincount(number_of(target, end), minlength=32).double() / 40_000
    assert float((found - pi).abs().sum()) / 2 < 0.03


@pytest.mark.parametrize("energy", [IsingEnergy(Binary(9)), PottsEnergy(Binary(9)), RBMEnergy(Binary(9), num_hidden=4),
                                    IsingTorusEnergy(Binary((3, 3)))], ids=lambda e: type(e).__name__)  # fmt: skip
def test_a_result_is_that_of_the_weights_it_was_run_with(energy: Energy) -> None:
    target = random_target(energy)
    x = target.encode(target.space.uniform_codes(5, generator=torch.Generator().manual_seed(0)))
    chain = run_chain(GWG(), target, x, num_steps=5, generator=torch.Generator().manual_seed(1))
    before = target.f(chain.x)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.mul_(3).add_(0.1)
    torch.testing.assert_close(chain.state.f, before, rtol=0, atol=1e-9)


def test_acceptance_is_summed_in_float64() -> None:
    target = random_target(MLPEnergy(Binary(5)), dtype=torch.float32)
    chain = run_chain(GWG(), target, torch.zeros(3, 5), num_steps=2, generator=torch.Generator().manual_seed(0))
    assert chain.accept_prob.dtype == chain.hops.dtype == torch.float64


@needs_a_compiler
@pytest.mark.parametrize("up", [True, False])
def test_a_sweep_draws_rare_states_as_often_as_they_are(up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site whose probability is 1.3 units of 2^-24 of being off the majority: 24-bit numbers would round it to 2."""
    p = 1.3 * 2.0**-24
    logit = float(torch.logit(torch.tensor(p, dtype=torch.float64)))
    num_sites, num_chains, sweeps = 4000, 250, 60
    space = Binary(num_sites)

    class Field(OnAGraph):
        def __init__(self) -> None:
            super().__init__(space, [(0, 1)])

        def structure(self) -> SparsePairs:
            rows = torch.zeros_like(self.graph.neighbours, dtype=torch.float32)
            return SparsePairs(self.graph, rows, torch.full((num_sites,), -logit if up else logit), torch.zeros(()))

    x = torch.full((num_chains, num_sites), float(up))
    target, generator = Target(Field()), torch.Generator().manual_seed(3)
    kernel, frozen = plan_chains(BlockGibbs(), target, x, beta=torch.ones(()))
    state, rare = kernel.init(frozen, x, torch.ones(())), 0
    for _ in range(sweeps):
        state, _ = kernel.step(frozen, state, kernel.draw(state, generator))
        rare += int((state.x != float(up)).sum())
    expected = p * num_sites * num_chains * sweeps
    assert abs(rare - expected) < 5 * expected**0.5


@needs_a_compiler
def test_no_kernel_in_c_takes_what_is_not_in_its_table() -> None:
    x = torch.zeros(4, 9)
    reference, scale, sums = torch.zeros(9), torch.ones(4), torch.zeros(4, 3, dtype=torch.float64)
    good = [4, 9, 3, x, x.clone(), reference, scale, x.clone(), sums, torch.zeros(4, dtype=torch.float64)]
    Bound("binary_weigh_float", *good)
    for position, bad in ((3, x.double()), (4, x.T.contiguous().T), (8, sums[:, :2].contiguous()), (6, 1.0)):
        arguments = [*good[:position], bad, *good[position + 1 :]]
        with pytest.raises(TypeError, match=f"{signature('binary_weigh_float')[position].name} must be"):
            Bound("binary_weigh_float", *arguments)
    late = Bound("binary_weigh_float", *good[:7], LATE, *good[8:])
    with pytest.raises(TypeError, match="weights must be"):
        late(x[:3].clone())


def test_the_table_is_that_of_the_sources() -> None:
    """Every kernel of the library takes a struct with the fields of its lines: names, order and types."""
    text = "".join(source.read_text() for source in native.SOURCES)
    kinds = {"int64_t": torch.int64, "int32_t": torch.int32, "double": torch.float64, "float": torch.float32,
             "REAL": torch.float32}  # fmt: skip
    for name, table in TABLE.items():
        spelled = next(word for word in (name, name.upper(), name.upper().removesuffix("_STEP"))
                       if f"\nKERNEL({word}) {{" in text)  # fmt: skip
        body = text[text.index(f"\nKERNEL({spelled}) {{") :]
        assert f"const struct {spelled} *a = arguments;" in body[: body.index(";") + 1], name
        start = text.index(f"struct {spelled} {{") + len(f"struct {spelled} {{")
        fields = []
        for declaration in text[start : text.index("};", start)].split(";")[:-1]:
            kind, _, names = declaration.strip().removeprefix("const ").partition(" ")
            fields += [(field.strip("* "), "*" in field, kinds[kind]) for field in names.split(",")]
        full = signature(name if "real" not in table.split() else f"{name}_float")
        assert [field for field, *_ in fields] == [argument.name for argument in full], name
        for (field, is_pointer, kind), argument in zip(fields, full, strict=True):
            assert is_pointer == (argument.kind == "tensor"), (name, field)
            numbers = {"size": torch.int64, "number": torch.float64}
            assert kind == (argument.dtype or numbers[argument.kind]), (name, field)


def test_the_ninth_compiled_case_runs_like_the_first(compiler: None) -> None:
    code = (
        "import torch\n"
        "from gwg_dist.energies import RBMEnergy\n"
        "from gwg_dist.samplers import GWG, Target, run_chain\n"
        "from gwg_dist.spaces import Binary\n"
        "torch._dynamo.config.recompile_limit = 2\n"
        "for size in range(3, 7):\n"
        "    target = Target(RBMEnergy(Binary(size), num_hidden=2))\n"
        "    generator = torch.Generator().manual_seed(0)\n"
        "    run_chain(GWG(), target, torch.zeros(2, size), num_steps=1, generator=generator, backend='compiled')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_making_a_dense_model_ready_is_symmetric() -> None:
    energy = PottsEnergy(Binary(6), scale=1.0)
    structure = energy.structure()
    assert isinstance(structure, DensePairs)
    assert torch.equal(structure.rows, structure.rows.T)
    torch.testing.assert_close(structure.rows, energy.coupling.detach(), rtol=0, atol=0)
