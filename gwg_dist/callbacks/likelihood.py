"""AIS log-likelihoods of the averaged weights, every so many iterations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import Progress
from torch import Tensor

from gwg_dist.callbacks.progress import progress_of
from gwg_dist.data import DiscreteData, Splits
from gwg_dist.evaluation import (
    AISResult,
    AISSettings,
    AnnealPoint,
    Assessment,
    TunedPath,
    Unfinished,
    ais_result,
    ais_start,
    anneal,
    assessment_of,
    collapse_warning,
    describe,
    rungs_of,
    set_aside,
    take_up,
)  # fmt: skip
from gwg_dist.module import EBMModule
from gwg_dist.samplers import Sampler
from gwg_dist.tools.distributed import rank
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import say, track

CHECK_EVERY = 10  # temperatures between two looks at whether to stop

Keep = Callable[[Callable[[], Unfinished]], None]
"""Takes a function that gathers an estimate to go on with; it is called on all ranks, or on none."""


def assess_module(
    module: EBMModule,
    splits: Splits,
    settings: AISSettings,
    *,
    iteration: int,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    unfinished: Unfinished | None = None,
    keep: Keep | None = None,
) -> Assessment | Unfinished:
    """AIS on the module's present weights and the likelihood of validation and test; called on every rank.

    Args:
        module: module that holds the weights to assess.
        splits: splits of its data.
        settings: settings of the estimate.
        iteration: iteration of the weights; it names the random stream.
        progress: where to show a bar.
        stop: asked every few temperatures, on all ranks at the same one, whether to stop.
        unfinished: an estimate of these very weights to go on with; one that does not fit begins again.
        keep: see ``annealed``.

    Returns:
        The assessment; where ``stop`` said so, the estimate to go on with.
    """
    estimate = forward_of(
        module, settings, iteration=iteration, progress=progress, stop=stop, unfinished=unfinished, keep=keep
    )
    if isinstance(estimate, Unfinished):
        return estimate
    with in_eval_mode(module):
        return assessment_of(estimate, module.target, held_out(splits))


def forward_of(
    module: EBMModule,
    settings: AISSettings,
    *,
    iteration: int,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    unfinished: Unfinished | None = None,
    keep: Keep | None = None,
    at: Callable[[AnnealPoint], None] | None = None,
) -> AISResult | Unfinished:
    """Forward AIS on the module's present weights; called on every rank.

    The arguments are those of ``assess_module``, and ``at``, which is that of ``annealed``.
    """
    settings = settings.for_kernel(module.sampler)
    target, space, dtype = module.target, module.space, module.reference.weights.dtype
    kernel = module.sampler.annealed()
    generator = make_generator(module.seed, "ais", iteration, settings.num_temperatures, rank(), device=module.device)
    with in_eval_mode(module), track(progress, "AIS", settings.num_temperatures) as advance:
        start = None
        if unfinished is not None:
            start = take_up(unfinished, space, settings, dtype=dtype, generator=generator, kernel=kernel)
        if unfinished is not None and start is not None:
            path = TunedPath(kernel, tuple(unfinished.values), tuple(unfinished.knots)) if settings.pilot else None
        else:
            start = ais_start(target, generator=generator, num_chains=settings.num_chains)
            pilot = make_generator(module.seed, "pilot", iteration, settings.pilot, rank(), device=module.device)
            path = settings.path(target, kernel, generator=pilot, backend=module.backend)
        found = annealed(
            module, kernel if path is None else path, start, settings, generator=generator, advance=advance,
            stop=stop, keep=keep, at=at,
        )  # fmt: skip
        return found if isinstance(found, Unfinished) else ais_result(space, found, path)


def annealed(
    module: EBMModule,
    sampler: Sampler | TunedPath,
    start: AnnealPoint,
    settings: AISSettings,
    *,
    generator: torch.Generator,
    backwards: bool = False,
    advance: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] | None = None,
    keep: Keep | None = None,
    at: Callable[[AnnealPoint], None] | None = None,
) -> AnnealPoint | Unfinished:
    """Chains at the end of the path of betas; where ``stop`` said so, what to go on with. Called on every rank.

    Args:
        module: module that holds the weights.
        sampler: see ``anneal``.
        start: point to go on from.
        settings: settings of the estimate.
        generator: this rank's own.
        backwards: from beta = 1 down.
        advance: called with the number of temperatures done.
        stop: asked every few temperatures, on all ranks at the same one, whether to stop.
        keep: called at the end of every segment but the last, with what makes an estimate to go on with there.
        at: called with the point at every rung of the path, see ``rungs_of``.
    """
    betas = settings.betas(sampler if isinstance(sampler, TunedPath) else None)
    betas = betas.flip(0) if backwards else betas
    if start.generator_state is None:
        start = start._replace(generator_state=generator.get_state())
    rungs = rungs_of(settings.num_temperatures) if at is not None else []
    point = kept = start
    if at is not None and not start.t:
        at(start)
    for point in anneal(
        module.target, sampler, start, betas, generator=generator, look=CHECK_EVERY, also=rungs, backend=module.backend
    ):
        advance(point.t)
        if at is not None and point.t in rungs:
            at(point)
        if point.t == settings.num_temperatures:
            break
        kept = kept if point.generator_state is None else point
        if stop is not None and stop():
            return set_aside(kept, module.space, settings, sampler)
        if keep is not None and kept is point:
            keep(partial(set_aside, kept, module.space, settings, sampler))
    return point


def tell_of_no_pilot(settings: AISSettings, sampler: Sampler, name: str) -> None:
    """Say that the setting ``name`` of a pilot run has no effect, where ``sampler`` has nothing to tune."""
    if settings.for_kernel(sampler) != settings:
        say(f"{name} has no effect: {type(sampler).__name__} has nothing to tune")


def held_out(splits: Splits) -> dict[str, tuple[Tensor, Tensor | None]]:
    """The data that a model is assessed on, codes ``(N, D)`` and weights, under the names that metrics have."""
    return {"val": splits.parts["validation"], "test": splits.parts["test"]}


class AISLikelihood(Callback):
    """Logs val/log_likelihood, test/log_likelihood (nats) and the state of the AIS weights; warns when they collapse.

    Put it after AveragedWeights, so that it sees that iteration's average. ``module.assessment`` is the newest
    assessment and its iteration. ``stop``, where it is set, is asked on all ranks every few temperatures. An evaluation
    that it cuts short is ``due``, and the checkpoint holds how far it came: the resumed run goes on with it first. The
    newest weights are ``undecided`` where their evaluation is due or its AIS weights have collapsed.

    Args:
        every: iterations between two evaluations; the last iteration is evaluated as well. 0 turns it off.
        num_chains: AIS chains on all ranks together.
        num_temperatures: gradient evaluations a chain.
        schedule: "linear", "sigmoid", "geometric" or "adaptive", which needs ``pilot``.
        final_temperatures: gradient evaluations a chain in the evaluation after training, of the best weights.
        pilot: gradient evaluations a chain of a run before each estimate, which tunes the kernel for each beta; 0 for
            none.

    Raises:
        ValueError: a count outside its range, an unknown schedule, a pilot run that is too short.
    """

    def __init__(
        self,
        *,
        every: int = 1000,
        num_chains: int = 200,
        num_temperatures: int = 500,
        schedule: str = "linear",
        final_temperatures: int = 2000,
        pilot: int = 0,
    ) -> None:
        if every < 0:
            raise ValueError(f"every must not be negative, got {every}")
        self.every = every
        self.settings = AISSettings(num_chains, num_temperatures, schedule, pilot)
        self.final_settings = replace(self.settings, num_temperatures=final_temperatures)
        self.stop: Callable[[], bool] | None = None
        self.due = False
        self.undecided = False
        self.unfinished: tuple[int, Unfinished] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, EBMModule)
        sampler = pl_module.sampler
        if trainer.is_global_zero and sampler.retreat(0.0) is None:
            tell_of_no_pilot(self.settings, sampler, "evaluation.pilot")
        if self.due:
            self._evaluate(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every and (step % self.every == 0 or step == trainer.max_steps):
            self._evaluate(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        unfinished = None
        if self.unfinished is not None:
            iteration, estimate = self.unfinished
            unfinished = {"iteration": iteration, **estimate._asdict()}
        return {"due": self.due, "undecided": self.undecided, "unfinished": unfinished}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.due, self.undecided = state_dict["due"], state_dict["undecided"]
        unfinished = dict(state_dict.get("unfinished") or {})
        self.unfinished = (unfinished.pop("iteration"), Unfinished(**unfinished)) if unfinished else None

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, EBMModule)
        step = trainer.global_step
        data: DiscreteData = module.data
        self.due = self.undecided = True
        begun = self.unfinished[1] if self.unfinished is not None and self.unfinished[0] == step else None
        with module.evaluated_weights():
            outcome = assess_module(
                module, data.splits, self.settings, iteration=step, progress=progress_of(trainer), stop=self.stop,
                unfinished=begun,
            )  # fmt: skip
        if isinstance(outcome, Unfinished):
            self.unfinished = (step, outcome)
            trainer.should_stop = True
            return
        assessment = outcome
        self.unfinished = None
        self.due, self.undecided = False, assessment.collapsed
        module.assessment = (step, assessment)
        metrics = assessment.metrics()
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)
        module.log_dict(metrics, logger=False)
        if trainer.is_global_zero:
            say(f"iteration {step}: {describe(assessment)}")
            if assessment.collapsed:
                say(collapse_warning(assessment), "bold red")


@contextmanager
def in_eval_mode(module: EBMModule) -> Iterator[None]:
    """Within it the module is in evaluation mode; afterwards in the one it was in."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
