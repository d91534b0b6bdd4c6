"""Whether an energy is one: a number a point, a gradient everywhere, short cuts that agree with its forward."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from gwg_dist.energies import Energy
from gwg_dist.samplers import Target
from gwg_dist.spaces import Change
from gwg_dist.structure import offered
from gwg_dist.testing.errors import CheckError

TOLERANCE = 1e-9
NUM_POINTS = 12


def check_energy(energy: Energy, *, seed: int = 0) -> None:
    """Check an energy as it is initialised, in float64, at random points.

    One energy a point whatever the batch, a gradient at every site and for every parameter, ``energy_and_grad`` and
    ``structure`` (its start and its moves) equal to autograd of ``forward`` to 1e-9.

    Args:
        energy: energy whose weights are not all zero; a copy is checked.
        seed: seed of the points.

    Raises:
        CheckError: which of these fails.
    """
    energy = copy.deepcopy(energy).double().eval()
    space, generator = energy.space, torch.Generator().manual_seed(seed)
    x = space.encode(space.uniform_codes(NUM_POINTS, generator=generator), torch.float64)
    plain = Target(energy).plain()
    try:
        together = plain.evaluate(x)
    except ValueError as error:
        raise CheckError(str(error)) from error
    alone = torch.cat([plain.f(x[i : i + 1]) for i in range(NUM_POINTS)])
    _same(together.f, alone, "E(x) depends on the other points of the batch")
    _check_gradients(energy, x)
    if offered(energy, "energy_and_grad"):
        found = Target(energy).evaluate(x)
        _same(found.f, together.f, "energy_and_grad gives another energy than forward")
        _same(found.grad, together.grad, "energy_and_grad gives another gradient than autograd of forward")
    frozen = Target(energy).frozen()
    if offered(energy, "structure"):
        start = frozen.evaluate(x)
        _same(start.f, together.f, "structure gives another f than -forward")
        _same(start.grad, together.grad, "structure gives another gradient than autograd of forward")
        site = torch.randint(space.num_sites, (NUM_POINTS,), generator=generator)
        old = space.category_at(x, site)
        change = Change(site, old, space.shifted(site, old, torch.ones_like(old)))
        y = space.apply(x, change)
        moved, right = frozen.move(start, y, change), plain.evaluate(y)
        _same(moved.f, right.f, "structure's move gives another f than -forward at the new point")
        _same(moved.grad, right.grad, "structure's move gives another gradient than forward at the new point")


def _check_gradients(energy: Energy, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    names = ["x", *(name for name, _ in energy.named_parameters())]
    grads = torch.autograd.grad(energy(x).square().sum(), [x, *energy.parameters()], allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        if grad is None or not grad.abs().max() > 0:
            raise CheckError(f"E does not depend on {name}, or its gradient is zero there")
        if not torch.isfinite(grad).all():
            raise CheckError(f"the gradient of E in {name} is not finite")
    sites = grads[0].abs().flatten(2).amax((0, 2)) if x.ndim > 2 else grads[0].abs().amax(0)
    if not (sites > 0).all():
        raise CheckError(f"E does not depend on site {int(sites.argmin())}")


def _same(found: Tensor, right: Tensor, message: str) -> None:
    gap = float((found - right).abs().max())
    if not gap < TOLERANCE * (1 + float(right.abs().max())):
        raise CheckError(f"{message}, by {gap:.1e}")
