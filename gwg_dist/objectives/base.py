"""The interface of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from gwg_dist.energies import Energy


class ObjectiveResult(NamedTuple):
    """``loss`` 0-d, to descend; the energies of the two batches, each ``(B,)`` nats and detached."""

    loss: Tensor
    energy_data: Tensor
    energy_model: Tensor


class Objective(ABC):
    """A loss of an energy and two batches of floats. It never sees a sampler."""

    @abstractmethod
    def __call__(self, energy: Energy, x_data: Tensor, x_model: Tensor) -> ObjectiveResult:
        """The loss on points from the data and points from the model's chains. Both go through one forward."""
