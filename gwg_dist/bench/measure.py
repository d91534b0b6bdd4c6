"""Rows, clocks and the machine."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

MB = 2**20


@dataclass
class Row:
    """Something to time.

    Args:
        name: what the table calls it.
        build: makes ``Sides``, only when the row is wanted.
    """

    name: str
    build: Callable[[], Sides]


class Sides(NamedTuple):
    """Two functions that do the same amount of work.

    Args:
        ours: does ``steps`` of it.
        published: does ``published_steps`` of it as published; None where there is no such thing.
        chains: moved together by a step; 0 where a step moves none.
        flops: of the model in one of our steps, 0 where it is no matter of products.
        how: the way that our chains are run.
    """

    ours: Callable[[], object]
    published: Callable[[], object] | None
    steps: int
    published_steps: int = 1
    chains: int = 0
    flops: float = 0.0
    how: str = ""


class Timing(NamedTuple):
    """Milliseconds a step, how many times faster ours is, and what that is of the device's product peak."""

    name: str
    ours_ms: float
    published_ms: float | None
    ratio: float | None
    ratios: list[float]
    chain_steps_per_s: float
    gflops: float
    of_peak: float
    peak_memory_mb: float
    how: str


def measure(row: Row, *, rounds: int, device: torch.device, peak: float) -> Timing:
    """Warm both sides up, then alternate. ``peak`` in FLOP/s."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sides = row.build()
    pairs = [([], sides.ours, sides.steps)]
    if sides.published is not None:
        pairs.append(([], sides.published, sides.published_steps))
    for _, function, _ in pairs:
        function()
    for number in range(rounds):
        for times, function, steps in pairs if number % 2 else reversed(pairs):
            times.append(timed(function, device) / steps * 1e3)
    ours = statistics.median(pairs[0][0])
    published = statistics.median(pairs[1][0]) if sides.published is not None else None
    ratios = [b / a for a, b in zip(pairs[0][0], pairs[-1][0], strict=True)] if published is not None else []
    flops = sides.flops / ours * 1e3
    return Timing(
        row.name, ours, published, statistics.median(ratios) if ratios else None, ratios, sides.chains / ours * 1e3,
        flops / 1e9, flops / peak, peak_memory_mb(device), sides.how,
    )  # fmt: skip


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds: of this process's CPUs, or on the wall with a GPU."""
    if device.type == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def product_peak(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of the best of a few large matrix products."""
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    times = [timed(lambda: a @ a, device) for _ in range(6)]
    return 2 * size**3 / min(times[1:])


def peak_memory_mb(device: torch.device) -> float:
    """Of the process so far (CPU) or of the device since the row began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def pin(device: torch.device) -> None:
    """One thread on one core, for timings on a CPU."""
    if device.type == "cpu":
        torch.set_num_threads(1)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
