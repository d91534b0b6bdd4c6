"""Networks on frozen weights: the forward and the backward pass written out are those of autograd."""

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, MLPEnergy, ResNetEnergy
from gwg_dist.energies.embedding import table_of
from gwg_dist.energies.folded import equal_parts
from gwg_dist.energies.mlp import Perceptron
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
    [
        MLPEnergy(Binary(6)),
        MLPEnergy(Categorical(4, 3), num_layers=1),
        MLPEnergy(Categorical(5, 7), num_embedding=2),
        ResNetEnergy(Binary((4, 3)), num_channels=4),
    ],
    ids=["mlp", "categorical mlp", "embedded mlp", "resnet"],
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


def test_the_papers_network_of_256_levels() -> None:
    """One table for all pixels: 256 x 4 + 4 numbers, and a first convolution of 4 channels in place of 1."""
    energy = ResNetEnergy(Categorical((28, 28), 256), num_embedding=4)
    assert sum(parameter.numel() for parameter in energy.parameters()) == 602_629
    assert sum(parameter.numel() for parameter in ResNetEnergy(Binary((28, 28))).parameters()) == 599_873
    images = Categorical((28, 20), 256)
    assert sum(parameter.numel() for parameter in ResNetEnergy(images).parameters()) == 602_629


def embedded(energy: MLPEnergy, x: Tensor) -> Tensor:
    """E by the formula, a site at a time: look up its row, then a network without an embedding."""
    assert energy.embedding is not None
    table, bias = table_of(energy.embedding)
    rows = torch.stack([table[site] + bias for site in x.argmax(2).unbind(1)], 1)
    return energy.layers(rows.flatten(1))[:, 0]


def test_an_embedding_is_a_look_up_with_a_gradient_in_one_hot_form() -> None:
    space = Categorical(5, 7)
    energy = shaken(MLPEnergy(space, num_embedding=2, num_hidden=8))
    assert isinstance(energy, MLPEnergy)
    x = points(space, 6).requires_grad_()
    torch.testing.assert_close(energy(x), embedded(energy, x), rtol=0, atol=1e-12)
    (grad,) = torch.autograd.grad(energy(x).sum(), x)
    step = 1e-6 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    change = energy(x + step) - energy(x - step)
    torch.testing.assert_close(2 * (grad * step).sum((1, 2)), change, rtol=1e-5, atol=1e-13)


@pytest.mark.parametrize(("shape", "channels"), [((4, 4), 1), ((2, 5, 6), 2)])
def test_weights_of_a_convolution_of_the_one_hot_image_are_those_of_an_embedding(
    shape: tuple[int, ...], channels: int
) -> None:
    energy = shaken(ResNetEnergy(Categorical(shape, 3), num_channels=4, num_blocks=0))
    assert isinstance(energy, ResNetEnergy)
    state = energy.state_dict()
    convolution = torch.nn.Conv2d(3 * channels, 4, 1).double()
    convolution.load_state_dict({name: state[f"embedding.{name}"] for name in ("weight", "bias")})
    x = points(energy.space, 3)
    one_hot = x.unflatten(1, energy.image_shape).movedim(-1, 2).flatten(1, 2)
    torch.testing.assert_close(energy._image(x), convolution(one_hot), rtol=0, atol=1e-12)


class ForgetsTheBias(MLPEnergy):
    """A mutant: the structure reads the table alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def structure(self) -> Perceptron:
        found = super().structure()
        table, bias = found.embedding
        return found._replace(embedding=(table, torch.zeros_like(bias)))


class MovesAnotherSite(MLPEnergy):
    """A mutant: a move changes the columns of the first site."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def structure(self) -> Perceptron:
        found = super().structure()
        return found._replace(columns=found.columns.roll(1, 0))


@pytest.mark.parametrize(
    ("mutant", "message"),
    [(ForgetsTheBias, "structure gives another f"), (MovesAnotherSite, "structure's move gives another f")],
)
def test_a_wrong_embedding_is_caught(mutant: type[MLPEnergy], message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check_energy(shaken(mutant(Categorical(4, 3), num_embedding=2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPEnergy(Categorical(4, 3), num_embedding=0), "num_embedding must be positive, got 0"),
        (lambda: MLPEnergy(Binary(4), num_embedding=2), r"num_embedding of MLPEnergy is for Categorical spaces, got B"),
        (lambda: ResNetEnergy(Categorical((4, 4), 3), num_embedding=0), "num_embedding must be at least 1, got 0"),
    ],
)
def test_embeddings_that_cannot_be(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


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
