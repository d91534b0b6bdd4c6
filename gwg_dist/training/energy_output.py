"""What an energy of one's own returns, looked at before training: one finite number a point, differentiable in x."""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.module import EBMModule
from gwg_dist.target import evaluation_mode
from gwg_dist.tools.errors import InputError


def check_energy_output(module: EBMModule, data: DiscreteData) -> None:
    """Put one batch through the energy. Raises InputError, naming the energy, unless E(x) is what it has to be."""
    name = f"model.energy {type(module.energy).__name__}"
    x = module.target.encode(data.batch(0).codes).requires_grad_()
    with evaluation_mode(module.target), torch.enable_grad():
        energy = module.energy(x)
    if not isinstance(energy, Tensor):
        raise InputError(f"{name} must return a tensor, one energy a point, got {type(energy).__name__}")
    if tuple(energy.shape) != (len(x),):
        hint = ": squeeze the last axis" if tuple(energy.shape) == (len(x), 1) else ""
        raise InputError(f"{name} must return one energy a point, shape ({len(x)},), got {tuple(energy.shape)}{hint}")
    if not energy.is_floating_point():
        raise InputError(f"{name} must return floats, got {energy.dtype}")
    if not torch.isfinite(energy).all():
        num = int((~torch.isfinite(energy)).sum())
        raise InputError(f"{name} must return finite energies, got {num} of {len(x)} that are not on a batch of data")
    if not energy.requires_grad:
        raise InputError(f"{name} must be differentiable in x: nothing leads from its output back to x")
    (gradient,) = torch.autograd.grad(energy.sum(), x, allow_unused=True)
    if gradient is None:
        raise InputError(f"{name} must be differentiable in x: its output does not depend on x")
    if not torch.isfinite(gradient).all():
        raise InputError(f"{name} must have a finite gradient in x, got one that is not on a batch of data")
