"""The interface of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.target import Target


class ObjectiveResult(NamedTuple):
    """A loss and the energies it was made of.

    Args:
        loss: 0-d, to descend.
        energy_data: E of the batch, ``(B,)`` nats, detached.
        energy_model: E of the chains, ``(M,)`` nats, detached; None where there are no chains.
    """

    loss: Tensor
    energy_data: Tensor
    energy_model: Tensor | None = None


class Objective(ABC):
    """A loss of a target and a batch and, where it says so, of points from the model's chains.

    It never sees a sampler. A mean over the batch is the mean of weight times value, so that a loss of a rank's share
    is that rank's part of the loss of the whole batch.
    """

    needs_chains: ClassVar[bool] = True
    """Whether chains are to be moved for it. Where not, a run has none."""

    label_site: int | None = None
    """The site that it takes for a label; negative ones count from the end. None where it takes none for one."""

    @abstractmethod
    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        """The loss, with a gradient in the parameters of the target's energy.

        Args:
            target: p(x) ∝ ref(x) exp(-E(x)); the reference is frozen.
            batch: points of the data and their weights.
            x_model: points of the model's chains as floats, ``(M, D)`` or ``(M, D, K)``; None where ``needs_chains`` is
                False.
            generator: generator of the loss's own randomness; it differs between ranks.
        """
