"""Steps captured once in a CUDA graph and replayed: one launch a step in place of a few hundred.

A graph reads the state, the noise, beta and the weights where they lay when it was captured, and writes the new state
over the old one. Weights that change in place, by an optimizer or by a swap with their average, need no new capture;
the addresses are checked. Noise is drawn outside, so the random stream is that of an eager run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.target import StructuredTarget, Target

Function = Callable[[], Any]
Capture = Callable[[Function], tuple[Function, Any]]

WARM_UPS = 3
MAX_MEMORIES = 8


def capture_on_cuda(function: Function) -> tuple[Function, Any]:
    """``(replay, outputs)`` of a function without arguments; replaying refills the outputs."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the device, NCCL's do
        outputs = function()
    return graph.replay, outputs


@dataclass(frozen=True)
class Graphed(Kernel):
    """``kernel`` by graphs, captured once for each energy and set of shapes and addresses.

    Args:
        kernel: whose steps are captured.
        capture: ``capture_on_cuda``, or a stand-in for tests.
    """

    kernel: Kernel
    capture: Capture = capture_on_cuda

    def __str__(self) -> str:
        return f"{self.kernel}, as CUDA graphs"

    def init(self, target: Target, x: Tensor, beta: Tensor) -> Any:
        return self.kernel.init(target, x, beta)

    def draw(self, state: Any, generator: torch.Generator) -> Any:
        return self.kernel.draw(state, generator)

    def refresh(self, target: Target, state: Any) -> Any:
        return self.kernel.refresh(target, state)

    def release(self, state: Any) -> Any:
        return tree_clone(state)

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Info]:
        return memory_of(self, target, state).step(target, state, noise)

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        return memory_of(self, target, state).temper(target, state, beta)


class Memory:
    """The memory that the graphs of a kernel read and write: the state, the noise, beta, the structure.

    Args:
        graphed: the kernel and how it is captured.
        target: of the first call; later ones have the same shapes.
        state: of the first call.
    """

    def __init__(self, graphed: Graphed, target: Target, state: Any) -> None:
        self.kernel, self.capture = graphed.kernel, graphed.capture
        self.state = tree_clone(state)
        self.inputs: dict[str, Any] = {}
        self.graphs: dict[str, tuple[Function, Any]] = {}
        self.target = target
        if isinstance(target, StructuredTarget):
            self.target = StructuredTarget(target, tree_clone(target.structure))

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Info]:
        def run() -> Info:
            new, info = self.kernel.step(self.target, self.state, self.inputs["step"])
            tree_copy(self.state, new)
            return info

        info = self._replayed("step", run, target, state, noise)
        return self.state, info

    def temper(self, target: Target, state: Any, beta: Tensor) -> Any:
        def run() -> None:
            tree_copy(self.state, self.kernel.temper(self.target, self.state, self.inputs["temper"]))

        self._replayed("temper", run, target, state, beta)
        return self.state

    def _replayed(self, name: str, function: Function, target: Target, state: Any, given: Any) -> Any:
        """Replay the graph of ``function``, captured where it has not been, on this state and input."""
        self._take(target, state)
        if name in self.graphs:
            tree_copy(self.inputs[name], given)
        else:
            self.inputs[name], before = tree_clone(given), tree_clone(self.state)
            with torch.cuda.device(state.x.device) if state.x.is_cuda else nullcontext():
                self.graphs[name] = self.capture(function)
            tree_copy(self.state, before)  # a capture runs the function
        replay, outputs = self.graphs[name]
        replay()
        return outputs

    def _take(self, target: Target, state: Any) -> None:
        """At the start of a run: the state from outside, and the structure of the weights as they are now."""
        if state is self.state:
            return
        tree_copy(self.state, state)
        if isinstance(target, StructuredTarget) and isinstance(self.target, StructuredTarget):
            tree_copy(self.target.structure, target.structure)


def memory_of(graphed: Graphed, target: Target, state: Any) -> Memory:
    """One for each kernel, energy, precision, and set of shapes and addresses; the least used is given up."""
    memories = _memories()
    newest = next(reversed(memories.values()), None)
    if newest is not None and state is newest.state and graphed.kernel is newest.kernel:  # a run goes on
        return newest
    addresses = tuple(tensor.data_ptr() for tensor in _weights(target))
    structure = target.structure if isinstance(target, StructuredTarget) else ()  # its precision is not the weights'
    shapes = tuple((tensor.shape, tensor.dtype) for tensor in leaves((state, structure)))
    key = (id(target.energy), graphed, type(target), addresses, shapes)  # a memory keeps its energy: ids stay unique
    if key not in memories:
        memories[key] = Memory(graphed, target, state)
        if len(memories) > MAX_MEMORIES:
            memories.popitem(last=False)
    memories.move_to_end(key)
    return memories[key]


@cache
def _memories() -> OrderedDict[Any, Memory]:
    return OrderedDict()


def _weights(target: Target) -> Iterator[Tensor]:
    if isinstance(target.energy, nn.Module):
        yield from target.energy.parameters()
        yield from target.energy.buffers()
        for module in target.energy.modules():
            yield from (value for value in vars(module).values() if isinstance(value, Tensor))
    if target.reference is not None:
        yield target.reference.weights


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)


def tree_clone(tree: Any) -> Any:
    """Nested tuples with every tensor copied."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, tuple):
        parts = [tree_clone(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree


def tree_copy(into: Any, tree: Any) -> None:
    """Write every tensor of ``tree`` into its place in ``into``."""
    for old, new in zip(leaves(into), leaves(tree), strict=True):
        old.copy_(new)


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """Graphs wherever chains are on a CUDA device, but for kernels that work in place."""
    return Graphed(kernel) if x.is_cuda and not kernel.in_place else None
