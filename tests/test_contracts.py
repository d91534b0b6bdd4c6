"""What every energy, sampler, objective and chain source keeps, found by walking the package."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
import torch

import gwg_dist
from gwg_dist.batch import Batch
from gwg_dist.chains import ChainBuffer, ChainSource, Start, StartAndKeep
from gwg_dist.energies import Energy, MLPEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.objectives import Objective
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, ChainResult, Sampler, Target, run_chain
from gwg_dist.spaces import Binary, Categorical, Space


def walk(base: type) -> list[type]:
    """Every concrete subclass defined in the package."""
    for module in pkgutil.walk_packages(gwg_dist.__path__, "gwg_dist."):
        importlib.import_module(module.name)

    def below(cls: type) -> list[type]:
        return [sub for direct in cls.__subclasses__() for sub in (direct, *below(direct))]

    found = {c for c in below(base) if c.__module__.startswith("gwg_dist.") and not inspect.isabstract(c)}
    return sorted(found, key=lambda c: c.__name__)


SPACES: list[Space] = [Binary((4, 4)), Categorical((4, 4), 3), Categorical((4, 4), (2, 3, 4, 2) * 4)]


def build(cls: type[Energy], space: Space) -> Energy:
    torch.manual_seed(0)
    try:
        energy = cls(space)
    except ValueError as error:
        pytest.skip(f"by design: {error}")
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return energy.double()


def points(space: Space, num: int = 6) -> torch.Tensor:
    return space.encode(space.uniform_codes(num, generator=torch.Generator().manual_seed(1)), torch.float64)


energies = pytest.mark.parametrize("cls", walk(Energy), ids=lambda c: c.__name__)
samplers = pytest.mark.parametrize("cls", walk(Sampler), ids=lambda c: c.__name__)
spaces = pytest.mark.parametrize("space", SPACES, ids=["binary", "categorical", "ragged"])


def target_for(cls: type[Sampler], space: Space, usual: type[Energy] = MLPEnergy) -> Target:
    """The usual energy, or the first in the package that the sampler takes on this space."""
    refused = {}
    for energy in [usual, *walk(Energy)]:
        try:
            target = Target(energy(space), Reference(space))
        except ValueError:
            continue
        refused[energy.__name__] = cls().refusal(target)
        if refused[energy.__name__] is None:
            return Target(build(energy, space), Reference(space).double())
    pytest.skip(f"by design: {refused}")


def test_every_sampler_takes_something() -> None:
    """No sampler is skipped everywhere."""
    for cls in walk(Sampler):
        taken = []
        for space in SPACES:
            try:
                taken.append(target_for(cls, space))
            except pytest.skip.Exception:
                continue
        assert taken, cls


def test_the_walk_finds_them() -> None:
    assert {c.__name__ for c in walk(Energy)} >= {
        "IsingEnergy",
        "IsingTorusEnergy",
        "RBMEnergy",
        "MLPEnergy",
        "ResNetEnergy",
    }
    assert {c.__name__ for c in walk(Sampler)} >= {"GWG", "Gibbs"}
    assert walk(Objective)
    assert walk(ChainSource)


@samplers
def test_what_may_be_tuned_is_a_positive_number_of_the_kernel(cls: type[Sampler]) -> None:
    assert 0 < cls.target_acceptance < 1
    if cls.tunable is None:
        assert cls().adapted(0.1, gain=1.0) == cls()
        return
    assert cls.tunable in {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    value = getattr(cls(), cls.tunable)
    assert type(value) in (int, float)
    assert value > 0
    higher, lower = (cls().adapted(accept_prob, gain=0.5) for accept_prob in (1.0, 0.0))
    assert (getattr(higher, cls.tunable) - getattr(lower, cls.tunable)) * (-1 if cls.acceptance_rises else 1) >= 0


@samplers
def test_a_retreat_is_from_poor_kernels_alone_and_ends(cls: type[Sampler]) -> None:
    assert cls().retreat(1.0) is None
    sampler, retreats = cls(), 0
    while (retreat := sampler.retreat(0.0)) is not None:
        assert retreat.steps >= 1
        sampler, retreats = retreat.sampler, retreats + 1
        assert retreats < 5


@energies
@spaces
def test_energy_is_one_number_a_point_whatever_the_batch(cls: type[Energy], space: Space) -> None:
    energy, x = build(cls, space), points(space)
    together = energy(x)
    assert together.shape == (6,)
    assert together.dtype == torch.float64
    alone = torch.cat([energy(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    assert together.std() > 0


@energies
@spaces
def test_gradient_reaches_every_parameter_and_every_site(cls: type[Energy], space: Space) -> None:
    energy, x = build(cls, space), points(space).requires_grad_()
    grads = torch.autograd.grad(energy(x).square().sum(), [x, *energy.parameters()])
    assert (grads[0].abs().flatten(2 if grads[0].ndim > 2 else 1).amax(0) > 0).all()
    names = [name for name, _ in energy.named_parameters()]
    assert [name for name, grad in zip(names, grads[1:], strict=True) if not grad.abs().max() > 0] == []


@energies
@spaces
def test_closed_form_is_the_gradient(cls: type[Energy], space: Space) -> None:
    energy, x = build(cls, space), points(space).requires_grad_()
    value = energy(x)
    (grad,) = torch.autograd.grad(value.sum(), x)
    evaluation = Target(energy).evaluate(x.detach())
    torch.testing.assert_close(evaluation.f, -value.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(evaluation.grad, -grad, rtol=0, atol=1e-10)
    assert not evaluation.f.requires_grad
    assert not evaluation.grad.requires_grad


def test_a_closed_form_does_not_outlive_its_forward() -> None:
    """A subclass that changes E and not its closed form is differentiated, not trusted."""

    class Shifted(RBMEnergy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 3 * x.sum(1)

    space = Binary(5)
    energy = Shifted(space).double()
    x = points(space)
    torch.testing.assert_close(Target(energy).evaluate(x).f, -energy(x).detach(), rtol=0, atol=1e-12)
    assert Target(RBMEnergy(space)).how == "closed form"
    assert Target(energy).how == "autograd"


@samplers
@spaces
def test_sampler_is_a_pure_function_that_stays_in_the_space(cls: type[Sampler], space: Space) -> None:
    target = target_for(cls, space)
    x = points(space)
    before = x.clone()
    sampler = cls()
    chains = [run_chain(sampler, target, x, num_steps=12, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(x, before)
    assert torch.equal(chains[0].x, chains[1].x)
    assert torch.equal(space.encode(space.decode(chains[0].x), torch.float64), chains[0].x)
    assert not torch.equal(chains[0].x, x)
    torch.testing.assert_close(chains[0].state.f, target.f(chains[0].x), rtol=0, atol=1e-10)
    assert ((chains[0].accept_prob >= 0) & (chains[0].accept_prob <= 1)).all()
    assert isinstance(target.energy, Energy)
    assert all(parameter.grad is None for parameter in target.energy.parameters())
    assert hash(sampler) == hash(cls())


@samplers
def test_sampler_works_on_one_chain(cls: type[Sampler]) -> None:
    space = Binary((4, 4))
    target = target_for(cls, space, ResNetEnergy)
    chain = run_chain(cls(), target, points(space, 1), num_steps=3, generator=torch.Generator().manual_seed(0))
    assert chain.x.shape == (1, 16)


@pytest.mark.parametrize("cls", walk(ChainSource), ids=lambda c: c.__name__)
@spaces
def test_chain_source_advances_a_chain_for_every_point(cls: type[ChainSource], space: Space) -> None:
    generator = torch.Generator().manual_seed(0)
    data = space.uniform_codes(10, generator=generator)
    target = Target(build(MLPEnergy, space), Reference(space).double())
    source = cls()
    source.setup(space, Reference(space), data, generator=generator)
    batch = Batch(data, torch.ones(10))
    chain = source.advance(GWG(), target, batch, num_steps=3, generator=generator)
    assert chain.x.shape == target.encode(data).shape
    assert chain.x.dtype == torch.float64
    space.check_codes(space.decode(chain.x))
    assert source.may_veto or source.accepts(target)


@spaces
def test_a_source_may_give_start_and_keep_or_advance_alone(space: Space) -> None:
    """Chains that are started anew, and chains that move by themselves."""
    kept: list[torch.Tensor] = []

    class Zeros(StartAndKeep):
        def start(self, data: torch.Tensor, *, generator: torch.Generator) -> Start:
            return Start(torch.zeros_like(data), torch.arange(len(data)))

        def keep(self, start: Start, codes: torch.Tensor) -> None:
            kept.append(codes)

    class TwoTemperatures(ChainSource):
        def advance(self, kernel, target, batch, *, num_steps, generator, backend="auto") -> ChainResult:
            x = target.encode(batch.codes)
            hot = run_chain(kernel, target, x, num_steps=num_steps, generator=generator, beta=0.5)
            return run_chain(kernel, target, hot.x, num_steps=num_steps, generator=generator)

    generator = torch.Generator().manual_seed(0)
    batch = Batch(space.uniform_codes(5, generator=generator), torch.ones(5))
    target = Target(build(MLPEnergy, space))
    chain = Zeros().advance(GWG(), target, batch, num_steps=2, generator=generator)
    assert torch.equal(kept[0], space.decode(chain.x))
    assert ((kept[0] != 0).sum(1) <= 2).all()
    assert TwoTemperatures().advance(GWG(), target, batch, num_steps=2, generator=generator).x.shape == chain.x.shape


def test_buffer_keeps_what_it_is_given() -> None:
    space = Binary(9)
    generator = torch.Generator().manual_seed(0)
    data = torch.ones(10, 9, dtype=torch.uint8)
    buffer = ChainBuffer(size=30)
    buffer.setup(space, Reference(space), data, generator=generator)
    start = buffer.start(data, generator=generator)
    assert len(start.rows.unique()) == 10
    before = space.unpack(buffer.packed).clone()
    buffer.keep(start, data)
    after = space.unpack(buffer.packed)
    untouched = torch.ones(30, dtype=torch.bool)
    untouched[start.rows] = False
    assert torch.equal(after[start.rows], data)
    assert torch.equal(after[untouched], before[untouched])


@pytest.mark.parametrize("init", ["reference", "data", "uniform"])
def test_where_chains_are_born(init: str) -> None:
    space = Binary(64)
    generator = torch.Generator().manual_seed(0)
    ones = torch.tensor([[0.0, 1.0]]).expand(64, 2)
    reference = Reference(space, smoothing=1e-6).fit(ones)
    buffer = ChainBuffer(size=100, init=init)
    buffer.setup(space, reference, torch.zeros(5, 64, dtype=torch.uint8), generator=generator)
    mean = float(space.unpack(buffer.packed).float().mean())
    assert abs(mean - {"reference": 1.0, "data": 0.0, "uniform": 0.5}[init]) < 0.05


def test_restarts_come_from_the_reference_at_their_rate() -> None:
    space = Binary(16)
    generator = torch.Generator().manual_seed(0)
    reference = Reference(space, smoothing=1e-9).fit(torch.tensor([[0.0, 1.0]]).expand(16, 2))
    buffer = ChainBuffer(size=4000, init="data", restart_prob=0.25)
    data = torch.zeros(4000, 16, dtype=torch.uint8)
    buffer.setup(space, reference, data, generator=generator)
    restarted = buffer.start(data, generator=generator).codes.float().mean(1)
    assert set(restarted.tolist()) == {0.0, 1.0}
    assert abs(float(restarted.mean()) - 0.25) < 0.04


def test_resnet_is_the_papers() -> None:
    energy = ResNetEnergy(Binary((28, 28)))
    assert sum(parameter.numel() for parameter in energy.parameters()) == 599_873
    for shape in ((8, 8), (1, 28, 28), (3, 5, 9)):
        assert ResNetEnergy(Binary(shape), num_channels=4)(torch.zeros(2, Binary(shape).num_sites)).shape == (2,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChainBuffer(size=0), "size must be positive, got 0"),
        (lambda: ChainBuffer(restart_prob=1.5), r"restart_prob must lie in \[0, 1\], got 1.5"),
        (lambda: ChainBuffer(init="noise"), "init must be one of reference, data, uniform, got 'noise'"),
        (lambda: ResNetEnergy(Binary(9)), r"shape \(H, W\) or \(C, H, W\)"),
    ],
)
def test_bad_settings_name_themselves(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_larger_than_the_buffer_is_refused() -> None:
    space = Binary(4)
    generator = torch.Generator().manual_seed(0)
    buffer = ChainBuffer(size=5)
    data = torch.zeros(6, 4, dtype=torch.uint8)
    buffer.setup(space, Reference(space), data, generator=generator)
    with pytest.raises(ValueError, match=r"size must be at least data\.batch_size, got 5 and 6"):
        buffer.start(data, generator=generator)
