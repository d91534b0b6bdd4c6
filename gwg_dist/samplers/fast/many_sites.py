"""Steps in C that change many sites of binary chains at once, at any beta, where a model is followed by increments.

A proposal lists the sites that turn. Dense pairs then add the rows of those sites to ∇f, sparse pairs add at their
neighbours, hidden units add their columns to the pre-activations: less than an evaluation while few sites turn. The
proposals are in langevin.py and path_auxiliary.py; the torch kernels of those names are the same Markov kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.samplers.base import Info, Kernel
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.native import LATE
from gwg_dist.spaces import Binary
from gwg_dist.structure import DensePairs, Evaluation, HiddenUnits, SparsePairs, pulled
from gwg_dist.target import StructuredTarget, Target

FOLLOWED = (DensePairs, SparsePairs, HiddenUnits)


class Chains:
    """Binary chains, what turns in a step, and what a model makes of it.

    Args:
        x: the chains, ``(B, D)``.
        evaluation: evaluation at ``x``.
        structure: dense pairs, sparse pairs or hidden units.
        room: the largest number of sites that turn.

    Attributes:
        position: the signs 1 - 2x, ``(B, D)``.
        grad: ∇f, ``(B, D)``, untempered.
        f: ``(B,)`` float64.
        turned: the sites that turn, ``(B, room)`` int32, the first ``count`` of a row; ``count`` ``(B,)`` int64.
        grad_new: ∇f after the turns, ``(B, D)``.
        change: f after the turns minus f, ``(B,)`` float64.
    """

    def __init__(self, x: Tensor, evaluation: Evaluation, structure: Any, room: int) -> None:
        self.room = room
        self.real = "double" if x.dtype == torch.float64 else "float"
        self.position = (1 - 2 * x).contiguous()
        self.grad = evaluation.grad.to(x.dtype).clone(memory_format=torch.contiguous_format)
        self.f = evaluation.f.double().clone()
        self.turned = torch.zeros(len(x), room, dtype=torch.int32)
        self.count = torch.zeros(len(x), dtype=torch.int64)
        self.grad_new, self.change = torch.empty_like(self.grad), torch.empty_like(self.f)
        self.model = followed(self, structure, evaluation)

    @property
    def x(self) -> Tensor:
        return (1 - self.position) / 2

    def bound(self, name: str, sizes: tuple[int, ...], *arguments: Tensor | float | native.Late) -> native.Bound:
        """A kernel in C in this precision, for chains, sites and other sizes."""
        return native.Bound(f"{name}_{self.real}", *self.position.shape, *sizes, *arguments)


class Model(ABC):
    """A model that follows what turns."""

    @abstractmethod
    def follow(self) -> None:
        """Fill ``grad_new`` and ``change`` of the chains."""

    def commit(self, decision: Tensor) -> None:
        """Keep what is of the model's own for the chains that moved, ``decision`` ``(2, B)`` float64."""
        del decision


class Pairs(Model):
    """Every pair of sites, or pairs of neighbours."""

    def __init__(self, chains: Chains, structure: DensePairs | SparsePairs) -> None:
        like = chains.position
        rows = structure.rows.to(like.dtype).contiguous()
        ends = like, chains.grad, chains.turned, chains.count, chains.grad_new, chains.change
        if isinstance(structure, DensePairs):
            self.kernel = chains.bound("dense_follow", (chains.room,), rows, *ends)
        else:
            neighbours = structure.graph.neighbours.contiguous()
            sizes = neighbours.shape[1], chains.room
            self.kernel = chains.bound("sparse_follow", sizes, neighbours, rows, *ends)

    def follow(self) -> None:
        self.kernel()


