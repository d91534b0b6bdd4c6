"""Blocks of variables that are drawn together given the rest: what block Gibbs sampling knows of a model.

``conditionals`` finds them by the type of an energy's structure. Another structure, whose blocks may be of any kind,
brings its own by one subclass of ``Conditionals`` and ``conditionals.register``. Pairs of sites: p_beta(x_i = k | rest)
∝ exp(β ∂_ik f + ref_ik), read off the gradient, which does not depend on the site itself. Paths of pairs: a whole path
given the sites off it. Hidden units: all of them given x, then all sites given them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.draws import first_above
from gwg_dist.samplers.base import accept_probability, select
from gwg_dist.spaces import Binary
from gwg_dist.structure import DensePairs, HiddenUnits, SparseCategoricalPairs, SparsePairs
from gwg_dist.target import StructuredTarget

Rule = Callable[[Tensor, Tensor], Tensor]
Pairs = DensePairs | SparsePairs | SparseCategoricalPairs


def gibbs(probability: Tensor, x: Tensor) -> Tensor:
    """The conditional itself, whatever the site is now (Geman and Geman, 1984)."""
    del x
    return probability


def metropolised(probability: Tensor, x: Tensor) -> Tensor:
    """Probabilities of a site's next category where one of the others is proposed and accepted or refused (Liu, 1996).

    Category k is proposed with p_k / (1 - p_now) and accepted with min(1, (1 - p_now) / (1 - p_k)), so that it follows
    with p_k / max(1 - p_now, 1 - p_k); else the site stays. It stays less often than by ``gibbs`` (Peskun, 1973). Of
    two categories that are equally probable it always takes the other one.

    Args:
        probability: p, the conditional, ``(B, sites, K)`` float64.
        x: the sites as they are, one-hot, the same shape.
    """
    other = 1 - probability
    moved = probability / torch.maximum(other, (other * x).sum(2, keepdim=True))
    moved = torch.where(x > 0.5, 0.0, moved)  # by choice, not by a product: it is 1 / 0 where p_now rounds to 1
    return moved + x * (1 - moved.sum(2, keepdim=True)).clamp(min=0)


RULES: dict[str, Rule] = {"gibbs": gibbs, "metropolised": metropolised}


class Swept(NamedTuple):
    """Chains after a sweep.

    Args:
        x: ``(B, ...)``, a new tensor.
        carried: what the next sweep wants of it, each ``(B, ...)``.
        accept_prob: probability with which the sweep was made, ``(B,)``; 1 where it needs no correction.
    """

    x: Tensor
    carried: tuple[Tensor, ...]
    accept_prob: Tensor


class Conditionals(ABC):
    """A sweep over the blocks of one target, each block drawn once given the rest; it leaves p_beta invariant."""

    @abstractmethod
    def numbers(self, x: Tensor) -> int:
        """How many uniform numbers a sweep takes for a chain."""

    @abstractmethod
    def sweep(self, x: Tensor, carried: tuple[Tensor, ...], uniform: Tensor, beta: Tensor) -> Swept:
        """One sweep.

        Args:
            x: the chains ``(B, ...)``; not changed.
            carried: of ``x``, from ``start`` or from the last sweep.
            uniform: in [0, 1), ``(B, numbers)`` float64.
            beta: 0-d or one a chain, ``(B,)``.
        """

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """What a sweep wants of ``x`` beside ``x`` itself, each ``(B, ...)``."""
        del x
        return ()

    @abstractmethod
    def f(self, x: Tensor, carried: tuple[Tensor, ...]) -> Tensor:
        """-E(x), ``(B,)`` nats."""


@dataclass(frozen=True)
class PairConditionals(Conditionals):
    """Sites that do not see each other, by the gradient of pairs; blocks are those of ``pairs.blocks``.

    Args:
        target: target of the chains.
        pairs: its structure.
        blocks: sites of each block.
        rule: name of a rule of ``RULES``.
    """

    target: StructuredTarget
    pairs: Pairs
    blocks: tuple[Tensor, ...]
    rule: str

    def numbers(self, x: Tensor) -> int:
        return x.shape[1]

    def sweep(self, x: Tensor, carried: tuple[Tensor, ...], uniform: Tensor, beta: Tensor) -> Swept:
        x = x.clone(memory_format=torch.contiguous_format)
        for sites in self.blocks:
            x[:, sites] = self.drawn(self.transition(x, sites, beta), uniform[:, sites], x.dtype)
        return Swept(x, carried, torch.ones(len(x), dtype=x.dtype, device=x.device))

    def f(self, x: Tensor, carried: tuple[Tensor, ...]) -> Tensor:
        return self.target.evaluate(x).f

    def probability(self, x: Tensor, sites: Tensor, beta: Tensor) -> Tensor:
        """p(x_i = 1 | rest) at a block's sites, ``(B, sites)``, or p(x_i = k | rest), ``(B, sites, K)``, float64."""
        logit = _column(beta, x) * self.pairs.grad_at(x, sites)
        if self.target.reference is not None:
            logit = logit + self.target.reference.weights[sites]
        return _probability(self.target.space.without_padding(logit, sites=sites))

    def transition(self, x: Tensor, sites: Tensor, beta: Tensor) -> Tensor:
        """Probabilities of what the sites become by the rule, as ``probability``."""
        rule, probability = RULES[self.rule], self.probability(x, sites, beta)
        if x.ndim == 3:
            return rule(probability, x[:, sites].double())
        here = x[:, sites].double()
        return rule(torch.stack([1 - probability, probability], 2), torch.stack([1 - here, here], 2))[..., 1]

    def drawn(self, probability: Tensor, uniform: Tensor, dtype: torch.dtype) -> Tensor:
        """Sites by their probabilities, as floats."""
        return _drawn(self.target, probability, uniform, dtype)


