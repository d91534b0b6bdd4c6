"""AIS log-likelihoods of the averaged weights, every so many iterations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from rich.progress import Progress

from gwg_dist.callbacks.interruption import Interruption
from gwg_dist.callbacks.progress import console, progress_of, track
from gwg_dist.data import DiscreteData, Splits
from gwg_dist.distributed import rank
from gwg_dist.evaluation import AISResult, Likelihood, ais_result, ais_start, anneal, beta_schedule, log_likelihood
from gwg_dist.module import EBMModule
from gwg_dist.seeding import make_generator

CHECK_EVERY = 10  # temperatures between two looks at whether to stop


@dataclass(frozen=True)
class AISSettings:
    """How log Z is estimated.

    Args:
        num_chains: on all ranks together.
        num_temperatures: gradient evaluations a chain.
        schedule: "linear" or "sigmoid".

    Raises:
        ValueError: fewer than two chains or one temperature, an unknown schedule.
    """

    num_chains: int = 200
    num_temperatures: int = 1000
    schedule: str = "linear"

    def __post_init__(self) -> None:
        if self.num_chains < 2:
            raise ValueError(f"num_chains must be at least 2 for a standard error, got {self.num_chains}")
        beta_schedule(self.num_temperatures, self.schedule)


@dataclass(frozen=True)
class Report:
    """An estimate of log Z and what follows from it, by split."""

    estimate: AISResult
    likelihoods: dict[str, Likelihood]
    reference: dict[str, float]

    def metrics(self) -> dict[str, float]:
        """For loggers: nats, counts."""
        values = {f"{name}/log_likelihood": likelihood.mean for name, likelihood in self.likelihoods.items()}
        return values | {
            "ais/log_z": self.estimate.log_z,
            "ais/log_z_stderr": self.estimate.stderr,
            "ais/ess": self.estimate.ess,
            "ais/collapsed": float(self.estimate.collapsed),
        }


def evaluate_module(
    module: EBMModule,
    splits: Splits,
    settings: AISSettings,
    *,
    iteration: int,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Report | None:
    """AIS on the module's present weights and the likelihood of validation and test; called on every rank.

    None where ``stop``, asked every few temperatures on all ranks at once, says so.
    """
    stream = (iteration, settings.num_temperatures, rank())
    generator = make_generator(module.seed, "ais", *stream, device=module.device)
    target, betas = module.target, beta_schedule(settings.num_temperatures, settings.schedule)
    likelihoods, reference = {}, {}
    with in_eval_mode(module), track(progress, "AIS", settings.num_temperatures) as advance:
        start = point = ais_start(target, generator=generator, num_chains=settings.num_chains)
        for point in anneal(
            target, module.sampler, start, betas, generator=generator, look=CHECK_EVERY, backend=module.backend
        ):
            advance(point.t)
            if point.t < settings.num_temperatures and stop is not None and stop():
                return None
        estimate = ais_result(module.space, point)
        for name, codes in (("val", splits.validation), ("test", splits.test)):
            if len(codes):
                codes = codes.to(module.device)
                likelihoods[name] = log_likelihood(target, codes, estimate)
                x = module.space.encode(codes, module.reference.weights.dtype)
                reference[name] = float(module.reference.log_prob(x).double().mean())
    return Report(estimate, likelihoods, reference)


class AISLikelihood(Callback):
    """Logs val/log_likelihood, test/log_likelihood (nats) and the state of the AIS weights; warns when they collapse.

    Put it after a WeightAveraging callback, so that it sees that iteration's average. ``latest`` is the newest report
    and its iteration. An evaluation that a signal cuts short is ``due``: the resumed run makes up for it first. The
    newest weights are ``undecided`` where their evaluation is due or its weights have collapsed.

    Args:
        every: iterations between two evaluations; the last iteration is evaluated as well. 0 turns it off.
        num_chains: on all ranks together.
        num_temperatures: gradient evaluations a chain.
        schedule: "linear" or "sigmoid".
        final_temperatures: of the evaluation after training, on the best weights.

    Raises:
        ValueError: a count outside its range, an unknown schedule.
    """

    def __init__(
        self,
        *,
        every: int = 1000,
        num_chains: int = 200,
        num_temperatures: int = 500,
        schedule: str = "linear",
        final_temperatures: int = 2000,
    ) -> None:
        if every < 0:
            raise ValueError(f"every must not be negative, got {every}")
        self.every = every
        self.settings = AISSettings(num_chains, num_temperatures, schedule)
        self.final_settings = replace(self.settings, num_temperatures=final_temperatures)
        self.latest: tuple[int, Report] | None = None
        self.due = False
        self.undecided = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.due:
            self._evaluate(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every and (step % self.every == 0 or step == trainer.max_steps):
            self._evaluate(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"due": self.due, "undecided": self.undecided}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.due, self.undecided = state_dict["due"], state_dict["undecided"]

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, EBMModule)
        step = trainer.global_step
        data: DiscreteData = module.data
        stops = [c.agreed for c in trainer.callbacks if isinstance(c, Interruption)]  # pyright: ignore[reportAttributeAccessIssue]
        self.due = self.undecided = True
        with averaged_weights(trainer, module):
            report = evaluate_module(
                module, data.splits, self.settings, iteration=step, progress=progress_of(trainer),
                stop=stops[0] if stops else None,
            )  # fmt: skip
        if report is None:
            trainer.should_stop = True
            return
        self.due, self.undecided = False, report.estimate.collapsed
        self.latest = (step, report)
        metrics = report.metrics()
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)
        module.log_dict(metrics, logger=False)
        if trainer.is_global_zero:
            console.print(describe(report, step), soft_wrap=True)


def describe(report: Report, step: int) -> str:
    """One line; a second one where the weights have collapsed."""
    estimate = report.estimate
    parts = [f"{name} {value.mean:.2f}" for name, value in report.likelihoods.items()]
    line = (
        f"iteration {step}: log-likelihood {', '.join(parts)} ± {estimate.stderr:.2f} nats "
        f"(AIS, {estimate.num_temperatures} temperatures, ESS {estimate.ess:.0f} of {len(estimate.log_weights)})"
    )
    return f"{line}\n[bold red]{collapse_warning(estimate)}[/]" if estimate.collapsed else line


def collapse_warning(estimate: AISResult) -> str:
    """What to make of an estimate that a handful of chains carry."""
    return (
        f"warning: {estimate.ess:.1f} of {len(estimate.log_weights)} AIS chains carry the estimate; do not believe "
        "this likelihood. Use more temperatures; if that does not help, the model has modes that chains do not reach: "
        "more steps an iteration, a lower learning rate, or restarts."
    )


@contextmanager
def averaged_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Within it the module holds the averaged weights, through the hooks that swap them for Lightning's validation."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # pyright: ignore[reportAttributeAccessIssue]
    for callback in averages:
        callback.on_validation_epoch_start(trainer, module)
    try:
        yield
    finally:
        for callback in averages:
            callback.on_validation_epoch_end(trainer, module)


@contextmanager
def in_eval_mode(module: EBMModule) -> Iterator[None]:
    """Within it the module is in evaluation mode; afterwards in the one it was in."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
