"""Annealed estimates of log Z on the present weights of a module, from either side, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor

from gwg_dist.data import Splits
from gwg_dist.evaluation import (
    AISResult,
    AISSettings,
    AnnealPoint,
    Assessment,
    ReverseResult,
    Settled,
    TunedPath,
    Unfinished,
    ais_result,
    ais_start,
    anneal,
    assessment_of,
    reverse_result,
    reverse_start,
    rungs_of,
    set_aside,
    settled,
    sides_of,
    take_up,
)  # fmt: skip
from gwg_dist.evaluation.assess import AIS
from gwg_dist.module import EBMModule
from gwg_dist.samplers import Sampler
from gwg_dist.tools.distributed import rank
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import say, track

CHECK_EVERY = 10  # temperatures between two looks at whether to stop
LEAST_CHAINS = 20  # persistent chains without which there is no other side
SHORTER = 4  # temperatures for one step that points take before they are annealed back

Keep = Callable[[Callable[[], Unfinished]], None]
"""Takes a function that gathers an estimate to go on with; it is called on all ranks, or on none."""


class Underway(NamedTuple):
    """How a long estimate is made: of which weights, where it is shown, and who may stop and keep it.

    Args:
        iteration: iteration of the weights; it names the random stream.
        progress: where to show a bar.
        stop: asked every few temperatures or steps, on all ranks at the same one, whether to stop.
        unfinished: an estimate of these very weights to go on with; one that does not fit begins again.
        keep: called at the end of every segment but the last, with what makes an estimate to go on with there.
        at: called with the point at every rung of the path, see ``rungs_of``.
    """

    iteration: int
    progress: Progress | None = None
    stop: Callable[[], bool] | None = None
    unfinished: Unfinished | None = None
    keep: Keep | None = None
    at: Callable[[AnnealPoint], None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether ``stop`` says so."""
        return self.stop is not None and self.stop()


def assess_module(
    module: EBMModule, splits: Splits, settings: AISSettings, underway: Underway
) -> Assessment | Unfinished:
    """AIS on the module's present weights and the likelihood of validation and test; called on every rank.

    Args:
        module: module that holds the weights to assess.
        splits: splits of its data.
        settings: settings of the estimate.
        underway: how it is made.

    Returns:
        The assessment; where it was stopped, the estimate to go on with.
    """
    estimate = forward_of(module, settings, underway)
    if isinstance(estimate, Unfinished):
        return estimate
    with in_eval_mode(module):
        return assessment_of(estimate, module.target, held_out(splits))


def forward_of(module: EBMModule, settings: AISSettings, underway: Underway) -> AISResult | Unfinished:
    """Forward AIS or SMC on the module's present weights; called on every rank.

    Args:
        module: module that holds the weights.
        settings: settings of the estimate.
        underway: how it is made.
    """
    iteration, unfinished = underway.iteration, underway.unfinished
    settings = settings.for_kernel(module.sampler)
    target, space, dtype = module.target, module.space, module.reference.weights.dtype
    kernel = module.sampler.annealed()
    generator = make_generator(module.seed, "ais", iteration, settings.num_temperatures, rank(), device=module.device)
    with (
        in_eval_mode(module),
        track(underway.progress, settings.estimator.upper(), settings.num_temperatures) as advance,
    ):
        start = None
        if unfinished is not None:
            start = take_up(unfinished, space, settings, dtype=dtype, generator=generator, kernel=kernel)
        if unfinished is not None and start is not None:
            path = TunedPath(kernel, tuple(unfinished.values), tuple(unfinished.knots)) if settings.pilot else None
        else:
            start = ais_start(
                target, generator=generator, num_chains=settings.num_chains, num_systems=settings.num_systems
            )
            pilot = make_generator(module.seed, "pilot", iteration, settings.pilot, rank(), device=module.device)
            path = settings.path(target, kernel, generator=pilot, backend=module.backend)
        found = annealed(
            module, kernel if path is None else path, start, settings, underway, generator=generator, advance=advance
        )
        if isinstance(found, Unfinished):
            return found
        return ais_result(space, found, path, num_systems=settings.num_systems)


