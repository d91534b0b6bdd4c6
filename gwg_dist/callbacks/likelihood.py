"""AIS log-likelihoods of the averaged weights, every so many iterations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from gwg_dist.callbacks.estimates import (
    LEAST_CHAINS,
    Underway,
    assess_module,
    in_eval_mode,
    some_chains,
    tell_of_no_pilot,
    with_other_side,
)
from gwg_dist.callbacks.online import Online
from gwg_dist.callbacks.progress import progress_of
from gwg_dist.data import DiscreteData
from gwg_dist.evaluation import AISSettings, Unfinished, collapse_warning, describe
from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import world_size
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say

FULL_PRECISIONS = ("32-true", "64-true")
FEWER = 5  # forward chains for one of the other side


class AISLikelihood(Callback):
    """Logs val/log_likelihood, test/log_likelihood (nats) and the state of the AIS weights; warns when they collapse.

    From the run's persistent chains, a fifth as many and at least 20, log Z is estimated backwards as well, which takes
    a quarter as many gradient evaluations again. val/low_side and val/high_side are the likelihoods by the highest and
    by the lowest log Z of forward AIS, reverse AIS and Bennett's ratio, and likewise of test.

    Put it after AveragedWeights, so that it sees that iteration's average. ``module.assessment`` is the newest
    assessment and its iteration. ``stop``, where it is set, is asked on all ranks every few temperatures. An evaluation
    that it cuts short is ``due``, and the checkpoint holds how far it came: the resumed run goes on with it first. The
    newest weights are ``undecided`` where their evaluation is due or its AIS weights have collapsed.

    Between evaluations ``online`` logs val/online, a running estimate, see ``Online``; each evaluation logs as
    ais/online_drift how far it had come to lie above, nats.

    Args:
        every: iterations between two evaluations; the last iteration is evaluated as well. 0 turns it off.
        num_chains: AIS chains on all ranks together.
        num_temperatures: gradient evaluations a chain.
        schedule: "linear", "sigmoid", "geometric" or "adaptive", which needs ``pilot``.
        final_temperatures: gradient evaluations a chain in the evaluation after training, of the best weights.
        pilot: gradient evaluations a chain of a run before each estimate, which tunes the kernel for each beta; 0 for
            none.
        both_sides: whether log Z is estimated from the run's chains as well; the best weights are chosen by the
            lower likelihood of the two then.
        online: whether to keep a running estimate between evaluations, by an energy more of an iteration's chains.

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
        both_sides: bool = True,
        online: bool = False,
    ) -> None:
        if every < 0:
            raise ValueError(f"every must not be negative, got {every}")
        self.every = every
        self.settings = AISSettings(num_chains, num_temperatures, schedule, pilot)
        self.final_settings = replace(self.settings, num_temperatures=final_temperatures)
        self.both_sides = both_sides
        self.online = Online() if online else None
        self.stop: Callable[[], bool] | None = None
        self.due = False
        self.undecided = False
        self.unfinished: tuple[int, Unfinished] | None = None
        self._starts: tuple[int, Tensor] | None = None  # of an evaluation that has begun
        self._found: float | None = None  # log Z that the running estimate is to agree with, once there are chains
        self._has_begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, EBMModule)
        sampler = pl_module.sampler
        if trainer.is_global_zero and sampler.retreat(0.0) is None:
            tell_of_no_pilot(self.settings, sampler, "evaluation.pilot")
        self._has_begun = False
        if self.online is not None:
            check_online(trainer, pl_module)
        if self.due:
            self._evaluate(trainer, pl_module, has_chains=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Chains are there now."""
        if self.online is None or self._has_begun:
            return
        assert isinstance(pl_module, EBMModule)
        self._has_begun = True
        self.online.begin(pl_module)
        self._anchor(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Chains have moved, and the weights are still those that they moved on."""
        if self.online is not None:
            assert isinstance(pl_module, EBMModule)
            self.online.moved(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        assert isinstance(pl_module, EBMModule)
        if self.online is not None:
            self._tell_online(trainer, pl_module, self.online)
        if self.every and (step % self.every == 0 or step == trainer.max_steps):
            self._evaluate(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        unfinished = None
        if self.unfinished is not None:
            iteration, estimate = self.unfinished
            unfinished = {"iteration": iteration, **estimate._asdict()}
        state = {"due": self.due, "undecided": self.undecided, "unfinished": unfinished}
        if self._starts is not None:
            state["starts"] = {"iteration": self._starts[0], "packed": self._starts[1]}
        if self.online is not None:
            state["online"] = {"b": self.online.state(), "found": self._found}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.due, self.undecided = state_dict["due"], state_dict["undecided"]
        unfinished = dict(state_dict.get("unfinished") or {})
        self.unfinished = (unfinished.pop("iteration"), Unfinished(**unfinished)) if unfinished else None
        starts = state_dict.get("starts")
        self._starts = (starts["iteration"], starts["packed"]) if starts else None
        online = state_dict.get("online")
        if self.online is not None and online:
            self.online.load(online["b"])
            self._found = online["found"]

    def _evaluate(self, trainer: Trainer, module: LightningModule, *, has_chains: bool = True) -> None:
        assert isinstance(module, EBMModule)
        step = trainer.global_step
        data: DiscreteData = module.data
        self.due = self.undecided = True
        begun = self.unfinished[1] if self.unfinished is not None and self.unfinished[0] == step else None
        starts = self._begin(module, step, has_chains=has_chains) if self.both_sides else None
        underway = Underway(step, progress_of(trainer), self.stop)
        with module.evaluated_weights():
            outcome = assess_module(module, data.splits, self.settings, underway._replace(unfinished=begun))
            assessment = None if isinstance(outcome, Unfinished) else outcome
            if assessment is not None and starts is not None:
                assessment = with_other_side(
                    module, assessment, self.settings.for_kernel(module.sampler), starts, underway
                )
        if assessment is None:
            self.unfinished = (step, outcome) if isinstance(outcome, Unfinished) else None
            trainer.should_stop = True
            return
        self.unfinished = self._starts = None
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
        if not assessment.collapsed:
            self._found = (assessment.estimate if assessment.sides is None else assessment.sides).log_z
        if has_chains:
            self._anchor(trainer, module)

    def _anchor(self, trainer: Trainer, module: EBMModule) -> None:
        """Let the running estimate agree with the newest evaluation, and log by how much it lay above."""
        if self.online is None or self._found is None:
            return
        log_z, self._found = self._found, None
        with module.evaluated_weights(), in_eval_mode(module):
            before = self.online.log_z(module)
        self.online.anchor(module, log_z, before)
        if before is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics({"ais/online_drift": log_z - before[0]}, trainer.global_step)

    def _tell_online(self, trainer: Trainer, module: EBMModule, online: Online) -> None:
        if module.stats is None:  # the run went back to an earlier state
            online.forget()
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            metrics = online.metrics(module)
            for logger in trainer.loggers if metrics else ():
                logger.log_metrics(metrics, trainer.global_step)

    def _begin(self, module: EBMModule, step: int, *, has_chains: bool) -> Tensor | None:
        """Where reverse runs begin, codes ``(N, D)``, the same on all ranks; None where the run has too few chains.

        They are kept for an evaluation that is cut short: where a run goes on, there are no chains yet.
        """
        if self._starts is None or self._starts[0] != step:
            num = min(max(self.settings.num_chains // FEWER, LEAST_CHAINS, world_size()), self.settings.num_chains)
            packed = some_chains(module, module.chains.gather(), num, iteration=step) if has_chains else None
            self._starts = None if packed is None else (step, packed)
        return None if self._starts is None else module.space.unpack(self._starts[1].to(module.device))


def check_online(trainer: Trainer, module: EBMModule) -> None:
    """Raise InputError where a run keeps no chains, or rounds its energies: it has no running estimate."""
    if not module.objective.needs_chains or not module.chains.tells_starts:
        raise InputError("evaluation.online needs an objective with chains, and a source that keeps them: ChainBuffer")
    if str(trainer.precision) not in FULL_PRECISIONS:
        raise InputError(f"evaluation.online needs trainer.precision in full, 32-true, got {trainer.precision}")