class Units(Model):
    """Hidden units, with their pre-activations ``(B, H)`` and the sum of softplus of these, ``(B,)`` float64."""

    def __init__(self, chains: Chains, structure: HiddenUnits, evaluation: Evaluation) -> None:
        (hidden,), like = evaluation.aux, chains.position
        self.grad_new = chains.grad_new
        self.weight = structure.weight.to(like.dtype) if structure.back is None else structure.back
        self.bias = structure.visible_bias.to(like.dtype).contiguous()
        hidden = hidden.to(like.dtype).clone(memory_format=torch.contiguous_format)
        softplus = functional.softplus(hidden.double()).sum(1)
        hidden_new, softplus_new, self.sigmoid = (torch.empty_like(kept) for kept in (hidden, softplus, hidden))
        self.kernel = chains.bound(
            "hidden_follow", (hidden.shape[1], chains.room), structure.columns.to(like.dtype).contiguous(), self.bias,
            like, hidden, softplus, chains.turned, chains.count, hidden_new, self.sigmoid, softplus_new, chains.change,
        )  # fmt: skip
        self.keep = native.Bound(
            f"hidden_commit_{chains.real}", *hidden.shape, LATE, hidden_new, softplus_new, hidden, softplus
        )

    def follow(self) -> None:
        self.kernel()
        self.grad_new.copy_(pulled(self.bias, self.sigmoid, self.weight))

    def commit(self, decision: Tensor) -> None:
        self.keep(decision)


def followed(chains: Chains, structure: Any, evaluation: Evaluation) -> Model:
    """The model of a structure. Raises TypeError for one that is not followed in C."""
    if isinstance(structure, DensePairs | SparsePairs):
        return Pairs(chains, structure)
    if isinstance(structure, HiddenUnits):
        return Units(chains, structure, evaluation)
    raise TypeError(f"dense pairs, sparse pairs or hidden units are needed, got {type(structure).__name__}")


class Steps(Chains, ABC):
    """Chains with a proposal; a subclass binds its kernels and keeps what the proposal needs at ``beta``.

    Attributes:
        scale: the factor of ∇f in the logits of the proposal, ``(B,)``.
        reference: log ref's slope with the factor that it has there, ``(D,)``.
    """

    propose: native.Bound
    weigh: native.Bound
    decide: native.Bound

    def __init__(self, target: Target, x: Tensor, beta: Tensor, room: int, *, factor: float) -> None:
        evaluation = target.evaluate(x)
        structure = target.structure if isinstance(target, StructuredTarget) else None
        super().__init__(x, evaluation, structure, room)
        self.factor, self.beta = factor, beta
        slope = torch.zeros(x.shape[1], dtype=x.dtype) if target.reference is None else target.reference.weights
        self.reference = (slope.to(x.dtype) * factor).contiguous()
        self.scale = x.new_empty(len(x))
        self.bind()
        self.temper(beta)

    @abstractmethod
    def bind(self) -> None:
        """Make the kernels in C: ``propose`` takes the noise, ``decide`` the noise and the decision, ``(2, B)``."""

    def temper(self, beta: Tensor) -> None:
        self.beta = beta
        self.scale.copy_((beta * self.factor).expand(len(self.scale)))
        self.weigh()

    def step(self, noise: Tensor) -> Info:
        self.propose(noise)
        self.model.follow()
        decision = self.f.new_empty(2, len(self.f))
        self.decide(noise, decision)
        self.model.commit(decision)
        return Info(decision[0], decision[1])


@dataclass(frozen=True)
class ManySites(Kernel):
    """A kernel whose state is ``Steps`` and whose noise is one tensor of uniform numbers, float64."""

    in_place = True

    def temper(self, target: Target, state: Steps, beta: Tensor) -> Steps:
        state.temper(beta)
        return state

    def step(self, target: Target, state: Steps, noise: Tensor) -> tuple[Steps, Info]:
        return state, state.step(noise)


def may_follow(target: Target, x: Tensor) -> bool:
    """Whether these are binary chains on a CPU that has a C compiler, of a structure that is followed."""
    suits = isinstance(target, StructuredTarget) and isinstance(target.structure, FOLLOWED)
    suits = suits and isinstance(target.space, Binary) and x.is_cpu and x.dtype in (torch.float32, torch.float64)
    return suits and native.library() is not None
