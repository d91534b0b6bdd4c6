"""The form of all pairs in blocks is the plain one, with its first and second derivatives."""

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import upper
from gwg_dist.energies.upper import upper_form

CASES = [(7, 1), (4, 3), (12, 1), (5, 4)]  # sites, numbers of a site


def plain(x: Tensor, pairs: Tensor, width: int) -> Tensor:
    """Pair by pair of sites."""
    parts = x.unflatten(1, (-1, width)).unbind(1)
    blocks = pairs.unflatten(1, (-1, width)).unflatten(0, (-1, width))
    form = x.new_zeros(len(x))
    for i, left in enumerate(parts):
        for j in range(i + 1, len(parts)):
            form = form + (left @ blocks[i, :, j] * parts[j]).sum(1)
    return form


def inputs(sites: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sites)
    x, pairs = (torch.randn(n, sites * width, generator=generator, dtype=torch.float64) for n in (3, sites * width))
    return x.requires_grad_(), pairs.requires_grad_()


@pytest.fixture(params=["one product", "blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "blocks":
        monkeypatch.setattr(upper, "LARGE", 0)
        monkeypatch.setattr(upper, "BLOCK", 5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("sites", "width"), CASES)
def test_values_and_gradients(sites: int, width: int) -> None:
    x, pairs = inputs(sites, width)
    found, right = upper_form(x, pairs, width), plain(x, pairs, width)
    torch.testing.assert_close(found, right)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    grads, rights = (torch.autograd.grad(weights @ form, (x, pairs)) for form in (found, right))
    torch.testing.assert_close(grads, rights)
    assert not grads[1].tril().any()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("sites", "width"), CASES)
def test_the_penalty_on_a_gradient_has_the_right_gradient(sites: int, width: int) -> None:
    x, pairs = inputs(sites, width)
    found = []
    for form in (upper_form, plain):
        (grad,) = torch.autograd.grad(form(x, pairs, width).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), (x, pairs)))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.usefixtures("way")
def test_what_is_below_the_diagonal_is_not_read() -> None:
    x, pairs = inputs(4, 3)
    within = torch.block_diag(*[torch.ones(3, 3, dtype=torch.float64)] * 4)
    other = pairs.detach() + pairs.detach().tril() * 7 + within
    torch.testing.assert_close(upper_form(x, other, 3), upper_form(x, pairs, 3))
