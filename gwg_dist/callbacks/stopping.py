"""When a run has learned enough: its samples have the correlations of the data, or its likelihood rises no more."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.data import DiscreteData
from gwg_dist.evaluation.statistics import PairStatistics, pair_statistics, pearson_of_pairs
from gwg_dist.module import EBMModule
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say

MAX_CHAINS = 10_000


class Stop(Callback):
    """Ends a run before its last iteration.

    Pearson's correlation is that of the connected correlations C_ij(a, b) of all pairs of sites, those of the weighted
    training points against those of the persistent chains (see ``pearson_of_pairs``). Where it is looked at it is
    logged as train/pearson, and that against the validation points as val/pearson.

    Args:
        pearson: end at this correlation; 0 does not look at it.
        every: iterations between two looks.
        plateau: end after so many evaluations in a row without a better validation likelihood; 0 does not look at it.

    Raises:
        ValueError: a correlation outside [0, 1), a count outside its range.
    """

    def __init__(self, *, pearson: float = 0.0, every: int = 100, plateau: int = 0) -> None:
        if not 0 <= pearson < 1:
            raise ValueError(f"pearson must lie in [0, 1), got {pearson}")
        if every < 1:
            raise ValueError(f"every must be positive, got {every}")
        if plateau < 0:
            raise ValueError(f"plateau must not be negative, got {plateau}")
        self.pearson = pearson
        self.every = every
        self.plateau = plateau
        self.best: float | None = None
        self.judged = -1
        self.without_gain = 0
        self._of_data: dict[str, PairStatistics] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises InputError where there are no persistent chains to look at."""
        assert isinstance(pl_module, EBMModule)
        if self.pearson and pl_module.chains.gather() is None:
            raise InputError("stop.pearson needs persistent chains: an objective and a source that keep them")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, EBMModule)
        if self.pearson and trainer.global_step % self.every == 0:
            found = self.measure(pl_module)
            pl_module.log_dict({f"{name}/pearson": value for name, value in found.items()})
            if found["train"] >= self.pearson:
                self._end(trainer, f"connected correlations of the chains have Pearson {found['train']:.3f}")
        if self.plateau and self._is_flat(pl_module):
            self._end(trainer, f"{self.plateau} evaluations without a better validation likelihood")

    def measure(self, module: EBMModule) -> dict[str, float]:
        """Pearson's correlation of the chains with the training and the validation points; called on every rank."""
        packed = module.chains.gather()
        assert packed is not None
        codes = module.space.unpack(module.chains.of_model(packed)[-MAX_CHAINS:])
        chains = pair_statistics(codes, module.space.num_categories)
        self._of_data = self._of_data or statistics_of(module.data)
        return {name: pearson_of_pairs(data, chains).pearson for name, data in self._of_data.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "judged": self.judged, "without_gain": self.without_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.judged = state_dict["best"], state_dict["judged"]
        self.without_gain = state_dict["without_gain"]

    def _is_flat(self, module: EBMModule) -> bool:
        if module.assessment is None or module.assessment[0] == self.judged:
            return False
        self.judged, assessment = module.assessment
        value = assessment.likelihoods.get("val")
        if value is None or assessment.collapsed:
            return False
        if self.best is None or value.mean > self.best:
            self.best, self.without_gain = value.mean, 0
        else:
            self.without_gain += 1
        return self.without_gain >= self.plateau

    def _end(self, trainer: Trainer, why: str) -> None:
        if trainer.is_global_zero and not trainer.should_stop:
            say(f"iteration {trainer.global_step}: {why}; the run ends")
        trainer.should_stop = True


def statistics_of(data: DiscreteData) -> dict[str, PairStatistics]:
    """Statistics of the weighted training and validation points. Raises InputError where points are intensities."""
    parts = {"train": data.splits.parts["train"], "val": data.splits.parts["validation"]}
    if data.splits.train.is_floating_point():
        raise InputError("correlations need categories, the training points are intensities")
    num = data.space.num_categories
    return {name: pair_statistics(points, num, weights) for name, (points, weights) in parts.items() if len(points)}
