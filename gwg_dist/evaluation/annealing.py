"""Chains along a path of inverse temperatures, with the weight of every chain: the loop of annealed estimates.

p_beta(x) ∝ ref(x) exp(beta f(x)) with f = -E. The loop is a generator: whoever asks for the next point decides about
progress, stopping, resuming, the direction, and how long to go on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.tuned_path import TunedPath, path_of
from gwg_dist.samplers import Sampler, Target, plan_chains
from gwg_dist.samplers.run import Plan, chains_running, log_plan
from gwg_dist.spaces import Space


class AnnealPoint(NamedTuple):
    """Where annealed chains are.

    Args:
        t: number of temperatures done, 0 to T.
        x: the chains after them, floats ``(B, D)`` or ``(B, D, K)``; a copy.
        log_weights: log of the importance weight of every chain, ``(B,)`` float64 nats; a copy.
        generator_state: the generator's state at the end of a segment, as ``Generator.get_state`` gives it. None inside
            a segment: going on from there is valid, but not bit for bit the run that did not stop.
        added: what resampling has added to the log weights, ``(B,)`` float64 nats: without it each is that of the
            chain's own path from the start on. None where nothing resamples.
    """

    t: int
    x: Tensor
    log_weights: Tensor
    generator_state: Tensor | None = None
    added: Tensor | None = None


Between = Callable[[AnnealPoint, torch.Generator], AnnealPoint]
"""What becomes of the chains between two segments."""


def anneal(
    target: Target,
    sampler: Sampler | TunedPath,
    start: Tensor | AnnealPoint,
    betas: Tensor,
    *,
    generator: torch.Generator,
    every: int = 100,
    look: int | None = None,
    also: Collection[int] = (),
    between: Between | None = None,
    backend: str = "auto",
) -> Iterator[AnnealPoint]:
    """Move chains through p_beta for every beta of a path, and weigh them; yields a point at the end of every segment.

    At temperature t = 1, ..., T the weight takes (beta_t - beta_{t-1}) f(x_{t-1}), in nats; then one step of
    ``sampler`` at beta_t moves x (Neal, 2001, equations 6 to 8). For chains that are exact at beta_0 the mean of
    exp(log_weights) is Z_{beta_T} / Z_{beta_0} in expectation, whether beta rises or falls.

    Segments end at t = every, 2 every, ..., T, wherever the chains start. A segment begins from x alone, so that

        anneal(target, sampler, point, betas, generator=g)

    for the point of a segment's end gives every later number bit for bit: it holds the generator's state as well. That
    costs one evaluation of the target a segment: T temperatures are T + ceil(T / every) gradient evaluations. What a
    kernel's state holds beyond x, such as the position of a systematic scan, starts anew with every segment.

    Where the sampler depends on beta, another kernel begins from x alone as well, with an evaluation of its own.

    Args:
        target: p_beta; its weights do not change between the first point and the last.
        sampler: leaves p_beta invariant for every beta; or one for each beta, see ``pilot_path``.
        start: chains ``(B, D)`` or ``(B, D, K)``, exact at beta_0, with weight one; or a point to go on from.
        betas: beta_0, ..., beta_T, ``(T + 1,)`` float64 in [0, 1], rising or falling.
        generator: the one source of randomness, on the device of x. A point with a generator's state sets it.
        every: temperatures in a segment; what a stop loses at most.
        look: also yield after every ``look`` temperatures inside a segment, for progress and for stopping. It changes
            no number and costs a copy of x.
        also: also yield after these numbers of temperatures, at the same cost.
        between: called at the end of every segment but the last, before its point is yielded; it may draw from the
            generator.
        backend: see ``run_chain``.

    Raises:
        ValueError: betas, chains or a point that do not fit, ``every`` or ``look`` below 1, a kernel that is not exact
            or not of x alone.
    """
    path = path_of(sampler)
    _check_kernel(path.sampler)
    if isinstance(start, Tensor):
        start = AnnealPoint(0, start, torch.zeros(len(start), dtype=torch.float64, device=start.device))
    _check_betas(betas)
    _check_start(start, target.space, len(betas) - 1)
    for name, value in (("every", every), ("look", look)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    if start.generator_state is not None:
        generator.set_state(start.generator_state)
    with chains_running(target, start.x):
        plans = _plans(path, target, start.x, betas, backend)
    log_plan(plans[0])
    return _points(plans, start, betas, generator, every, look or every, sorted(also), between)


def _plans(path: TunedPath, target: Target, x: Tensor, betas: Tensor, backend: str) -> list[Plan]:
    """How chains are run at beta_1, ..., beta_T; one plan for each part of the path."""
    plans: dict[int, Plan] = {}
    for beta in betas[1:].tolist():
        if path.part(beta) not in plans:
            plans[path.part(beta)] = plan_chains(path.at(beta), target, x, backend=backend)
    return [plans[path.part(beta)] for beta in betas[1:].tolist()]


def _points(
    plans: list[Plan],
    point: AnnealPoint,
    betas: Tensor,
    generator: torch.Generator,
    every: int,
    look: int,
    also: Sequence[int],
    between: Between | None,
) -> Iterator[AnnealPoint]:
    """Segment by segment. Nothing global is held while the caller has the turn: no mode of gradients, no graph."""
    chains = _Chains(plans, point.x, betas, generator)
    while point.t < len(betas) - 1:
        end = min((point.t // every + 1) * every, len(betas) - 1)
        chains.begin(point)
        while chains.t < end:
            following = also[bisect_right(also, chains.t) :][:1]
            chains.advance(min((chains.t // look + 1) * look, end, *following))
            point = AnnealPoint(chains.t, chains.state.x.clone(), chains.log_weights.clone(), added=point.added)
            if between is not None and chains.t == end < len(betas) - 1:
                point = between(point, generator)
            if chains.t == end:
                point = point._replace(generator_state=generator.get_state())
            yield point


class _Chains:
    """The chains of one segment: the kernel's state, and the weights so far."""

    t: int
    plan: Plan
    state: Any
    log_weights: Tensor

    def __init__(self, plans: list[Plan], x: Tensor, betas: Tensor, generator: torch.Generator) -> None:
        self.plans, self.generator = plans, generator
        self.betas, self.increments = betas.to(x), betas.diff().tolist()

    def begin(self, point: AnnealPoint) -> None:
        """Evaluate the target at the point."""
        self.t = point.t
        self.log_weights = point.log_weights.clone()
        with chains_running(self.plans[self.t].target, point.x):
            self._enter(self.t, point.x)

    def advance(self, end: int) -> None:
        """Run temperatures up to ``end`` without waiting for the device."""
        with chains_running(self.plan.target, self.log_weights):
            for t in range(self.t, end):
                if self.plans[t] is not self.plan:
                    self._enter(t, self.plan.kernel.release(self.state).x.clone())
                kernel, target = self.plan
                self.log_weights.add_(self.state.f, alpha=self.increments[t])
                if t > self.first:
                    if target.refresh_every and (t - self.first) % target.refresh_every == 0:
                        self.state = kernel.refresh(target, self.state)
                    self.state = kernel.temper(target, self.state, self.betas[t + 1])
                self.state, _ = kernel.step(target, self.state, kernel.draw(self.state, self.generator))
            self.state = self.plan.kernel.release(self.state)  # another run may come before the next turn
        self.t = end

    def _enter(self, t: int, x: Tensor) -> None:
        """Begin from x alone, with the kernel of the next temperature."""
        self.first, self.plan = t, self.plans[t]
        self.state = self.plan.kernel.init(self.plan.target, x, self.betas[t + 1])


