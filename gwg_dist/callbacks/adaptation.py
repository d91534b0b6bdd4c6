"""Kernel to kernel while a run goes on: a field is tuned in a warm-up, a kernel that is refused too often is given up.

A decision is made from the acceptance of all ranks together, so all ranks make the same. Decisions are in the
checkpoint; a resumed run, and whoever loads the run, follows them from the kernel of the settings. Detailed balance
holds for every kernel, and after the warm-up the kernel is frozen: what is measured is measured with one. The search
itself is in ``gwg_dist.samplers.tuners``. Not implemented: a kernel for each chain.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.module import EBMModule
from gwg_dist.samplers import Sampler
from gwg_dist.samplers.adapting import MAX_TUNINGS
from gwg_dist.samplers.site_scales import SiteScales, scales_refusal
from gwg_dist.samplers.tuners import (
    TUNERS,
    AcceptanceTuner,
    Seen,
    Tuner,
    allowed,
    check_objective,
    check_target_acceptance,
    origin,
    tunable_value,
)
from gwg_dist.tools.distributed import all_sum, rank, world_size
from gwg_dist.tools.errors import InputError

logger = logging.getLogger("gwg_dist")

DEFAULT_OBJECTIVE = "acceptance"


class Decision(NamedTuple):
    """One change of the kernel.

    Args:
        iteration: iteration after which the change was made.
        accept_prob: mean acceptance probability over ranks, chains and steps of that iteration.
        value: new value of the tunable field; None for a retreat.
    """

    iteration: int
    accept_prob: float
    value: float | None


class Adaptation(Callback):
    """Replaces the kernel of a run by a better one, alike on all ranks; see ``Sampler.adapted`` and ``retreat``.

    In the warm-up the tunable field v of the kernel is searched for with a look every so many iterations. By acceptance
    a it follows log v += ± g (a - a*), where g = 3 t^(-2/3) falls with the number t of changes (Robbins and Monro,
    1951; Andrieu and Thoms, 2008, section 4). By jump it becomes the best of v, v s and v / s in the mean number of
    sites that a step changes, with s that falls from 4. Then v is frozen. A retreat is watched for as long as the run
    goes on.

    Args:
        warmup: iterations in which the kernel is tuned; 0 tunes nothing.
        every: iterations between two looks at the chains.
        target_acceptance: acceptance probability a* to reach; the kernel's own where none is given.
        objective: "acceptance", "jump" for the largest jump distance, or "cyclical" for both ends of the cycles of ACS.
        precondition: whether to find a step size for each site in the warm-up as well, see ``SiteScales``.

    Raises:
        ValueError: a negative warmup, one shorter than ``every`` or with more than 64 changes, ``every`` below 1, a
            target_acceptance outside (0, 1), an unknown objective.
    """

    def __init__(
        self,
        *,
        warmup: int = 0,
        every: int = 50,
        target_acceptance: float | None = None,
        objective: str = DEFAULT_OBJECTIVE,
        precondition: bool = False,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be positive, got {every}")
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, got {warmup}")
        if 0 < warmup < every:
            raise ValueError(f"warmup must be 0 or at least the {every} iterations of every, got {warmup}")
        if warmup // every > MAX_TUNINGS:
            raise ValueError(
                f"every must be at least {warmup // (MAX_TUNINGS + 1) + 1} for a warmup of {warmup}, so that at most "
                f"{MAX_TUNINGS} kernels are made, got {every}"
            )
        check_target_acceptance(target_acceptance)
        check_objective(objective)
        self.warmup = warmup
        self.every = every
        self.target_acceptance = target_acceptance
        self.objective = objective
        self.decisions: list[Decision] = []
        self.frozen = False
        self.precondition = precondition
        self._scales = SiteScales()
        self._base: Sampler | None = None  # the kernel that the search began with
        self._tuner: Tuner = TUNERS[objective](target_acceptance)
        self._origin: dict[str, Any] = {}
        self._loaded: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the decisions of the checkpoint, before the first iteration."""
        assert isinstance(pl_module, EBMModule)
        self._origin = origin(pl_module.sampler)
        self._base, loaded, self._loaded = pl_module.sampler, self._loaded, None
        if loaded is not None and loaded["decisions"] and (found := follow(pl_module, loaded)) is not None:
            self._go_on(loaded, *found)
        sampler = pl_module.sampler
        if self.warmup and not self.frozen and sampler.tunable is not None:
            refusal = self._tuner.refusal(self._base) or (scales_refusal(self._base) if self.precondition else None)
            if refusal is not None:
                raise InputError(f"adaptation.{refusal}")
            pl_module.sampler = self._tuner.kernel(self._scales.of(self._base), pl_module.target)
        for setting, why in self._without_effect(sampler) if trainer.is_global_zero else ():
            logger.warning("adaptation.%s has no effect: %s", setting, why)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, EBMModule)
        iteration, sampler = trainer.global_step, pl_module.sampler
        tuning = not self.frozen and iteration <= self.warmup and sampler.tunable is not None
        if iteration % self.every or not (tuning or sampler.retreat(0.0)):
            return
        stats = pl_module.stats
        if stats is None or stats.accept_prob is None or stats.hops is None:  # an objective without chains
            return
        means = all_sum(torch.stack([stats.accept_prob.double(), stats.hops.double()])) / world_size()
        seen = Seen(*means.tolist())
        retreat = sampler.retreat(seen.accept_prob)
        if retreat is not None:
            self.decisions.append(Decision(iteration, seen.accept_prob, None))
            retreat_from(pl_module, seen.accept_prob)
            self._base, self._tuner = pl_module.sampler, TUNERS[self.objective](self.target_acceptance)
            self._say(logging.WARNING, f"iteration {iteration}: {retreat.why}")
        elif tuning and math.isfinite(seen.accept_prob):
            self._tune(pl_module, iteration, seen)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: the settings' kernel and what became of it."""
        return {
            "origin": self._origin,
            "decisions": [list(d) for d in self.decisions],
            "frozen": self.frozen,
            "objective": self.objective,
            "tuner": self._tuner.state(),
            "scales": self._scales.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def _tune(self, module: EBMModule, iteration: int, seen: Seen) -> None:
        assert self._base is not None
        self._tuner.observe(self._base, seen, module.target)
        if self.precondition and module.chain_ends is not None:
            self._scales.observe(module.target, module.chain_ends)
        self.frozen, base = iteration + self.every > self.warmup, self._scales.of(self._base)
        sampler = self._tuner.frozen(base) if self.frozen else self._tuner.kernel(base, module.target)
        self.decisions.append(Decision(iteration, seen.accept_prob, tunable_value(sampler)))
        module.sampler = sampler
        if self.frozen:
            kernel = f"{type(sampler).__name__} goes on with {sampler.tunable} = {tunable_value(sampler):.4g}, frozen"
            accepted = f"{100 * seen.accept_prob:.0f} % of the proposals were accepted"
            self._say(logging.INFO, f"iteration {iteration}: {accepted}; {kernel}")

    def _go_on(self, loaded: dict[str, Any], base: Sampler, tuner: Tuner) -> None:
        """Take up the search of a checkpoint, by its objective; where the settings name another one, that is said."""
        self._base, self._tuner = base, tuner
        self._scales = SiteScales(**loaded.get("scales", {}))
        self._tuner.target_acceptance = self.target_acceptance
        self.decisions = [Decision(*decision) for decision in loaded["decisions"]]
        self.frozen = loaded["frozen"]
        asked, self.objective = self.objective, loaded.get("objective", DEFAULT_OBJECTIVE)
        if asked != self.objective:
            text = "going on with adaptation.objective %s of the checkpoint, not with %s of the settings: it has begun"
            self._say(logging.WARNING, text % (self.objective, asked))

    def _without_effect(self, sampler: Sampler) -> Iterator[tuple[str, str]]:
        """The settings that were given and change nothing, and why."""
        name, retreat = type(sampler).__name__, sampler.retreat(0.0)
        given = {
            "objective": self.objective != DEFAULT_OBJECTIVE,
            "precondition": self.precondition,
            "target_acceptance": self.target_acceptance is not None,
        }
        if not self.warmup:
            yield from ((setting, "adaptation.warmup is 0") for setting in given if given[setting])
            return
        if sampler.tunable is None and retreat is None:
            yield "warmup", f"{name} has nothing to tune"
            return
        kernels = [sampler] if retreat is None else [sampler, retreat.sampler]
        if given["precondition"] and all(kernel.per_site is None for kernel in kernels):
            yield "precondition", f"{name} has no step size for each site"
        if given["target_acceptance"] and not self._tuner.aims_at_acceptance:
            yield "target_acceptance", f"adaptation.objective is {self.objective}"

    def _say(self, level: int, text: str) -> None:
        if rank() == 0:
            logger.log(level, text)


def adapt(module: EBMModule, checkpoint: Mapping[str, Any]) -> None:
    """Give a module, as its settings made it, the kernel that the run had adapted when the checkpoint was written."""
    entry = checkpoint.get("callbacks", {}).get(Adaptation.__qualname__)
    if entry is not None:
        follow(module, entry)


def follow(module: EBMModule, entry: Mapping[str, Any]) -> tuple[Sampler, Tuner] | None:
    """Give the module the outcome of a checkpoint's decisions, if they apply to the kernel of the settings.

    Where the settings name another kernel, or another value of the tuned field, they win.

    Returns:
        The kernel that the search began with, and the search as far as it came; None where the decisions do not apply.
    """
    if entry["decisions"] and entry["origin"] != origin(module.sampler):
        if rank() == 0:
            logger.warning(
                "going on with %s of the settings: the checkpoint has adapted another kernel, %s",
                module.sampler, entry["origin"]["sampler"],
            )  # fmt: skip
        return None
    base, tuned = module.sampler, 0
    for _, accept_prob, value in entry["decisions"]:
        if value is None:
            retreat_from(module, accept_prob)
            base, tuned = module.sampler, 0
        else:
            module.sampler, tuned = allowed(module.sampler, value, None) or module.sampler, tuned + 1
    if "tuner" not in entry:  # of before there were objectives
        value = tunable_value(module.sampler) if tuned else None
        return base, AcceptanceTuner(value=value, looks=tuned)
    tuner = TUNERS[entry["objective"]](**entry["tuner"])
    if tuned:
        scaled = SiteScales(**entry.get("scales", {})).of(base)
        module.sampler = tuner.frozen(scaled) if entry["frozen"] else tuner.kernel(scaled, module.target)
    return base, tuner


def retreat_from(module: EBMModule, accept_prob: float) -> None:
    """Replace a module's kernel that is accepted too seldom, and its number of steps."""
    retreat = module.sampler.retreat(accept_prob)
    assert retreat is not None
    module.sampler = retreat.sampler
    module.num_steps *= retreat.steps
