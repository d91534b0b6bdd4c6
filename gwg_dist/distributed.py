"""The little that distributed training needs beyond Lightning: who am I, my share, everyone's rows.

Every function is the identity in a single process. Not implemented: shares weighted by the speed of a device.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """The number of processes, 1 in a single process."""
    return dist.get_world_size() if _initialized() else 1


def share(total: int, rank: int, world_size: int) -> slice:
    """The contiguous rows of ``total`` that belong to ``rank``; sizes differ by at most one."""
    base, extra = divmod(total, world_size)
    start = rank * base + min(rank, extra)
    return slice(start, start + base + (rank < extra))


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks in the order of ranks, on every rank; numbers of rows may differ."""
    if world_size() == 1:
        return rows
    counts = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    sizes = counts.tolist()
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def all_sum(value: Tensor) -> Tensor:
    """The sum over ranks, in a new tensor."""
    total = value.clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
