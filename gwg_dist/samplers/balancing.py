"""Locally balanced weights: g(t) = t g(1/t) for t = p(x') / p(x) (Zanella, "Informed proposals for local MCMC", 2020).

A kernel that proposes x' in proportion to g(t) needs little correction near x. Each function takes d = log t and
returns log g(t), elementwise; where d is -inf, a move that does not exist, so is log g.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Balancing = Callable[[Tensor], Tensor]


def sqrt(d: Tensor) -> Tensor:
    """g(t) = sqrt(t): best where log p is smooth (Grathwohl et al., 2021, take it)."""
    return d / 2


def barker(d: Tensor) -> Tensor:
    """g(t) = t / (1 + t): bounded, better where log p is rough (Barker, 1965)."""
    return functional.logsigmoid(d)


def minimum(d: Tensor) -> Tensor:
    """g(t) = min(1, t)."""
    return d.clamp(max=0)


def maximum(d: Tensor) -> Tensor:
    """g(t) = max(1, t)."""
    return torch.where(d > -torch.inf, d.clamp(min=0), d)


BALANCING: dict[str, Balancing] = {"sqrt": sqrt, "barker": barker, "min": minimum, "max": maximum}


def balancing(name: str) -> Balancing:
    """The function of this name. Raises ValueError where there is none."""
    if name not in BALANCING:
        raise ValueError(f"balancing must be one of {', '.join(BALANCING)}, got {name!r}")
    return BALANCING[name]
