"""Devices by the names that people type."""

from __future__ import annotations

import torch

from gwg_dist.tools.errors import InputError


def usable_device(name: str) -> torch.device:
    """The device of this name. Raises InputError where kernels cannot run on it and be timed."""
    try:
        device = torch.device(name)
        torch.empty((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {name} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: {name} cannot be used: expected cpu, cuda or cuda:NUMBER")
    return device
