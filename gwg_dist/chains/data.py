"""Chains from the data."""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.chains.base import Start, StartAndKeep


class DataChains(StartAndKeep):
    """Contrastive divergence: every chain starts at a data point and nothing is kept (Hinton, 2002)."""

    def start(self, data: Tensor, *, generator: torch.Generator) -> Start:
        del generator
        return Start(data, torch.empty(0, dtype=torch.int64, device=data.device))

    def keep(self, start: Start, codes: Tensor) -> None:
        del start, codes
