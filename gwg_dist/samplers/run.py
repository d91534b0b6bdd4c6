"""The one loop over steps, and the one place that picks how a step is run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from gwg_dist.distributed import rank
from gwg_dist.samplers.base import Info, Sampler, State
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.graphs import graphed, tree_clone
from gwg_dist.target import IncrementalTarget, Target

BACKENDS = ("auto", "plain", "eager", "compiled", "graph")
LARGE_ENOUGH_TO_COMPILE = 50_000  # numbers in x: below, ten seconds of compiling are hardly earned back

Step = Callable[[Sampler, Target, Any, Any, Tensor], tuple[Any, Info]]

logger = logging.getLogger("gwg_dist")


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


class Plan(NamedTuple):
    """How chains are run: the same distribution and the same kernel, whichever it is.

    Args:
        sampler: perhaps specialised to the target.
        target: perhaps by increments, on the weights as they are now.
        step: one step at the beta of the state.
        annealed_step: one step at a beta that may be another.
    """

    sampler: Sampler
    target: Target
    step: Step
    annealed_step: Step
    backend: str

    def __str__(self) -> str:
        by = "autograd"
        if isinstance(self.target, IncrementalTarget):
            by = type(self.target.increments).__name__
        elif self.target.closed_form is not None:
            by = "closed form"
        return f"{self.sampler} on {type(self.target.energy).__name__} by {by}, {self.backend}"


def plan_chains(sampler: Sampler, target: Target, x: Tensor, *, annealed: bool = False, backend: str = "auto") -> Plan:
    """The way to run ``sampler`` on ``target`` from ``x``; chosen by what they are, never by the clock.

    Args:
        annealed: whether beta changes from step to step.
        backend: "auto": increments and specialised kernels where the energy has them; on CUDA a graph; on a CPU large
            increments are compiled where there is a C compiler. "eager", "compiled" and "graph" fix the last choice.
            "plain": autograd on the energy's ``forward``, step by step, to check the others.

    Raises:
        ValueError: an unknown backend, or "graph" for chains that are not on CUDA.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "graph" and x.device.type != "cuda":
        raise ValueError(f"backend graph needs a CUDA device, the chains are on {x.device}")
    if backend == "plain":
        return Plan(sampler, target.plain(), _step, _annealed_step, backend)
    target = target.frozen()
    if backend == "auto":
        sampler = sampler.specialised(target, x, annealed=annealed)
    if sampler.in_place:
        backend = "eager"
    elif backend == "auto":
        backend = _usual_backend(target, x)
    if backend == "compiled":
        return Plan(sampler, target, _compiled(_step), _compiled(_annealed_step), backend)
    if backend == "graph":
        return Plan(sampler, target, graphed(_step), graphed(_annealed_step), backend)
    return Plan(sampler, target, _step, _annealed_step, backend)


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
    backend: str = "auto",
) -> ChainResult:
    """Run every chain in ``x`` for ``num_steps`` steps. How is logged once.

    Args:
        sampler: the kernel.
        target: what it leaves invariant; its weights do not change meanwhile.
        x: floats ``(B, D)`` or ``(B, D, K)``; not changed.
        num_steps: kernel transitions; 0 evaluates only.
        generator: on the device of ``x``; the one source of randomness.
        beta: of the target, a number or one a chain ``(B,)``.
        schedule: ``(num_steps,)`` or ``(num_steps, B)``, a beta for every step, in place of ``beta``.
        before_step: called with the number of the step and the state before it. It must not synchronise, nor keep the
            state: the next step may overwrite it.
        backend: see ``plan_chains``; all give the same chain up to rounding, except that specialised kernels use the
            random numbers in another way.

    Raises:
        ValueError: an unknown backend, a negative num_steps, a schedule of another length.
    """
    if num_steps < 0 or (schedule is not None and len(schedule) != num_steps):
        length = "" if schedule is None else f" with a schedule of {len(schedule)}"
        raise ValueError(f"num_steps must not be negative and must match the schedule, got {num_steps}{length}")
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        plan = plan_chains(sampler, target, x, annealed=schedule is not None, backend=backend)
        _log_once(str(plan))
        sampler, target = plan.sampler, plan.target
        step = plan.step if schedule is None else plan.annealed_step
        constant = torch.as_tensor(beta, dtype=x.dtype, device=x.device)
        betas = constant.expand(num_steps, *constant.shape) if schedule is None else schedule.to(x)
        state = sampler.init(target, x, betas[0] if num_steps else constant)
        accept_prob, hops = x.new_zeros(2, len(x))
        for t in range(num_steps):
            if before_step is not None:
                before_step(t, state)
            if target.refresh_every and t and t % target.refresh_every == 0:
                state = sampler.refresh(target, state, betas[t])
            state, info = step(sampler, target, state, sampler.draw(state, generator), betas[t])
            accept_prob += info.accept_prob
            hops += info.hops
        if plan.backend == "graph":
            state = tree_clone(state)  # the graph's own memory is for the next run
    count = max(num_steps, 1)
    return ChainResult(cast(State, state), accept_prob / count, hops / count)


def _usual_backend(target: Target, x: Tensor) -> str:
    if x.device.type == "cuda":
        return "graph"
    worth_it = isinstance(target, IncrementalTarget) and x.numel() >= LARGE_ENOUGH_TO_COMPILE
    return "compiled" if worth_it and native.compiler() is not None else "eager"


def _step(sampler: Sampler, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
    return sampler.step(target, state, noise, beta)


def _annealed_step(sampler: Sampler, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
    return sampler.step(target, sampler.temper(target, state, beta), noise, beta)


@cache
def _compiled(step: Step) -> Step:
    return torch.compile(step, fullgraph=True, dynamic=False, options={"assert_indirect_indexing": False})


@cache
def _log_once(text: str) -> None:
    if rank() == 0:
        logger.info("chains: %s", text)
