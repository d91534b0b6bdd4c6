"""The one loop over steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor

from gwg_dist.samplers.base import Kernel, State
from gwg_dist.samplers.fast import Compiled, Graphed, fastest
from gwg_dist.target import Target, evaluation_mode
from gwg_dist.tools.distributed import rank

BACKENDS = ("auto", "plain", "eager", "compiled", "graph")

logger = logging.getLogger("gwg_dist")


class ChainResult(NamedTuple):
    """Where chains ended and how they moved.

    Args:
        state: what is left of the kernel's last state; ``state.x`` and ``state.f`` are what others read.
        accept_prob: mean acceptance probability over the steps, ``(B,)`` float64.
        hops: mean number of changed sites a step, ``(B,)`` float64.
        swap_prob: mean probability of swaps with chains at other betas, ``(B,)``; None where there are none.
    """

    state: State
    accept_prob: Tensor
    hops: Tensor
    swap_prob: Tensor | None = None

    @property
    def x(self) -> Tensor:
        return self.state.x


class Plan(NamedTuple):
    """How chains are run: the same distribution and the same Markov kernel, whichever it is.

    Args:
        kernel: perhaps a faster one.
        target: perhaps by its structure, on the weights as they are now.
    """

    kernel: Kernel
    target: Target

    def __str__(self) -> str:
        return f"{self.kernel} on {type(self.target.energy).__name__} by {self.target.how}"


def plan_chains(
    kernel: Kernel, target: Target, x: Tensor, *, beta: Tensor | None = None, backend: str = "auto"
) -> Plan:
    """The way to run ``kernel`` on ``target`` from ``x``; chosen by what they are, never by the clock.

    Args:
        kernel: what the chains do.
        target: what it leaves invariant.
        x: chains like those that will be run.
        beta: beta of all steps, 0-d or one a chain; None where it changes from step to step.
        backend: "auto" takes the first of ``gwg_dist.samplers.fast.PATHS`` that applies. "eager" takes none, "compiled"
            and "graph" that one, but for kernels that work in place. All four move by the structure of the energy where
            it has one; on sparse pairs whole-array steps are tens of times slower than "auto". "plain": autograd on the
            energy's ``forward``, step by step, to check the others.

    Raises:
        ValueError: an unknown backend, "graph" for chains that are not on CUDA, a target that the kernel refuses.
    """
    check_backend(backend)
    if backend == "graph" and x.device.type != "cuda":
        raise ValueError(f"backend graph needs a CUDA device, the chains are on {x.device}")
    refusal = kernel.refusal(target)
    if refusal is not None:
        raise ValueError(refusal)
    if backend == "plain":
        return Plan(kernel, target.plain())
    target = target.frozen()
    if backend == "auto":
        kernel = fastest(kernel, target, x, beta)
    elif backend == "compiled" and not kernel.in_place:
        kernel = Compiled(kernel)
    elif backend == "graph" and not kernel.in_place:
        kernel = Graphed(kernel)
    return Plan(kernel, target)


def check_backend(backend: str) -> None:
    """Raise ValueError for a way to run chains that does not exist."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def run_chain(
    kernel: Kernel,
    target: Target,
    x: Tensor,
    *,
    num_steps: int,
    generator: torch.Generator,
    beta: float | Tensor = 1.0,
    schedule: Tensor | None = None,
    before_step: Callable[[int, State], None] | None = None,
    backend: str = "auto",
) -> ChainResult:
    """Run every chain in ``x`` for ``num_steps`` steps. How is logged once.

    Args:
        kernel: what a step does.
        target: what it leaves invariant; its weights do not change meanwhile.
        x: floats ``(B, D)`` or ``(B, D, K)``; not changed.
        num_steps: kernel transitions; 0 evaluates only.
        generator: generator on the device of ``x``; the one source of randomness.
        beta: inverse temperature of the target, a number or one a chain ``(B,)``.
        schedule: ``(num_steps,)`` or ``(num_steps, B)``, a beta for every step, in place of ``beta``.
        before_step: called with the number of the step and the state before it. It must not synchronise, nor keep the
            state: the next step may overwrite it.
        backend: see ``plan_chains``; all give the same chain up to rounding, except that specialised kernels use the
            random numbers in another way.

    Raises:
        ValueError: an unknown backend, a negative num_steps, a schedule of another length, a beta that is not
            finite, an ``x`` that holds no points of the space, a target that the kernel refuses.
    """
    if num_steps < 0 or (schedule is not None and len(schedule) != num_steps):
        length = "" if schedule is None else f" with a schedule of {len(schedule)}"
        raise ValueError(f"num_steps must not be negative and must match the schedule, got {num_steps}{length}")
    x = checked_start(target, x)
    constant = torch.as_tensor(beta, dtype=x.dtype, device=x.device)
    betas = constant.expand(num_steps, *constant.shape) if schedule is None else schedule.to(x)
    check_betas(*((constant, ()) if schedule is None else (betas, (num_steps,))), len(x))
    first = betas[0] if num_steps else constant
    with chains_running(target, x):
        plan = plan_chains(kernel, target, x, beta=first if schedule is None else None, backend=backend)
        log_plan(plan)
        kernel, target = plan
        state = kernel.init(target, x, first)
        accept_prob, hops = torch.zeros(2, len(x), dtype=torch.float64, device=x.device)
        for t in range(num_steps):
            if before_step is not None:
                before_step(t, state)
            if target.refresh_every and t and t % target.refresh_every == 0:
                state = kernel.refresh(target, state)
            if schedule is not None and t:
                state = kernel.temper(target, state, betas[t])
            state, info = kernel.step(target, state, kernel.draw(state, generator))
            accept_prob += info.accept_prob
            hops += info.hops
        state = kernel.finish(state)
    count = max(num_steps, 1)
    return ChainResult(cast(State, state), accept_prob / count, hops / count)


@contextmanager
def chains_running(target: Target, x: Tensor) -> Iterator[None]:
    """No gradients, no autocast, and the energy in evaluation mode."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False), evaluation_mode(target):
        yield


def checked_start(target: Target, x: Tensor) -> Tensor:
    """``x``, row-major. Raises ValueError where it holds anything but points of the target's space."""
    target.space.check_points(x)
    return x.contiguous()


def check_betas(betas: Tensor, shape: tuple[int, ...], num_chains: int) -> None:
    """Raise ValueError unless every beta is finite, and ``betas`` has ``shape``, or that with one a chain."""
    if tuple(betas.shape) not in (shape, (*shape, num_chains)):
        expected = f"{shape} or {(*shape, num_chains)}"
        raise ValueError(f"beta must be one number or one for each of {num_chains} chains, shape {expected}, "
                         f"got {tuple(betas.shape)}")  # fmt: skip
    if not (math.isfinite(float(betas)) if betas.ndim == 0 else bool(torch.isfinite(betas).all())):
        raise ValueError(f"beta must be finite, got {betas.flatten()[:4].tolist()}")


def log_plan(plan: Plan) -> None:
    """Say once how chains are run."""
    _log_once(str(plan))


@cache
def _log_once(text: str) -> None:
    if rank() == 0:
        logger.info("chains: %s", text)
