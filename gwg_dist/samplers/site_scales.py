"""A step size for each site, from the second moments of what a warm-up sees of the gradient."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from gwg_dist.samplers.base import Sampler
from gwg_dist.samplers.run import chains_running
from gwg_dist.target import Target
from gwg_dist.tools.distributed import all_sum

FORGETTING = 0.1
DAMPING = 1e-3


@dataclass
class SiteScales:
    """Factors α_i / α ∝ 1 / sqrt(v_i + ε mean v), with mean 1 over the sites; plain numbers, for a checkpoint.

    v_i is the running mean of d_i², d the first-order change of log p by another value of site i, over chains, ranks
    and looks; for several other values, over them as well. A look t counts by max(1 / t, 0.1), so that a model that
    changes is followed. ε = 0.001. The factors are those of an adaptive gradient method (Duchi, Hazan and Singer, 2011;
    for discrete Langevin proposals Zhang, Liu and Liu, 2022, section 4.2). They are fixed while a kernel runs: then
    every step is exact.

    Args:
        second: v ``(D,)``; empty before the first look.
        looks: t.
    """

    second: list[float] = field(default_factory=list)
    looks: int = 0

    def observe(self, target: Target, x: Tensor, *, beta: float = 1.0) -> None:
        """Take in the gradient at this rank's chains ``(B, ...)``; called on every rank. Costs one evaluation."""
        with chains_running(target, x):
            d = target.space.site_differences(
                x, target.grad_log_prob(target.evaluate(x), torch.tensor(beta, dtype=x.dtype, device=x.device))
            )
            d = target.space.without_padding(d, 0.0).double()
            others = torch.tensor(target.space.sizes, device=d.device) - 1
            squares = d.square().reshape(*d.shape[:2], -1).sum(-1) / others
        total = all_sum(torch.cat([squares.sum(0), squares.new_tensor([len(x)])]))
        new = total[:-1] / total[-1]
        if not bool(torch.isfinite(new).all()):
            return
        self.looks += 1
        old = torch.tensor(self.second, dtype=new.dtype, device=new.device) if self.second else new
        self.second = old.lerp(new, max(1 / self.looks, FORGETTING)).tolist()

    def of(self, base: Sampler) -> Sampler:
        """``base`` with these factors; as it is before the first look, and where it has none."""
        if base.per_site is None or not self.second or not any(self.second):
            return base
        v = torch.tensor(self.second, dtype=torch.float64)
        scales = (v + DAMPING * v.mean()).rsqrt()
        return dataclasses.replace(cast(Any, base), **{base.per_site: tuple((scales / scales.mean()).tolist())})

    def state(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


def scales_refusal(base: Sampler) -> str | None:
    """Why a kernel has no use for factors of its sites, in a sentence; None where it has."""
    if base.per_site is not None:
        return None
    return f"precondition needs a kernel with a step size for each site, such as DMALA, got {base}"
