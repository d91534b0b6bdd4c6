"""What is known of an iteration once it is over."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.objectives import ObjectiveResult
from gwg_dist.samplers import ChainResult


class IterationStats(NamedTuple):
    """The last iteration on this rank, 0-d tensors on the device.

    Args:
        loss: loss with its penalties.
        energy_data: weighted mean E of the data, nats.
        energy_gap: mean E of the chains minus ``energy_data``, nats. This and what follows is None without chains.
        accept_prob: mean over steps and chains.
        hops: mean number of sites changed a step.
    """

    loss: Tensor
    energy_data: Tensor
    energy_gap: Tensor | None = None
    accept_prob: Tensor | None = None
    hops: Tensor | None = None

    @classmethod
    def of(cls, result: ObjectiveResult, batch: Batch, chain: ChainResult | None) -> IterationStats:
        energy_data = (batch.weights.to(result.energy_data.dtype) * result.energy_data).mean()
        stats = cls(result.loss.detach(), energy_data)
        if chain is None or result.energy_model is None:
            return stats
        gap = result.energy_model.mean() - energy_data
        return stats._replace(energy_gap=gap, accept_prob=chain.accept_prob.mean(), hops=chain.hops.mean())

    def known(self) -> dict[str, Tensor]:
        """By name, without what is None."""
        return {name: value for name, value in self._asdict().items() if value is not None}
