"""The one loop over steps.

Not implemented: CUDA graphs, reduced precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler, State
from gwg_dist.target import Target

BACKENDS = ("eager", "compiled")


class ChainResult(NamedTuple):
    """Where chains ended and how they moved.

    Args:
        state: the kernel's last state; ``state.x`` and ``state.f`` are what others read.
        accept_prob: mean acceptance probability over the steps, ``(B,)``.
        hops: mean number of changed sites a step, ``(B,)``.
    """

    state: State
    accept_prob: Tensor
    hops: Tensor

    @property
    def x(self) -> Tensor:
        return self.state.x


def run_chain(
    sampler: Sampler,
    target: Target,
    x: Tensor,
    *,
    num_steps: int,
    generator: torch.Generator,
    beta: float | Tensor = 1.0,
    schedule: Tensor | None = None,
    before_step: Callable[[int, State], None] | None = None,
    backend: str = "eager",
) -> ChainResult:
    """Run every chain in ``x`` for ``num_steps`` steps.

    Args:
        sampler: the kernel.
        target: what it leaves invariant.
        x: floats ``(B, D)`` or ``(B, D, K)``; not changed.
        num_steps: kernel transitions; 0 evaluates only.
        generator: on the device of ``x``; the one source of randomness.
        beta: of the target, a number or one a chain ``(B,)``.
        schedule: ``(num_steps,)`` or ``(num_steps, B)``, a beta for every step, in place of ``beta``.
        before_step: called with the number of the step and the state before it. It must not synchronise.
        backend: "eager" or "compiled" (``torch.compile`` of the step; the same numbers up to rounding).

    Raises:
        ValueError: an unknown backend, a negative num_steps, a schedule of another length.
    """
    if num_steps < 0 or (schedule is not None and len(schedule) != num_steps):
        length = "" if schedule is None else f" with a schedule of {len(schedule)}"
        raise ValueError(f"num_steps must not be negative and must match the schedule, got {num_steps}{length}")
    step = step_function(backend)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        state = sampler.init(target, x)
        betas = torch.as_tensor(beta, dtype=x.dtype, device=x.device) if schedule is None else schedule.to(x)
        accept_prob = torch.zeros_like(state.f)
        hops = torch.zeros_like(state.f)
        for t in range(num_steps):
            if before_step is not None:
                before_step(t, state)
            noise = sampler.draw(state, generator)
            state, info = step(sampler, target, state, noise, betas if schedule is None else betas[t])
            accept_prob += info.accept_prob
            hops += info.hops
    count = max(num_steps, 1)
    return ChainResult(cast(State, state), accept_prob / count, hops / count)


def step_function(backend: str) -> Callable[..., tuple[Any, Info]]:
    """``(sampler, target, state, noise, beta) -> (state, info)`` on a backend. Raises ValueError for an unknown one."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return _compiled() if backend == "compiled" else _step


def _step(sampler: Sampler, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
    return sampler.step(target, state, noise, beta)


@cache
def _compiled() -> Callable[..., tuple[Any, Info]]:
    return torch.compile(_step, fullgraph=True, dynamic=False)
