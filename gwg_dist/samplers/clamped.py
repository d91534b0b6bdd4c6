"""p(x) with some sites of each chain held: chains of the conditional p(x_free | x_held) by any Metropolis kernel.

The law is p restricted to the points that agree with x at the held sites. A kernel that is reversible for p, and whose
moves out of that set are refused, is reversible for the restriction: within the set nothing else has changed. So the
energy and its structure are those of the model, every chain holds its own sites at its own values, and no value is
written down twice: x itself holds them.

Refusals alone would waste moves. A proposal may follow any function of x, so the gradient that it reads is replaced at
held sites by one that points, steeply, at the value that is there: such a move is proposed with a probability that is
0 in floating point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.spaces import Change
from gwg_dist.structure import Evaluation
from gwg_dist.target import Target

STEEP = 1e4  # nats by which a move of a held site looks worse than none


class ClampedTarget(Target):
    """p_beta(x_free | x_held) of chains that stand at points with the held values.

    For kernels that evaluate one point a chain and decide by Metropolis and Hastings, run with backend "eager" or
    "plain". Others are refused with a ValueError on their first step.

    Args:
        target: p.
        held: whether a chain holds a site, ``(B, D)`` bool, on the device of the chains.

    Raises:
        ValueError: ``held`` of another shape or type.
    """

    def __init__(self, target: Target, held: Tensor) -> None:
        super().__init__(target.energy, target.reference, space=target.space)
        if held.ndim != 2 or held.shape[1] != target.space.num_sites or held.dtype != torch.bool:
            raise ValueError(f"held must be bool of shape (B, {target.space.num_sites}), "
                             f"got {held.dtype} of {tuple(held.shape)}")  # fmt: skip
        self.inner = target.frozen()
        self.refresh_every = self.inner.refresh_every
        self.held = held

    def frozen(self) -> Target:
        return self

    def plain(self) -> Target:
        return ClampedTarget(self.inner.plain(), self.held)

    @property
    def how(self) -> str:
        return f"{self.inner.how}, some sites held"

    def f(self, x: Tensor) -> Tensor:
        return self.inner.f(x)

    def evaluate(self, x: Tensor) -> Evaluation:
        """f, and ∇f but for held sites; the true ∇f comes first in ``aux``."""
        return self._steep(x, self.inner.evaluate(x))

    def move(self, evaluation: Evaluation, x: Tensor, change: Change | None = None) -> Evaluation:
        grad, *aux = evaluation.aux
        return self._steep(x, self.inner.move(Evaluation(evaluation.f, grad, tuple(aux)), x, change))

    def log_ratio(self, x_new: Tensor, f_new: Tensor, x: Tensor, f: Tensor, *, beta: Tensor) -> Tensor:
        """As of p; -inf where a held site would change."""
        log_ratio = super().log_ratio(x_new, f_new, x, f, beta=beta)
        return log_ratio.masked_fill((self._sites_of(x_new != x) & self._held(x)).any(1), -torch.inf)

    def log_ratio_of(self, change: Change, f_new: Tensor, f: Tensor, *, beta: Tensor) -> Tensor:
        log_ratio = super().log_ratio_of(change, f_new, f, beta=beta)
        return log_ratio.masked_fill(self._held(f).gather(1, change.site[:, None])[:, 0], -torch.inf)

    def _steep(self, x: Tensor, here: Evaluation) -> Evaluation:
        """Binary: d_i = -(2 x_i - 1) g_i = -STEEP at held sites. Categorical: d_ik = g_ik - g_i(x_i) = -STEEP."""
        held = self._held(x)
        towards = (2 * x - 1) if x.ndim == 2 else x
        grad = torch.where(held if x.ndim == 2 else held[:, :, None], STEEP * towards, here.grad)
        return Evaluation(here.f, grad, (here.grad, *here.aux))

    def _held(self, chains: Tensor) -> Tensor:
        if len(chains) != len(self.held):
            raise ValueError(f"sites are held in {len(self.held)} chains, but {len(chains)} points are evaluated at "
                             "once: this kernel cannot hold sites, a Metropolis kernel such as GWG can")  # fmt: skip
        return self.held

    def _sites_of(self, numbers: Tensor) -> Tensor:
        return numbers if numbers.ndim == 2 else numbers.any(2)
