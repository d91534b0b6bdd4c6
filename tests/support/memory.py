"""How much memory a function has in use at its worst moment, from the allocator's own record."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes of tensors on the CPU that ``function`` had in use at once, beyond those there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = function()
    del kept
    assert record.profiler is not None
    assert record.profiler.kineto_results is not None
    events: list[Any] = list(record.profiler.kineto_results.events())
    used = highest = 0
    for _, num_bytes in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        used += num_bytes
        highest = max(highest, used)
    return highest
