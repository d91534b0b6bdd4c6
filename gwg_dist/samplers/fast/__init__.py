"""Faster ways to run the very same Markov kernels: the one place that decides how a step is run.

``PATHS`` are functions of (kernel, target, x, beta) that return a faster kernel, or None where they do not apply; the
first that applies is taken. ``beta`` is None where it changes from step to step. A new path is a file and an entry; a
kernel knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gwg_dist.samplers.base import Kernel
from gwg_dist.samplers.fast import (
    binary,
    compiled,
    dense,
    graphs,
    langevin,
    pair_sweep,
    parts,
    path_auxiliary,
    sparse,
    sweep,
)
from gwg_dist.samplers.fast.compiled import Compiled
from gwg_dist.samplers.fast.graphs import Graphed
from gwg_dist.target import Target

__all__ = ["PATHS", "Compiled", "Graphed", "fastest"]

Path = Callable[[Kernel, Target, Tensor, Tensor | None], Kernel | None]

PATHS: tuple[Path, ...] = (
    sweep.path,
    pair_sweep.path,
    dense.path,
    sparse.path,
    binary.path,
    path_auxiliary.path,
    langevin.path,
    parts.path,
    graphs.path,
    compiled.path,
)


def fastest(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel:
    """The first of ``PATHS`` that applies to chains like ``x`` on a frozen target, else ``kernel`` itself."""
    return next((found for path in PATHS if (found := path(kernel, target, x, beta)) is not None), kernel)
