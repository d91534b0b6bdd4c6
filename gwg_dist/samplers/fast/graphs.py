"""Steps captured once in a CUDA graph and replayed: one launch a step in place of a few hundred.

The graph reads the state, the noise, beta and the weights where they lay when it was captured, and writes the new
state over the old one. Weights that change in place, by an optimizer or by a swap with their average, need no new
capture; the addresses are checked. Noise is drawn outside, so the random stream is that of an eager run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.target import IncrementalTarget, Target

Function = Callable[[], Any]
Capture = Callable[[Function], tuple[Function, Any]]

WARM_UPS = 3
MAX_GRAPHS = 8


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


class GraphedStep:
    """A step on memory of its own.

    Args:
        step: ``(sampler, target, state, noise, beta) -> (state, info)``.
        capture: ``capture_on_cuda``, or a stand-in for tests.
        sampler, target, state, noise, beta: of the first call; later ones have the same shapes.
    """

    def __init__(
        self, step: Callable, capture: Capture, sampler: Sampler, target: Target, state: Any, noise: Any, beta: Tensor
    ) -> None:
        self.state, self.noise, self.beta = tree_clone((state, noise, beta))
        self.target = target
        if isinstance(target, IncrementalTarget):
            self.target = IncrementalTarget(target, tree_clone(target.increments))

        def run() -> Info:
            new, info = step(sampler, self.target, self.state, self.noise, self.beta)
            tree_copy(self.state, new)
            return info

        self.replay, self.info = capture(run)

    def __call__(self, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
        if state is not self.state:  # the start of a run: the state from outside, and the weights' increments
            tree_copy(self.state, state)
            if isinstance(target, IncrementalTarget) and isinstance(self.target, IncrementalTarget):
                tree_copy(self.target.increments, target.increments)
        tree_copy((self.noise, self.beta), (noise, beta))
        self.replay()
        return self.state, self.info


def graphed(step: Callable, capture: Capture = capture_on_cuda) -> Callable:
    """``step`` by graphs, one for each energy, sampler and set of shapes and addresses."""
    return _graphed(step, capture)


@cache
def _graphed(step: Callable, capture: Capture) -> Callable:
    graphs: OrderedDict[Any, GraphedStep] = OrderedDict()

    def run(sampler: Sampler, target: Target, state: Any, noise: Any, beta: Tensor) -> tuple[Any, Info]:
        addresses = tuple(tensor.data_ptr() for tensor in _weights(target))
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in leaves((state, noise, beta)))
        key = (id(target.energy), sampler, type(target), addresses, shapes)  # a graph keeps its energy: ids stay unique
        if key not in graphs:
            with torch.cuda.device(beta.device) if beta.device.type == "cuda" else nullcontext():
                graphs[key] = GraphedStep(step, capture, sampler, target, state, noise, beta)
            if len(graphs) > MAX_GRAPHS:
                graphs.popitem(last=False)
        graphs.move_to_end(key)
        return graphs[key](target, state, noise, beta)

    return run


def _weights(target: Target) -> Iterator[Tensor]:
    if isinstance(target.energy, nn.Module):
        yield from target.energy.parameters()
        yield from target.energy.buffers()
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