@dataclass(frozen=True)
class HiddenConditionals(Conditionals):
    """All hidden units h given x, then all sites given h (Hinton, 2002); at any β by a correction, which is 1 at β = 1.

    The units of p(x, h) ∝ ref(x) exp(b^T x + h^T a), a = W x + c, sum out to exp(sum softplus(a)). The annealed p_β(x)
    ∝ ref(x) exp(β b^T x + β sum softplus(a)) has no such units. So a sweep is one of the path whose conditionals do
    factorise, p'_β(x, h) ∝ ref(x) exp(β (b^T x + h^T a)), with p'_β(x) ∝ ref(x) exp(β b^T x + sum softplus(β a)). It
    is reversible in x. Made with the probability

        min(1, exp(gap(x') - gap(x))),     gap(x) = sum (β softplus(a) - softplus(β a)),

    it leaves p_β(x) invariant, the path of every other kernel. Each unit adds up to (1 - β) log 2 to the gap, so with
    hundreds of units a sweep in the middle of the path is seldom made: to anneal such a model take a kernel that
    changes few sites. It carries a, ``(B, H)``.

    Args:
        target: target of the chains.
        units: its structure.
    """

    target: StructuredTarget
    units: HiddenUnits

    def numbers(self, x: Tensor) -> int:
        return len(self.units.weight) + x.shape[1] + 1

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return (functional.linear(x.flatten(1), self.units.weight, self.units.hidden_bias),)

    def sweep(self, x: Tensor, carried: tuple[Tensor, ...], uniform: Tensor, beta: Tensor) -> Swept:
        (a,), scale = carried, beta.reshape(-1, 1)
        of_units, of_sites, of_all = uniform.split([a.shape[1], x.shape[1], 1], 1)
        hidden = (of_units < _probability(scale * a)).to(x.dtype)
        y = _drawn(self.target, _probability(self.logits(x, hidden, beta)), of_sites, x.dtype)
        (a_new,) = self.start(y)
        log_ratio = self.gap(a_new, scale) - self.gap(a, scale)
        accept_prob = accept_probability(log_ratio)
        y, a_new = select(of_all[:, 0] < accept_prob, (y, a_new), (x, a))
        return Swept(y, (a_new,), accept_prob)

    def f(self, x: Tensor, carried: tuple[Tensor, ...]) -> Tensor:
        return x.flatten(1) @ self.units.visible_bias + functional.softplus(carried[0]).sum(1)

    def logits(self, x: Tensor, hidden: Tensor, beta: Tensor) -> Tensor:
        """Of the sites given the units, in the shape of ``x``."""
        pull = torch.addmm(self.units.visible_bias, hidden, self.units.weight).view_as(x)
        logits = _column(beta, x) * pull
        logits = logits if self.target.reference is None else logits + self.target.reference.weights
        return self.target.space.without_padding(logits)

    def gap(self, a: Tensor, scale: Tensor) -> Tensor:
        """log p_β(x) - log p'_β(x) up to a constant, ``(B,)`` float64."""
        gap = scale * functional.softplus(a) - functional.softplus(scale * a)
        return gap.sum(1, dtype=torch.float64)


