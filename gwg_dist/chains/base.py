"""The interface of a source of chains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.reference import Reference
from gwg_dist.spaces import Space


class Start(NamedTuple):
    """Codes ``(B, D)`` where a batch of chains starts, and the source's rows that they come from."""

    codes: Tensor
    rows: Tensor


class ChainSource(ABC):
    """Gives a batch of chains its start and takes back its end."""

    def setup(
        self,
        space: Space,
        reference: Reference,
        data: Tensor,
        *,
        generator: torch.Generator,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Make this rank's share of the chains on the generator's device. ``data`` holds codes ``(N, D)``."""
        self.space = space
        self.reference = reference
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def start(self, data: Tensor, *, generator: torch.Generator) -> Start:
        """Where one chain per row of ``data``, codes ``(B, D)``, starts."""

    @abstractmethod
    def keep(self, start: Start, codes: Tensor) -> None:
        """Take the ends of the chains that began at ``start``."""

    def gather(self) -> Tensor | None:
        """The packed chains of all ranks; called on every rank. None where nothing is kept."""
        return None

    def restore(self, packed: Tensor | None) -> None:
        """Take this rank's share of what ``gather`` returned, on any number of ranks."""
        del packed
