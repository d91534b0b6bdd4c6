"""A run by the clock: ``--max_minutes`` becomes a number of iterations and of temperatures before the first iteration.

What an iteration and a temperature take is measured on a copy of the model, so no weight, chain or random stream of the
run moves. Rank 0's clock decides for all ranks. The outcome is written to config.yaml as numbers: a run that goes on
does not measure again, and is reproducible like any other. Not implemented: a clock that is looked at later, so a
machine that becomes slower makes a longer run.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.batch import Batch
from gwg_dist.callbacks import AISLikelihood, Underway, assess_module
from gwg_dist.callbacks.averaging import averaged
from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import from_rank_0, launched_rank
from gwg_dist.tools.terminal import say
from gwg_dist.training import recipe
from gwg_dist.training.checkpoints import RunCheckpoints
from gwg_dist.training.recipe import MAX_TEMPERATURES, NUM_EVALUATIONS, Choice
from gwg_dist.training.trainer import yardstick

TRAINING_SHARE, EVALUATED_SHARE, FINAL_SHARE = 0.7, 0.03, 0.12  # of the time, of forward sides; the last may be two
MEASURED_SHARE, WARM, LEAST, MOST = 0.03, 3, 5, 100
FEW, MANY = 5, 55  # temperatures of the estimates that are timed
LOOP_SECONDS = 1.5e-3  # what Lightning's loop and the callbacks take in an iteration
LEAST_TEMPERATURES = 50


class Speed(NamedTuple):
    """Seconds of an iteration, of a temperature of the estimate, and of the likelihood of the held-out points."""

    iteration: float
    temperature: float
    held_out: float


class Budget(Callback):
    """Sets the length of a run, and what hangs on it, so that training and evaluation take so many minutes.

    Args:
        minutes: from ``began`` to the closing table.
        config: settings of the run; its numbers are replaced by those that are decided.
        objects: what ``instantiate`` made of them, with its ``choices``.
        began: when the run began, by ``time.monotonic``.
        start: iteration that the run goes on from.
    """

    def __init__(self, minutes: float, *, config: Namespace, objects: Namespace, began: float, start: int = 0) -> None:
        self.minutes = minutes
        self.config = config
        self.objects = objects
        self.began = began
        self.start = start

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Measure, decide, and say so; before the optimizer and the chains are made."""
        assert isinstance(pl_module, EBMModule)
        seconds = 60 * self.minutes
        speed = measure(trainer, pl_module, self.objects.evaluation, seconds)
        left = max(seconds - (time.monotonic() - self.began), seconds / 2)
        speed, left = from_rank_0((speed, left))
        choices = decide(self.config, self.objects, speed, left, start=self.start)
        for choice in choices:
            self.config[choice.key] = choice.value
            apply(choice, trainer, self.objects)
        self.config.max_minutes = None
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoints):
                callback.yardstick = yardstick(self.config)
        if trainer.is_global_zero:
            say(
                f"{self.minutes:g} minutes: an iteration takes {1e3 * speed.iteration:.3g} ms, a temperature "
                f"{1e3 * speed.temperature:.3g} ms"
            )
            decided = {choice.key for choice in choices}
            recipe.say_choices(choices + [other for other in self.objects.choices if other.key not in decided])


def budget_of(config: Namespace, objects: Namespace, *, began: float, start: int) -> list[Budget]:
    """The callback that a run by the clock needs; none for another. Minutes that set nothing are said."""
    if config.max_minutes is None:
        return []
    if all(choice.key != "trainer.max_steps" for choice in objects.choices):
        if launched_rank() == 0:
            say(f"max_minutes has no effect: trainer.max_steps is {config.trainer.max_steps}, not auto")
        return []
    return [Budget(config.max_minutes, config=config, objects=objects, began=began, start=start)]


