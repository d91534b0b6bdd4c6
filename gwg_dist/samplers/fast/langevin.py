"""Discrete Langevin steps in C: a flip of every site on its own, and the model followed through those that turned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.samplers.base import Kernel
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.many_sites import ManySites, Steps, may_follow
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.samplers.langevin import DMALA
from gwg_dist.target import Target


class LangevinSteps(Steps):
    """Chains with the probability of every flip, ``(B, D)``, and the log probability of none, ``(B,)`` float64.

    Args:
        target: target of the chains.
        x: the chains, ``(B, D)``.
        beta: 0-d or ``(B,)``.
        sampler: the settings.
    """

    def __init__(self, target: Target, x: Tensor, beta: Tensor, sampler: DMALA) -> None:
        scales = sampler.scales or (1.0,) * x.shape[1]
        self.curvature = 0.5 / (sampler.step_size * torch.tensor(scales, dtype=x.dtype))
        super().__init__(target, x, beta, x.shape[1], factor=sampler.balance)

    def bind(self) -> None:
        self.chance, log_stay = torch.empty_like(self.position), torch.empty_like(self.f)
        logits, fresh = self.position.new_empty(2, native.num_threads(), self.position.shape[1])
        factors = self.reference, self.curvature, self.scale
        drawn, kept = (self.turned, self.count), (self.position, self.grad)
        self.weigh = self.bound("langevin_weigh", (), *kept, *factors, self.chance, log_stay, logits)
        self.propose = self.bound("langevin_propose", (), LATE, self.chance, *drawn)
        self.decide = self.bound(
            "langevin_decide", (), self.grad_new, self.change, *factors, float(self.factor), LATE, *drawn, *kept,
            self.chance, log_stay, self.f, logits, fresh, LATE,
        )  # fmt: skip


@dataclass(frozen=True)
class LangevinC(ManySites):
    """The same Markov kernel as ``DMALA``, by the same random numbers: ``(B, 1 + D)``, the decision and the sites."""

    sampler: DMALA

    def init(self, target: Target, x: Tensor, beta: Tensor) -> LangevinSteps:
        return LangevinSteps(target, x, beta, self.sampler)

    def draw(self, state: LangevinSteps, generator: torch.Generator) -> Tensor:
        num, num_sites = state.position.shape
        return torch.rand(num, 1 + num_sites, generator=generator, dtype=torch.float64)


def path(kernel: Kernel, target: Target, x: Tensor, beta: Tensor | None) -> Kernel | None:
    """``DMALA`` itself. A subclass may change a step."""
    suits = type(kernel) is DMALA and may_follow(target, x)
    return LangevinC(kernel) if suits and isinstance(kernel, DMALA) else None
