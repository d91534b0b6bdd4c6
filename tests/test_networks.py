"""Networks on frozen weights: the forward and the backward pass written out are those of autograd."""

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, MLPEnergy, ResNetEnergy
from gwg_dist.energies.folded import equal_parts
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.structure import Network
from gwg_dist.target import StructuredTarget
from gwg_dist.testing import CheckError, check_energy

SIZES: list[Space] = [
    Binary((4, 4)), Binary((5, 7)), Binary((9, 8)), Binary((3, 6, 5)), Binary((1, 1)), Binary((2, 1)), Binary((1, 6)),
    Categorical((4, 4), 3), Categorical((2, 5, 6), 3),
]  # fmt: skip


def shaken(energy: Energy, dtype: torch.dtype = torch.float64) -> Energy:
    """With biases and a spread of weights at which no part of the network is small."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return energy.to(dtype)


def points(space: Space, num: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return space.encode(space.uniform_codes(num, generator=torch.Generator().manual_seed(1)), dtype)


@pytest.mark.parametrize("space", SIZES, ids=str)
def test_the_folded_network_is_the_network_at_every_border(space: Space) -> None:
    """Even and odd sides, several channels, one-hot images: f and every entry of its gradient, to 1e-12."""
    energy = shaken(ResNetEnergy(space, num_channels=5, num_blocks=1))
    x = points(space, 6)
    found, right = Target(energy).frozen().evaluate(x), Target(energy).plain().evaluate(x)
    torch.testing.assert_close(found.f, right.f, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.grad, right.grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    "energy",
    [MLPEnergy(Binary(6)), MLPEnergy(Categorical(4, 3), num_layers=1), ResNetEnergy(Binary((4, 3)), num_channels=4)],
    ids=["mlp", "categorical mlp", "resnet"],
)
def test_networks_have_a_structure_that_shares_no_memory_with_the_weights(energy: Energy) -> None:
    check_energy(shaken(energy))
    frozen, x = Target(energy).frozen(), points(energy.space, 5)
    assert isinstance(frozen, StructuredTarget)
    assert isinstance(frozen.structure, Network)
    before = frozen.evaluate(x)
    torch.testing.assert_close(frozen.f(x), before.f, rtol=0, atol=1e-12)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(1.0)
    after = frozen.evaluate(x)
    assert torch.equal(before.f, after.f)
    assert torch.equal(before.grad, after.grad)


class ForgetsTheBorder(ResNetEnergy):
    """A mutant: the stem is taken to go on beyond the border."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def structure(self):
        found = super().structure()
        layers = found.layers._replace(front=found.layers.front._replace(edges=()))
        return found._replace(layers=layers, back=layers)


def test_a_fold_without_its_border_is_caught() -> None:
    with pytest.raises(CheckError, match="structure gives another f"):
        check_energy(shaken(ForgetsTheBorder(Binary((4, 4)), num_channels=4)))


@pytest.mark.parametrize(
    ("num", "at_once", "sizes"), [(7, 3, [3, 3, 3]), (8, 4, [4, 4]), (5, 9, [5]), (10, 4, [4] * 3)]
)
def test_parts_are_of_one_size(num: int, at_once: int, sizes: list[int]) -> None:
    x = torch.ones(num, 2)
    parts = equal_parts(x, at_once)
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts)[:num].equal(x)
    assert not torch.cat(parts)[num:].any()