def _check_kernel(sampler: Sampler) -> None:
    if not sampler.exact:
        raise ValueError(f"an annealed estimate needs a sampler that leaves p_beta invariant, {sampler} does not")
    if not sampler.of_x_alone:
        raise ValueError(
            f"an annealed estimate needs a sampler of x alone, {sampler} swaps x with chains that have no weight; "
            "give its annealed()"
        )


def _check_betas(betas: Tensor) -> None:
    if betas.ndim != 1 or len(betas) < 2 or betas.dtype != torch.float64:
        raise ValueError(
            f"betas must be one row of at least two float64 numbers, got {betas.dtype} {tuple(betas.shape)}"
        )
    if not bool(((betas >= 0) & (betas <= 1)).all()):
        raise ValueError(f"betas must lie in [0, 1], got values from {float(betas.min())} to {float(betas.max())}")
    back = betas.diff() < 0 if betas[-1] >= betas[0] else betas.diff() > 0
    if bool(back.any()):
        t = int(back.nonzero()[0])
        raise ValueError(f"betas must rise or fall all the way, got {betas[t : t + 2].tolist()} at t = {t}")


def _check_start(start: AnnealPoint, space: Space, num_temperatures: int) -> None:
    x, log_weights = start.x, start.log_weights
    space.check_points(x)
    if not len(x):
        raise ValueError("x must hold at least one chain")
    if log_weights.shape != (len(x),) or log_weights.dtype != torch.float64:
        raise ValueError(
            f"log_weights must hold {len(x)} float64 numbers, got {log_weights.dtype} {tuple(log_weights.shape)}"
        )
    if not 0 <= start.t <= num_temperatures:
        raise ValueError(f"t must lie in 0 to {num_temperatures}, the number of temperatures, got {start.t}")
