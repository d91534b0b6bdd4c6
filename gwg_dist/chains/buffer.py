"""Persistent chains in a replay buffer.

The buffer is a plain tensor, not a module buffer: DDP's constructor would overwrite every rank's chains with rank 0's.

Not implemented: prioritised replay, chains swapped between ranks.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from gwg_dist.chains.base import Start, StartAndKeep
from gwg_dist.reference import Reference
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import gather_rows, share
from gwg_dist.tools.errors import InputError

INITS = ("reference", "data", "uniform")
PART = 2**23  # sites that are drawn at once: 64 MB of uniform numbers


class ChainBuffer(StartAndKeep):
    """Persistent chains (Tieleman, 2008), a batch of them moved in each iteration.

    A batch is drawn without replacement; each of its chains restarts with probability ``restart_prob`` at the
    reference. Stored packed: 98 bytes a chain of 28x28 binary sites.

    Args:
        size: number of chains on all ranks together; "auto" leaves it to a run's recipe, and is 10,000 elsewhere.
        init: where chains are born: "reference", "data" or "uniform".
        restart_prob: probability that a chain of the batch starts afresh at the reference.

    Raises:
        ValueError: a size below 1, an unknown init, a probability outside [0, 1].
    """

    tells_starts: ClassVar[bool] = True

    def __init__(
        self, *, size: int | Literal["auto"] = 10_000, init: str = "reference", restart_prob: float = 0.0
    ) -> None:
        size = 10_000 if size == "auto" else size
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
        if not 0 <= restart_prob <= 1:
            raise ValueError(f"restart_prob must lie in [0, 1], got {restart_prob}")
        self.size = size
        self.init = init
        self.restart_prob = restart_prob
        self.of_reference = init == "reference"
        self.packed = torch.empty(0)

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
        super().setup(space, reference, data, generator=generator, rank=rank, world_size=world_size)
        mine = share(self.size, rank, world_size)
        self.packed = self._born(mine.stop - mine.start, data, generator)

    def interval(self, batch_size: int) -> float:
        return self.size / batch_size

    def num_bytes(self, space: Space) -> int:
        return self.size * -(-space.num_sites // space.sites_packed_together) * space.code_dtype.itemsize

    def check_batch(self, batch_size: int) -> None:
        if self.size < batch_size:
            raise InputError(f"model.chains.size must be at least data.batch_size, got {self.size} and {batch_size}")

    def check_saved(self, packed: Tensor | None) -> None:
        if packed is None or len(packed) != self.size:
            found = "none" if packed is None else len(packed)
            raise InputError(f"the checkpoint's chains do not fit this run: {found} there, {self.size} in the settings")

    def start(self, data: Tensor, *, generator: torch.Generator) -> Start:
        """Raises InputError where the buffer is smaller than the batch."""
        self.check_batch(len(data))
        device = self.packed.device
        rows = torch.randperm(len(self.packed), generator=generator, device=device)[: len(data)]
        codes, restart = self.space.unpack(self.packed[rows]), None
        if self.restart_prob > 0:
            fresh = self.reference.sample(len(data), generator=generator)
            restart = torch.rand(len(data), 1, generator=generator, device=device) < self.restart_prob
            codes = torch.where(restart, fresh, codes)
        return Start(codes, rows, restart)

    def keep(self, start: Start, codes: Tensor) -> None:
        self.packed[start.rows] = self.space.pack(codes)

    def first_codes(self, num: int) -> Tensor:
        return self.space.unpack(self.packed[:num])

    def gather(self) -> Tensor:
        return gather_rows(self.packed).cpu()

    def restore(self, packed: Tensor | None) -> None:
        """Raises InputError where the checkpoint holds no chains, or another number of them."""
        self.check_saved(packed)
        assert packed is not None
        self.packed = packed[share(self.size, self.rank, self.world_size)].to(self.packed.device)

    def _born(self, num: int, data: Tensor, generator: torch.Generator) -> Tensor:
        """``num`` new chains, packed. Large numbers of them are made in parts, so that only packed they exist at once.

        On a CPU the parts draw the very numbers of one draw. On CUDA that holds up to ``PART`` sites in all.
        """
        if self.init == "reference":
            return self._from_reference(num, generator)
        counts = [len(rows) for rows in torch.arange(num).split(max(PART // self.space.num_sites, 1))]
        if self.init == "uniform":
            return torch.cat([self.space.pack(self.space.uniform_codes(n, generator=generator)) for n in counts])
        rows = torch.randint(len(data), (num,), generator=generator, device=generator.device)
        points = self.space.pack(data.to(generator.device))
        return points[rows]

    def _from_reference(self, num: int, generator: torch.Generator) -> Tensor:
        """Some sites of all chains at a time, because that is the order of ``Reference.sample``."""
        together, num_sites = self.space.sites_packed_together, self.space.num_sites
        width = max(PART // max(num, 1) // together * together, together)
        packed = torch.empty(num, -(-num_sites // together), dtype=self.space.code_dtype, device=generator.device)
        for first in range(0, num_sites, width):
            part = self.space.pack(self.reference.sample_sites(num, first, first + width, generator=generator))
            packed[:, first // together : first // together + part.shape[1]] = part
        return packed
