"""The little that distributed training needs beyond Lightning: who am I, my share, everyone's rows, how we meet.

In a single process every function of tensors is the identity. Not implemented: shares weighted by a device's speed.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store, TCPStore

from gwg_dist.tools.errors import LostError

SLICE = timedelta(seconds=1)
T = TypeVar("T")


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if initialized() else 0


def world_size() -> int:
    """The number of processes, 1 in a single process."""
    return dist.get_world_size() if initialized() else 1


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


def any_rank(value: int, device: torch.device | str = "cpu") -> int:
    """The largest of all ranks' values."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def from_rank_0(value: T) -> T:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def launched_rank() -> int:
    """This process's rank as its launcher says, before there is a process group.

    Of machines that somebody starts by hand only the number is known: the sum tells rank 0 from the others.
    """
    if initialized():
        return dist.get_rank()
    if os.environ.get("RANK"):
        return int(os.environ["RANK"])
    if "SLURM_STEP_ID" in os.environ:  # else a batch script, whose number says nothing
        return int(os.environ["SLURM_PROCID"])
    return sum(int(os.environ.get(name) or 0) for name in ("NODE_RANK", "LOCAL_RANK"))


def join(address: str, port: int, *, rank: int, world_size: int, patience: float) -> Store:
    """Meet the other processes at the first one's address; the store that a process group is made with.

    Args:
        address: address of the machine of rank 0, which listens there.
        port: port at that address.
        rank: number of this process.
        world_size: number of processes.
        patience: seconds to wait for the others.

    Raises:
        LostError: a port in use, processes that did not come, an unknown host, or nobody there.
    """
    where, end = f"{address}:{port}", time.monotonic() + patience
    try:
        socket.getaddrinfo(address, port)
    except OSError as error:
        raise LostError(f"rank {rank} does not know the host of rank 0, {address}", seen_by_all=False) from error
    store = None
    while store is None:
        try:
            store = _open_store(address, port, is_master=rank == 0)
        except (RuntimeError, OSError) as error:
            if "EADDRINUSE" in str(error) or getattr(error, "errno", None) == errno.EADDRINUSE:
                raise LostError(f"rank 0 cannot listen at {where}: the port is in use; set MASTER_PORT") from error
            if time.monotonic() > end:
                message = f"rank {rank} found no rank 0 at {where} within {patience:g} s"
                raise LostError(message, seen_by_all=False) from error
    store.set(f"joined/{rank}", "")
    names = [f"joined/{other}" for other in range(world_size)]
    while not store.check(names):  # not by waiting in the store, where a signal is not heard
        if time.monotonic() > end:
            missing = [other for other in range(world_size) if not store.check([f"joined/{other}"])]
            raise LostError(
                f"{len(missing)} of {world_size} processes did not come to {where} within {patience:g} s: "
                f"rank {', '.join(map(str, missing[:8]))}{', ...' if len(missing) > 8 else ''}"
            )
        time.sleep(0.05)
    return store


def _open_store(address: str, port: int, *, is_master: bool) -> Store:
    """A store that serves this machine alone where the address is its own; torch's listens on all interfaces."""
    if not (is_master and is_loopback(address)):
        return TCPStore(address, port, is_master=is_master, timeout=SLICE, wait_for_workers=False)
    with socket.create_server(("127.0.0.1", port)) as server:
        listening = os.dup(server.fileno())
    return TCPStore(address, port, is_master=True, timeout=SLICE, wait_for_workers=False, master_listen_fd=listening)


def is_loopback(address: str) -> bool:
    """Whether only processes of this machine reach the address."""
    try:
        return socket.gethostbyname(address).startswith("127.")
    except OSError:
        return False


def initialized() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def peer_is_gone(error: RuntimeError) -> bool:
    """Whether a collective raised this error because another process has died."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
