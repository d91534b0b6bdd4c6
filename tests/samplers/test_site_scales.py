"""A step size for each site: where it comes from, that ranks agree, and that it is worth something."""

import math

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, MLPEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, Target, adapt_kernel, run_chain, site_scales
from gwg_dist.samplers.site_scales import SiteScales
from gwg_dist.spaces import Binary, Categorical, Space


class Linear(Energy):
    """E(x) = -w x, with weights from 0.1 to 5."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.weight = torch.nn.Parameter(torch.linspace(0.1, 5, space.num_sites, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return -x @ self.weight


def scales_of(found: SiteScales) -> Tensor:
    kernel = found.of(DMALA())
    assert isinstance(kernel, DMALA)
    assert kernel.scales is not None
    return torch.tensor(kernel.scales, dtype=torch.float64)


def test_factors_are_those_of_the_gradient() -> None:
    energy, found = Linear(Binary(20)), SiteScales()
    target = Target(energy)
    found.observe(target, torch.zeros(3, 20, dtype=torch.float64))
    scales = scales_of(found)
    assert float(scales.mean()) == pytest.approx(1)
    v = energy.weight.detach().square()
    torch.testing.assert_close(scales / scales[-1], ((v[-1] + 0.001 * v.mean()) / (v + 0.001 * v.mean())).sqrt())


def test_the_differences_of_categories_and_of_the_reference_count() -> None:
    torch.manual_seed(0)
    space = Categorical(4, 3)
    reference = Reference(space)
    reference.fit(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.05, 0.05, 0.9]]))
    target = Target(MLPEnergy(space).double(), reference.double())
    x = space.encode(space.uniform_codes(50, generator=torch.Generator().manual_seed(1)), torch.float64)
    found = SiteScales()
    found.observe(target, x)
    x.requires_grad_()
    (grad,) = torch.autograd.grad((reference.log_prob(x) - target.energy(x)).sum(), x)
    d = grad - (grad * x).sum(-1, keepdim=True)
    torch.testing.assert_close(torch.tensor(found.second), d.square().sum(-1).mean(0) / 2, check_dtype=False)


def test_the_mean_is_over_the_other_categories_of_each_site() -> None:
    """The gradient in the padding counts nowhere."""
    torch.manual_seed(0)
    space = Categorical(3, (2, 4, 3))
    target = Target(MLPEnergy(space).double())
    x = space.encode(space.uniform_codes(50, generator=torch.Generator().manual_seed(1)), torch.float64)
    found = SiteScales()
    found.observe(target, x)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(-target.energy(x).sum(), x)
    d = space.without_padding(grad - (grad * x).sum(-1, keepdim=True), 0.0)
    right = d.square().sum(-1).mean(0) / torch.tensor([1, 3, 2])
    torch.testing.assert_close(torch.tensor(found.second), right, check_dtype=False)


def test_looks_are_averaged_and_the_old_ones_forgotten() -> None:
    energy, found = Linear(Binary(4)), SiteScales(second=[1.0] * 4, looks=1)
    target = Target(energy)
    v = energy.weight.detach().square()
    found.observe(target, torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(torch.tensor(found.second, dtype=torch.float64), (1 + v) / 2)
    again = SiteScales(**found.state())
    assert again == found
    for _ in range(80):
        found.observe(target, torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(torch.tensor(found.second, dtype=torch.float64), v, rtol=0.01, atol=0.01)


def test_the_chains_of_all_ranks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    energy, found = Linear(Binary(4)), SiteScales()
    target = Target(energy)
    monkeypatch.setattr(site_scales, "all_sum", lambda total: total + torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0]))
    found.observe(target, torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(
        torch.tensor(found.second, dtype=torch.float64), (energy.weight.detach().square() + 1) / 2
    )


def test_a_warm_up_finds_them_and_the_chain_moves_more() -> None:
    """Sites that hardly matter may take large steps while stiff ones take small ones."""
    torch.manual_seed(0)

    class Stiff(Energy):
        """A quarter of the sites is held together by a parabola, the others feel next to nothing."""

        def __init__(self, space: Space) -> None:
            super().__init__(space)
            self.weight = torch.nn.Parameter(torch.tensor([2.0] * 8 + [0.05] * 24, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight * x).sum(1).sub(8).square() / 4

    target, x = Target(Stiff(Binary(32))), torch.zeros(100, 32, dtype=torch.float64)
    hops = {}
    for precondition in (False, True):
        generator = torch.Generator().manual_seed(0)
        found = adapt_kernel(DMALA(), target, x, num_steps=400, generator=generator, precondition=precondition)
        chain = run_chain(found.kernel, target, found.x, num_steps=200, generator=generator)
        hops[precondition] = float(chain.hops.mean())
        assert abs(float(chain.accept_prob.mean()) - 0.574) < 0.1
        assert isinstance(found.kernel, DMALA)
        assert (found.kernel.scales is not None) == precondition
    assert hops[True] > 1.1 * hops[False]


def test_what_they_are_not_for_is_named() -> None:
    energy, generator = Linear(Binary(4)), torch.Generator()
    target = Target(energy)
    with pytest.raises(ValueError, match=r"precondition needs a kernel with a step size for each site, .* got GWG"):
        adapt_kernel(GWG(), target, torch.zeros(2, 4), num_steps=9, generator=generator, precondition=True)
    assert SiteScales().of(DMALA()) == DMALA()
    assert SiteScales([1.0]).of(GWG()) == GWG()
    found = SiteScales()
    with torch.no_grad():
        energy.weight.fill_(math.nan)
    found.observe(target, torch.zeros(2, 4, dtype=torch.float64))
    assert found == SiteScales(), "a gradient that is not a number is not taken in"