@dataclass(frozen=True)
class PathConditionals(Conditionals):
    """Whole paths of binary sites, one after the other: forward filtering, backward sampling (Scott, 2002).

    Given the sites off a path x_1 ... x_n, p_β of it is a Markov chain, ∝ exp(sum_t h_t x_t + sum_t J_t x_t x_(t+1)),
    with h = β ∂f + ref at x_1 = ... = x_n = 0 and J = β R. The log odds of x_t = 1 with the sites after it left out are

        l_1 = h_1,     l_(t+1) = h_(t+1) + softplus(l_t + J_t) - softplus(l_t)

    and x_n is drawn with the log odds l_n, then x_t given x_(t+1) with l_t + J_t x_(t+1), all in float64.

    Args:
        target: target of the chains.
        pairs: its structure.
        paths: sites of each path, ``(P, n)``.
        along: R between the neighbours of each path, ``(P, n - 1)`` float64.
    """

    target: StructuredTarget
    pairs: SparsePairs
    paths: Tensor
    along: Tensor

    def numbers(self, x: Tensor) -> int:
        return x.shape[1]

    def sweep(self, x: Tensor, carried: tuple[Tensor, ...], uniform: Tensor, beta: Tensor) -> Swept:
        x = x.clone(memory_format=torch.contiguous_format)
        logit = uniform.logit()
        for path, along in zip(self.paths, self.along, strict=True):
            pull = (_column(beta, x).double() * along).expand(len(x), -1).unbind(1)
            odds = self.log_odds(x, path, pull, beta)
            drawn = [(logit[:, path[-1]] < odds[-1]).double()]
            for t in range(len(path) - 2, -1, -1):
                drawn.append((logit[:, path[t]] < odds[t] + pull[t] * drawn[-1]).double())
            x[:, path] = torch.stack(drawn[::-1], 1).to(x.dtype)
        return Swept(x, carried, torch.ones(len(x), dtype=x.dtype, device=x.device))

    def log_odds(self, x: Tensor, path: Tensor, pull: Sequence[Tensor], beta: Tensor) -> list[Tensor]:
        """l_1 ... l_n of a path, each ``(B,)`` float64, from J, ``pull``; x at the path itself does not matter."""
        field = _column(beta, x) * self.pairs.grad_at(x.index_fill(1, path, 0.0), path)
        if self.target.reference is not None:
            field = field + self.target.reference.weights[path]
        first, *others = field.double().unbind(1)
        odds = [first]
        for h, J in zip(others, pull, strict=True):
            odds.append(h + _softplus(odds[-1] + J) - _softplus(odds[-1]))
        return odds

    def f(self, x: Tensor, carried: tuple[Tensor, ...]) -> Tensor:
        return self.target.evaluate(x).f


@singledispatch
def conditionals(structure: object, target: StructuredTarget, x: Tensor, rule: str) -> Conditionals | None:
    """The blocks of a structure for chains like ``x``; None where it has none, or where they do not go by ``rule``."""
    del structure, target, x, rule
    return None


@conditionals.register
def _of_sparse_pairs(pairs: SparsePairs, target: StructuredTarget, x: Tensor, rule: str) -> Conditionals:
    if pairs.paths is None or RULES[rule] is not gibbs:
        return PairConditionals(target, pairs, pairs.blocks(x), rule)
    before, after = pairs.paths[:, :-1], pairs.paths[:, 1:]
    joined = pairs.graph.neighbours[before] == after[:, :, None]
    along = torch.where(joined, pairs.rows[before], 0.0).sum(2, dtype=torch.float64)
    return PathConditionals(target, pairs, pairs.paths, along)


@conditionals.register(DensePairs)
@conditionals.register(SparseCategoricalPairs)
def _of_pairs(
    pairs: DensePairs | SparseCategoricalPairs, target: StructuredTarget, x: Tensor, rule: str
) -> Conditionals:
    return PairConditionals(target, pairs, pairs.blocks(x), rule)


@conditionals.register
def _of_hidden_units(units: HiddenUnits, target: StructuredTarget, x: Tensor, rule: str) -> Conditionals | None:
    del x
    return HiddenConditionals(target, units) if RULES[rule] is gibbs else None


def _column(beta: Tensor, x: Tensor) -> Tensor:
    """β to multiply something of the shape of ``x``."""
    return beta.reshape(-1, *[1] * (x.ndim - 1))


def _softplus(a: Tensor) -> Tensor:
    """log(1 + exp(a)) in float64 to the last digit."""
    return functional.softplus(a, threshold=40)


def _probability(logit: Tensor) -> Tensor:
    """The logistic function of binary logits ``(B, n)``, the softmax of categorical ones ``(B, n, K)``, in float64."""
    return torch.sigmoid(logit.double()) if logit.ndim == 2 else torch.softmax(logit.double(), 2)


def _drawn(target: StructuredTarget, probability: Tensor, uniform: Tensor, dtype: torch.dtype) -> Tensor:
    """Sites by their probabilities, as floats."""
    if isinstance(target.space, Binary):
        return (uniform < probability).to(dtype)
    category, _ = first_above(probability.flatten(0, 1), uniform.flatten())
    return target.space.encode(category.view_as(uniform), dtype)