def annealed(
    module: EBMModule,
    sampler: Sampler | TunedPath,
    start: AnnealPoint,
    settings: AISSettings,
    underway: Underway,
    *,
    generator: torch.Generator,
    backwards: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> AnnealPoint | Unfinished:
    """Chains at the end of the path of betas; where they were stopped, what to go on with. Called on every rank.

    Args:
        module: module that holds the weights.
        sampler: see ``anneal``.
        start: point to go on from.
        settings: settings of the estimate.
        underway: how it is made.
        generator: this rank's own.
        backwards: from beta = 1 down.
        advance: called with the number of temperatures done.
    """
    keep, at = underway.keep, underway.at
    betas = settings.betas(sampler if isinstance(sampler, TunedPath) else None)
    betas = betas.flip(0) if backwards else betas
    if start.generator_state is None:
        start = start._replace(generator_state=generator.get_state())
    rungs = rungs_of(settings.num_temperatures) if at is not None else []
    point = kept = start
    if at is not None and not start.t:
        at(start)
    for point in anneal(
        module.target, sampler, start, betas, generator=generator, every=settings.every, look=CHECK_EVERY, also=rungs,
        between=settings.between, backend=module.backend,
    ):  # fmt: skip
        advance(point.t)
        if at is not None and point.t in rungs:
            at(point)
        if point.t == settings.num_temperatures:
            break
        kept = kept if point.generator_state is None else point
        if underway.is_over:
            return set_aside(kept, module.space, settings, sampler)
        if keep is not None and kept is point:
            keep(partial(set_aside, kept, module.space, settings, sampler))
    return point


def settled_of(module: EBMModule, codes: Tensor, num_steps: int, underway: Underway) -> Settled | None:
    """Points of the module's model after more steps on its present weights, see ``settled``; called on every rank.

    Args:
        module: module that holds the weights.
        codes: points ``(N, D)``, the same on all ranks.
        num_steps: steps; 0 leaves the points as they are.
        underway: how it is done. Steps that are stopped are given up: None is returned.
    """
    names = ("settle", underway.iteration, num_steps, len(codes), rank())
    generator = make_generator(module.seed, *names, device=module.device)
    with in_eval_mode(module), track(underway.progress, "chains", num_steps) as advance:
        return settled(
            module.target, module.sampler.annealed(), codes, num_steps=num_steps, generator=generator,
            stop=lambda: underway.is_over, advance=advance, backend=module.backend,
        )  # fmt: skip


def reverse_of(
    module: EBMModule,
    settings: AISSettings,
    starts: Tensor,
    underway: Underway,
    *,
    path: TunedPath | None = None,
) -> ReverseResult | Unfinished:
    """Reverse AIS on the module's present weights; called on every rank.

    Args:
        module: module that holds the weights.
        settings: settings of the forward estimate; there are as many chains as points.
        starts: points of the model, codes ``(N, D)``, the same on all ranks.
        underway: how it is made.
        path: what the forward estimate's pilot run found.
    """
    settings = replace(settings, num_chains=len(starts), estimator=AIS)
    names = ("reverse", underway.iteration, settings.num_temperatures, rank())
    generator = make_generator(module.seed, *names, device=module.device)
    with in_eval_mode(module), track(underway.progress, "reverse AIS", settings.num_temperatures) as advance:
        start = reverse_start(module.target, starts)
        if underway.unfinished is not None:
            dtype = module.reference.weights.dtype
            start = take_up(underway.unfinished, module.space, settings, dtype=dtype, generator=generator) or start
        found = annealed(
            module, path or module.sampler.annealed(), start, settings, underway, generator=generator, backwards=True,
            advance=advance,
        )  # fmt: skip
        return found if isinstance(found, Unfinished) else reverse_result(found)


def with_other_side(
    module: EBMModule,
    assessment: Assessment,
    settings: AISSettings,
    starts: Tensor,
    underway: Underway,
) -> Assessment | None:
    """The assessment with log Z from other points as well; None where it was stopped. Called on every rank.

    An assessment that has collapsed needs no other side.

    Args:
        module: module that holds the weights.
        assessment: forward side of the same weights.
        settings: its settings.
        starts: points of the model, codes ``(N, D)``; they take a step for every four temperatures before.
        underway: how it is made.
    """
    if assessment.collapsed:
        return assessment
    steps = settings.num_temperatures // SHORTER
    points = settled_of(module, starts, steps, underway)
    if points is None:
        return None
    estimate = assessment.estimate
    reverse = reverse_of(module, settings, points.codes, underway, path=estimate.path)
    if isinstance(reverse, Unfinished):
        return None
    if not bool(torch.isfinite(reverse.log_weights).all()):
        return assessment
    with in_eval_mode(module):
        sides = sides_of(estimate, reverse, module.target, points.codes, drift=points.drift)
    return replace(assessment, sides=sides)


def some_chains(module: EBMModule, packed: Tensor | None, num: int, *, iteration: int) -> Tensor | None:
    """At most ``num`` chains of the model, packed ``(n, ...)``, by the iteration's own draw; None of fewer than 20.

    Args:
        module: module whose chains they are.
        packed: what its chains' ``gather`` returned, the same on all ranks.
        num: chains that are wanted.
        iteration: names the draw.
    """
    packed = None if packed is None else module.chains.of_model(packed)
    if packed is None or len(packed) < LEAST_CHAINS:
        return None
    generator = torch.Generator().manual_seed(module.seed + iteration)
    return packed[torch.randperm(len(packed), generator=generator)[:num]]


def tell_of_no_pilot(settings: AISSettings, sampler: Sampler, name: str) -> None:
    """Say that the setting ``name`` of a pilot run has no effect, where ``sampler`` has nothing to tune."""
    if settings.for_kernel(sampler) != settings:
        say(f"{name} has no effect: {type(sampler).__name__} has nothing to tune")


def held_out(splits: Splits) -> dict[str, tuple[Tensor, Tensor | None]]:
    """The data that a model is assessed on, codes ``(N, D)`` and weights, under the names that metrics have."""
    return {"val": splits.parts["validation"], "test": splits.parts["test"]}


@contextmanager
def in_eval_mode(module: EBMModule) -> Iterator[None]:
    """Within it the module is in evaluation mode; afterwards in the one it was in."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
