"""Many categories: chains are moved part by part, by the same kernel, in the memory of a part."""

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import MLPEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import ACS, DMALA, GWG, PAS, MultiGWG, Sampler, Target, plan_chains, run_chain
from gwg_dist.samplers.fast import graphs, parts
from gwg_dist.samplers.fast.parts import InParts
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing import check_invariance
from gwg_dist.tools import memory
from tests.support.kernels import make_target
from tests.support.memory import peak_bytes

KERNELS: list[Sampler] = [GWG(), DMALA(), ACS(), PAS(max_length=2), MultiGWG()]
kernels = pytest.mark.parametrize("sampler", KERNELS, ids=lambda sampler: type(sampler).__name__)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything is large, and a part is a few thousand numbers."""
    monkeypatch.setattr(parts, "LARGE", 1)
    monkeypatch.setattr(parts, "PART", 2**13)


@kernels
@pytest.mark.parametrize("shared", [True, False], ids=["one beta", "a beta each"])
def test_parts_move_as_all_chains_together(sampler: Sampler, shared: bool) -> None:
    """With the same noise: 27 chains in parts of 10, along a changing beta, bit for bit."""
    target = make_target(Categorical(3, 3))
    x = target.encode(target.space.all_codes())
    beta = torch.ones((), dtype=torch.float64) if shared else torch.linspace(0, 1, len(x), dtype=torch.float64)
    parted, generator = InParts(sampler, 10), torch.Generator().manual_seed(0)
    apart, together = parted.init(target, x, beta), sampler.init(target, x, beta)
    for factor in (1.0, 0.5, 0.7):
        apart = parted.temper(target, apart, beta * factor)
        together = sampler.temper(target, together, beta * factor)
        noise = parted.draw(apart, generator)
        apart, info = parted.step(target, apart, noise)
        whole = type(noise[0])(*map(torch.cat, zip(*noise, strict=True)))
        together, info_together = sampler.step(target, together, whole)
        assert torch.equal(apart.x, together.x)
        torch.testing.assert_close(apart.f, together.f, rtol=0, atol=1e-12)
        torch.testing.assert_close(info, info_together, rtol=0, atol=1e-12)


@kernels
def test_chains_in_parts_stay_at_the_target(sampler: Sampler, small: None) -> None:
    target = make_target(Categorical(3, 3))
    x = target.encode(target.space.uniform_codes(40_000, generator=torch.Generator().manual_seed(0)))
    assert isinstance(plan_chains(sampler, target, x).kernel, InParts)
    check_invariance(sampler, target, beta=0.8, num_steps=3)


@kernels
@pytest.mark.parametrize(("num_sites", "num_categories"), [(64, 256), (4, 10_000)])
def test_a_run_holds_one_array_of_all_chains(
    sampler: Sampler, num_sites: int, num_categories: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient; at the end x in one piece comes to it. Each of 32 parts makes up to 22 of its size."""
    space, num = Categorical(num_sites, num_categories), 32
    target = Target(MLPEnergy(space, num_hidden=4), Reference(space))
    x = space.encode(space.uniform_codes(num, generator=torch.Generator().manual_seed(0)))

    def run() -> Tensor:
        return run_chain(sampler, target, x, num_steps=2, generator=torch.Generator().manual_seed(0)).x

    def two_steps() -> None:
        kernel, frozen = plan_chains(sampler, target, x)
        state, generator = kernel.init(frozen, x, torch.ones(())), torch.Generator().manual_seed(0)
        for _ in range(2):
            state, _ = kernel.step(frozen, state, kernel.draw(state, generator))

    monkeypatch.setattr(parts, "PART", x.numel() // 32)
    peaks = []
    for number in (x.numel() + 1, x.numel()):
        monkeypatch.setattr(parts, "LARGE", number)
        peaks.append(peak_bytes(run) / x.nbytes)
    assert peaks[0] > 8
    assert peaks[1] < 2 + 22 / 32
    with torch.no_grad():
        assert peak_bytes(two_steps) / x.nbytes < 1 + 22 / 32


def test_what_is_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One-hot chains of many numbers, in equal parts; a single chain is no part."""
    monkeypatch.setattr(parts, "LARGE", 1000)
    monkeypatch.setattr(parts, "PART", 300)
    space, one = Categorical(10, 10), torch.ones(())
    many = torch.zeros(20, 10, 10)
    found = parts.path(GWG(), Target(MLPEnergy(space)), many, one)
    assert isinstance(found, InParts)
    assert found.size == 3
    assert str(found).endswith(", 3 chains at a time")
    assert parts.path(GWG(), Target(MLPEnergy(space)), many[:9], one) is None
    assert parts.path(GWG(), Target(MLPEnergy(Binary(100))), many.flatten(1), one) is None
    wide = Categorical(1, 2000)
    assert parts.path(GWG(), Target(MLPEnergy(wide)), torch.zeros(1, 1, 2000), one) is None
    assert graphs.path(found, Target(MLPEnergy(space)), many, one) is None


def test_what_does_not_fit_is_said_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Categorical(16, 10**9)
    codes = torch.zeros(1000, 16, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"1000 one-hot points of Categorical\(.*\) take 64 TB of memory and .* free"):
        space.encode(codes)
    monkeypatch.setattr(parts, "LARGE", 1)
    monkeypatch.setattr(memory, "WORTH_A_LOOK", 1)
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    small = Categorical(10, 10)
    x = torch.eye(10).expand(4, 10, 10)
    with pytest.raises(ValueError, match=r"4 chains on .* take 3.2 kB of memory and 1 kB are free: fewer"):
        run_chain(GWG(), Target(MLPEnergy(small)), x, num_steps=1, generator=torch.Generator())
