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

    One energy a point whatever the batch, a gradient at every site and for every parameter, ``energy_and_grad``,
    ``site_slopes`` and ``structure`` (its start and its moves) equal to autograd of ``forward`` to 1e-9.

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
    if offered(energy, "site_slopes"):
        _check_slopes(energy, x)
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


def _check_slopes(energy: Energy, x: Tensor) -> None:
    """Every change of one site changes f by the difference of its slopes, exactly."""
    space, plain = energy.space, Target(energy).plain()
    slopes = energy.site_slopes(x)  # pyright: ignore[reportCallIssue]
    d = space.site_differences(x, slopes.detach())
    here = plain.f(x)
    for site in range(space.num_sites):
        where = torch.full((len(x),), site)
        old = space.category_at(x, where)
        new = space.shifted(where, old, torch.ones_like(old))
        found = d[:, site] if d.ndim == 2 else d[torch.arange(len(x)), site, new]
        _same(found, plain.f(space.apply(x, Change(where, old, new))) - here, "site_slopes gives another change of f")
    if not slopes.requires_grad:
        raise CheckError("site_slopes must have a gradient in the weights")


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
