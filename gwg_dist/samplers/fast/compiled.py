"""Steps compiled by torch: the same kernel with its operations fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.fast import native
from gwg_dist.structure import Network
from gwg_dist.target import StructuredTarget, Target

LARGE_ENOUGH = 50_000  # numbers in x; below it a run hardly earns back ten seconds of compiling


@dataclass(frozen=True)
class Compiled(Kernel):
    """``kernel``, compiled once for each energy class, space, precision and set of shapes."""

    kernel: Kernel

    def __str__(self) -> str:
        return f"{self.kernel}, compiled"

    def init(self, target: Target, x: Tensor, beta: Tensor) -> Any:
        return self.kernel.init(target, x, beta)

    def draw(self, state: Any, generator: torch.Generator) -> Any:
        return self.kernel.draw(state, generator)

    def refresh(self, target: Target, state: Any) -> Any:
        return self.kernel.refresh(target, state)

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Info]:
        return _compiled(_step, self._case(target, state))(self.kernel, target, state, noise)

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        return _compiled(_temper, self._case(target, state))(self.kernel, target, state, beta)

    def _case(self, target: Target, state: Any) -> tuple:
        x = state.x
        kinds = type(target.energy), type(target), self.kernel, target.space
        return *kinds, x.shape, x.dtype, x.device, state.beta.shape


@cache
def _compiled(function: FunctionType, case: tuple) -> Callable:
    """A function of its own for each case: torch stops compiling one function anew after eight times."""
    own = FunctionType(function.__code__.replace(), function.__globals__)
    return torch.compile(own, fullgraph=True, dynamic=False, options={"assert_indirect_indexing": False})


def _step(kernel: Kernel, target: Target, state: Any, noise: Any) -> tuple[Any, Info]:
    return kernel.step(target, state, noise)


def _temper(kernel: Kernel, target: Target, state: Any, beta: Tensor) -> Any:
    return kernel.temper(target, state, beta)


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Compiled where large chains move by a structure without layers on a CPU that has a C compiler."""
    suits = isinstance(target, StructuredTarget) and not isinstance(target.structure, Network)
    suits = suits and x.numel() >= LARGE_ENOUGH and not kernel.in_place and not kernel.in_parts
    return Compiled(kernel) if suits and x.is_cpu and native.compiler() is not None else None
