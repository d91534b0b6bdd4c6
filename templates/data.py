"""A data set to copy. ``python templates/data.py`` loads it and shows a batch.

This one makes its points: random rings of sites of which neighbours tend to agree. Replace ``load`` by yours.
"""

from __future__ import annotations

import torch

from gwg_dist.data import DiscreteData, Splits
from gwg_dist.spaces import Binary


class MyData(DiscreteData):
    """Points of ``num_sites`` binary sites; each site repeats its left neighbour with probability 0.9.

    Args:
        batch_size: points in an iteration, on all ranks together.
        num_sites: D.

    Raises:
        ValueError: fewer than two sites.
    """

    def __init__(self, *, batch_size: int = 100, num_sites: int = 16) -> None:
        if num_sites < 2:
            raise ValueError(f"num_sites must be at least 2, got {num_sites}")
        super().__init__(Binary(num_sites), batch_size=batch_size)

    def load(self) -> Splits:
        """Three sets of codes, integers 0..K-1 ``(N, D)``: the same in every process and on every day."""
        generator = torch.Generator().manual_seed(0)
        changes = torch.rand(3000, self.space.num_sites, generator=generator) < 0.1
        changes[:, 0] = torch.rand(3000, generator=generator) < 0.5
        codes = changes.cumsum(1).remainder(2).to(self.space.code_dtype)
        return Splits(codes[:2000], codes[2000:2500], codes[2500:])


if __name__ == "__main__":
    data = MyData()
    print(data.space, [len(split) for split in data.splits])
    print(data.batch(0).codes[:3])
