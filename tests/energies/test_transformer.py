"""The Transformer: its formula a site at a time, sites told apart, and penalties that differentiate it twice."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.batch import Batch
from gwg_dist.energies import TransformerEnergy
from gwg_dist.energies.embedding import table_of
from gwg_dist.energies.transformer import Layer
from gwg_dist.objectives import ContrastiveDivergence
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target, run_chain
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.testing import check_energy

SPACES: list[Space] = [Binary((4, 4)), Categorical(7, 5)]
spaces = pytest.mark.parametrize("space", SPACES, ids=["binary", "categorical"])


def make(space: Space) -> TransformerEnergy:
    torch.manual_seed(0)
    energy = TransformerEnergy(space, width=8, depth=2, heads=2).double()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return energy


def points(space: Space, num: int = 5) -> Tensor:
    return space.encode(space.uniform_codes(num, generator=torch.Generator().manual_seed(1)), torch.float64)


def by_the_formula(energy: TransformerEnergy, x: Tensor) -> Tensor:
    """E of one point, site by site and head by head."""
    table, bias = table_of(energy.embedding)
    h = [site.reshape(-1) @ table + bias + position for site, position in zip(x, energy.positions, strict=True)]
    for layer in energy.layers:
        assert isinstance(layer, Layer)
        size = len(h[0]) // layer.heads
        parts = [(layer.queries_keys_values.weight @ layer.before_attention(token)).split(len(token)) for token in h]
        for i, token in enumerate(h):
            heads = []
            for a in range(layer.heads):
                own = slice(a * size, (a + 1) * size)
                scores = torch.stack([parts[i][0][own] @ keys[own] / math.sqrt(size) for _, keys, _ in parts])
                heads.append(sum(p * v[own] for p, (_, _, v) in zip(scores.softmax(0), parts, strict=True)))
            h[i] = token + layer.mix(torch.cat([head for head in heads if isinstance(head, Tensor)]))
        first, _, second = layer.products
        h = [token + second(functional.gelu(first(layer.before_products(token)))) for token in h]
    return torch.stack([energy.norm(token) @ energy.head for token in h]).sum()


@spaces
def test_it_is_its_formula(space: Space) -> None:
    energy, x = make(space), points(space)
    right = torch.stack([by_the_formula(energy, point) for point in x])
    torch.testing.assert_close(energy(x), right, rtol=1e-11, atol=1e-11)


@spaces
def test_it_keeps_the_contract_of_an_energy(space: Space) -> None:
    check_energy(TransformerEnergy(space))


def test_sites_are_told_apart_by_their_positions_alone() -> None:
    energy = make(Categorical(7, 5))
    x = points(energy.space)
    turned = x.roll(1, 1)
    assert (energy(turned) - energy(x)).abs().min() > 1e-6
    with torch.no_grad():
        energy.positions.copy_(energy.positions[:1].expand_as(energy.positions))
    torch.testing.assert_close(energy(turned), energy(x), rtol=0, atol=1e-10)


def test_its_scale_is_that_of_its_sites() -> None:
    """At its beginning the energy of a point is small, and the spread grows like that of a sum of sites."""
    spread = {}
    for num_sites in (16, 256):
        torch.manual_seed(0)
        space = Categorical(num_sites, 27)
        x = space.encode(space.uniform_codes(40, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            spread[num_sites] = float(torch.stack([TransformerEnergy(space)(x).std() for _ in range(4)]).mean())
    assert spread[256] < 5
    assert 2 < spread[256] / spread[16] < 8, "sixteen times the sites: about four times"


def test_a_penalty_on_its_gradient_reaches_its_weights() -> None:
    """In float32 too, where fused attention has no second derivative."""
    space = Categorical(6, 4)
    energy, generator = TransformerEnergy(space, width=8), torch.Generator().manual_seed(0)
    codes = space.uniform_codes(4, generator=generator)
    target = Target(energy, Reference(space))
    loss = ContrastiveDivergence(gradient_penalty=0.1)
    result = loss(target, Batch(codes, torch.ones(4)), space.encode(codes), generator=generator)
    grads = torch.autograd.grad(result.loss, list(energy.parameters()), allow_unused=True)
    assert all(grad is not None and bool(torch.isfinite(grad).all()) for grad in grads)


def test_windows_of_text_fit_into_little_memory() -> None:
    """64 sites of 27 symbols: what one evaluation of 25 chains keeps for its gradient is below 64 MB."""
    space = Categorical(64, 27)
    energy, kept = TransformerEnergy(space), []
    x = space.encode(space.uniform_codes(25, generator=torch.Generator().manual_seed(0))).requires_grad_()

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        energy(x)
    assert sum({storage.data_ptr(): storage.nbytes() for storage in kept}.values()) < 64 * 2**20


def test_chains_move_on_it() -> None:
    energy = make(Categorical(7, 5))
    chain = run_chain(GWG(), Target(energy), points(energy.space), num_steps=20, generator=torch.Generator())
    assert float(chain.accept_prob.mean()) > 0.2
    torch.testing.assert_close(chain.state.f, -energy(chain.x).detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth must be positive, got 0"),
        ({"heads": -1}, "heads must be positive, got -1"),
        ({"width": 10, "heads": 4}, "width must be a multiple of the 4 heads, got 10"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerEnergy(Binary(4), **settings)


def test_it_learns_what_independent_sites_cannot_say() -> None:
    """A Markov chain of three symbols by exact maximum likelihood: nearly all of what its neighbours tell."""
    torch.manual_seed(0)
    space = Categorical(5, 3)
    codes = space.all_codes().long()
    steps = torch.full((3, 3), 0.1).fill_diagonal_(0.8).log()
    log_p = steps[codes[:, :-1], codes[:, 1:]].sum(1) - math.log(3)
    p, x = log_p.exp(), space.encode(codes)
    independent, entropy = 5 * math.log(3), -float(p @ log_p)
    energy = TransformerEnergy(space, width=16, depth=1, heads=2)
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-2)
    loss = torch.tensor(independent)
    for _ in range(400):
        f = -energy(x)
        loss = f.logsumexp(0) - p @ f
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) - entropy < 0.02 * (independent - entropy)
