"""Path auxiliary sampling in C: a site is drawn by its block's weight, then inside it, and taken from both sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.draws import block_size
from gwg_dist.samplers.base import Kernel
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.many_sites import ManySites, Steps, may_follow
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.samplers.path_auxiliary import PAS
from gwg_dist.target import Target


class PathSteps(Steps):
    """Chains with exp(d / τ - shift) of every move, ``(B, D)``, and its sums by block, ``(B, blocks)`` float64."""

    def bind(self) -> None:
        num, num_sites = self.position.shape
        size, threads = block_size(num_sites), native.num_threads()
        self.weights = torch.empty_like(self.position)
        self.sums, shift = self.f.new_empty(num, -(-num_sites // size)), torch.empty_like(self.f)
        log_q = torch.empty_like(self.f)
        fresh, left = self.position.new_empty(2, threads, num_sites)
        fresh_sums, left_sums = self.f.new_empty(2, threads, self.sums.shape[1])
        ends, weighed = (self.position, self.grad), (self.weights, self.sums, shift)
        factors, drawn = (self.reference, self.scale), (self.turned, self.count, log_q)
        sizes = size, self.room
        self.weigh = self.bound("binary_weigh", (size,), *ends, *factors, *weighed)
        self.propose = self.bound(
            "path_propose", sizes, LATE, *ends, *factors, *weighed, *drawn, left, left_sums
        )  # fmt: skip
        self.decide = self.bound(
            "path_decide", sizes, self.grad_new, self.change, *factors, 1 / self.factor, LATE, *drawn, *ends, *weighed,
            self.f, fresh, fresh_sums, left, left_sums, LATE,
        )  # fmt: skip


@dataclass(frozen=True)
class PathAuxiliaryC(ManySites):
    """The same Markov kernel as ``PAS(temperature, max_length)`` with g = sqrt.

    The noise is ``(B, 2 + 2 R)``: the length, the decision, and for each site its block and its place there.
    """

    temperature: float
    max_length: int

    def init(self, target: Target, x: Tensor, beta: Tensor) -> PathSteps:
        return PathSteps(target, x, beta, self.max_length, factor=1 / self.temperature)

    def draw(self, state: PathSteps, generator: torch.Generator) -> Tensor:
        return torch.rand(len(state.f), 2 + 2 * self.max_length, generator=generator, dtype=torch.float64)


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """``PAS`` itself with g = sqrt. A subclass may change a step."""
    if type(kernel) is not PAS or not isinstance(kernel, PAS) or kernel.balancing != "sqrt":
        return None
    return PathAuxiliaryC(kernel.temperature, kernel.max_length) if may_follow(target, x) else None