def measure(trainer: Trainer, module: EBMModule, evaluation: AISLikelihood, seconds: float) -> Speed:
    """Time iterations and temperatures on a copy of ``module``; called on every rank, and rank 0's clock counts."""
    duplicate, patience = duplicate_of(trainer, module), MEASURED_SHARE * seconds
    step = iteration_of(duplicate)
    with torch.random.fork_rng(devices=[]):
        duplicate.setup("fit")
        duplicate.on_train_start()
        for number in range(WARM):  # compiling is no part of an iteration
            step(number)
        iteration = typical(lambda: step(WARM), patience)

        def estimate(num: int) -> None:
            settings = replace(evaluation.settings, num_temperatures=num)
            assess_module(duplicate, duplicate.data.splits, settings, Underway(0))

        estimate(FEW)
        few, many = (typical(lambda num=num: estimate(num), patience / 2) for num in (FEW, MANY))
    temperature = (many - few) / (MANY - FEW) if many > few else many / MANY
    return Speed(iteration + LOOP_SECONDS, temperature, max(few - FEW * temperature, 0.0))


def typical(function: Callable[[], object], patience: float) -> float:
    """Median seconds of a call, of several calls: what else the machine does in one of them does not count.

    Called on every rank, which call equally often.
    """
    times = list[float]()
    while from_rank_0(len(times) < LEAST or (len(times) < MOST and sum(times) < patience)):
        times.append(seconds_of(function))
    return statistics.median(times)


def decide(config: Namespace, objects: Namespace, speed: Speed, left: float, *, start: int = 0) -> list[Choice]:
    """The length that fits into the seconds that are left, and the settings that were left to the recipe with it."""
    pending = {choice.key for choice in objects.choices if choice.by_length}
    num = max(int(TRAINING_SHARE * left / speed.iteration), 1)
    found = Choice("trainer.max_steps", start + num, f"{TRAINING_SHARE:.0%} of the time", by_length=True)
    longer = config.clone()
    longer[found.key] = found.value
    choices = [found]
    for choice in recipe.by_length(longer, objects.data):
        if choice.key.endswith("temperatures"):
            final = choice.key.endswith("final_temperatures")
            share, times = (FINAL_SHARE, 1) if final else (EVALUATED_SHARE, NUM_EVALUATIONS)
            most = int((share * left / times - speed.held_out) / speed.temperature)
            value = min(max(most, LEAST_TEMPERATURES), MAX_TEMPERATURES)
            choice = choice._replace(value=value, reason=f"{share:.0%} of the time")
        if choice.key in pending:
            choices.append(choice)
    return choices


def apply(choice: Choice, trainer: Trainer, objects: Namespace) -> None:
    """Give what was built before a number the number."""
    value, evaluation = choice.value, objects.evaluation
    match choice.key:
        case "trainer.max_steps":
            trainer.fit_loop.epoch_loop.max_steps = value
        case "model.chains.init_args.size":
            objects.model.chains.size = value
        case "model.warmup_iterations":
            objects.model.warmup_iterations = value
        case "evaluation.every":
            evaluation.every = value
        case "evaluation.num_temperatures":
            evaluation.settings = replace(evaluation.settings, num_temperatures=value)
        case "evaluation.final_temperatures":
            evaluation.final_settings = replace(evaluation.final_settings, num_temperatures=value)


def duplicate_of(trainer: Trainer, module: EBMModule) -> EBMModule:
    """A copy on the run's device and in its precision."""
    seen, module.evaluated_weights = module.evaluated_weights, nullcontext  # it would take the trainer along
    duplicate = copy.deepcopy(module)
    module.evaluated_weights = seen
    duplicate.trainer = trainer
    duplicate = trainer.precision_plugin.convert_module(duplicate)
    assert isinstance(duplicate, EBMModule)
    return duplicate.to(trainer.strategy.root_device).train()


def iteration_of(module: EBMModule) -> Callable[[int], None]:
    """What an iteration does with weights: chains, loss, gradient, its norm, update, average."""
    optimizer = module.new_optimizer()
    weights = list(module.energy.parameters())
    averages = [weight.detach().clone() for weight in weights]

    def step(number: int) -> None:
        batch = module.data.batch(number)
        batch = Batch(*(part.to(module.device) for part in batch))
        loss = module.training_step(batch, number)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        optimizer.step()
        with torch.no_grad():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(averaged(0.999, average, weight, torch.tensor(number)))

    return step


def seconds_of(function: Callable[[], object]) -> float:
    """On the wall, until a GPU is done."""
    began = time.monotonic()
    function()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.monotonic() - began
