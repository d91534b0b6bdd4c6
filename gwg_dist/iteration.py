"""What is known of an iteration once it is over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.objectives import ObjectiveResult
from gwg_dist.samplers import ChainResult
from gwg_dist.tools.distributed import all_sum


class IterationStats(NamedTuple):
    """The last iteration on this rank, 0-d tensors on the device.

    Args:
        loss: loss with its penalties.
        energy_data: weighted mean E of the data, nats.
        energy_gap: mean E of the chains minus ``energy_data``, nats. This and what follows is None without chains.
        accept_prob: mean over steps and chains.
        hops: mean number of sites changed a step.
        lag: how far chains lag behind the model, of all ranks, see ``chain_lag``; the newest that was measured.
        energy_spread: standard deviation of E over data and chains together, nats; None for a single point.
        swap_prob: mean probability of swaps between neighbouring betas; None where chains are at one beta.
    """

    loss: Tensor
    energy_data: Tensor
    energy_gap: Tensor | None = None
    accept_prob: Tensor | None = None
    hops: Tensor | None = None
    lag: Tensor | None = None
    energy_spread: Tensor | None = None
    swap_prob: Tensor | None = None

    @classmethod
    def of(cls, result: ObjectiveResult, batch: Batch, chain: ChainResult | None) -> IterationStats:
        energy_data = (batch.weights.to(result.energy_data.dtype) * result.energy_data).mean()
        found = [result.energy_data] if result.energy_model is None else [result.energy_data, result.energy_model]
        energies = torch.cat(found)
        stats = cls(result.loss.detach(), energy_data, energy_spread=energies.std() if len(energies) > 1 else None)
        if chain is None or result.energy_model is None:
            return stats
        gap = result.energy_model.mean() - energy_data
        swap_prob = None if chain.swap_prob is None else chain.swap_prob.mean()
        stats = stats._replace(energy_gap=gap, accept_prob=chain.accept_prob.mean(), hops=chain.hops.mean())
        return stats._replace(swap_prob=swap_prob)

    def known(self) -> dict[str, Tensor]:
        """By name, without what is None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def chain_lag(
    before: Tensor, after: Tensor, hops: Tensor, *, interval: float, num_steps: int, num_sites: int
) -> Tensor:
    """How far chains lag behind the model: how much it changes while a chain renews itself, 0-d float64, no unit.

        lag = interval * max(1, D / (num_steps * mean hops)) * std(E_after(x) - E_before(x)) / std(E_before(x))

    A chain is moved every ``interval`` iterations, and has to be moved D / (num_steps * hops) times until it has
    changed as many sites as there are; in each of the iterations in between an update changes the energy. A constant
    that is added to E drops out. Moments are over the chains of all ranks, and every rank gets the same number. Chains
    that stand still lag infinitely far behind; a model that no longer changes has a lag of 0.

    Args:
        before: E of this rank's chains at their ends x, before the update, ``(B,)`` nats.
        after: E of the same points after the update, ``(B,)`` nats.
        hops: mean number of sites changed a step, ``(B,)``.
        interval: iterations between two visits of a chain.
        num_steps: transitions of a chain in an iteration.
        num_sites: D.
    """
    change, energy = (after - before).double(), before.double()
    sums = [value for x in (change, energy) for value in (x.sum(), x.square().sum())]
    moments = all_sum(torch.stack([*sums, hops.double().sum(), torch.ones_like(energy).sum()]))
    change_mean, change_square, energy_mean, energy_square, mean_hops, _ = moments / moments[-1]
    visits = (num_sites / (num_steps * mean_hops)).clamp(min=1)
    ratio = (change_square - change_mean**2).clamp(min=0) / (energy_square - energy_mean**2).clamp(min=0)
    return torch.where(change_square > 0, interval * visits * ratio.sqrt(), 0.0)
