"""What an energy may know of itself: pairs of sites, dense or sparse, hidden units, or layers; as plain data in f = -E.

A structure is a named tuple of tensors, made from the weights as they are and sharing no memory that an optimizer
writes, so that a compiled or captured step sees new weights as new inputs. ``start`` evaluates f and ∇f at x, ``move``
follows them through a change of one site at less than the cost of an evaluation. Fast paths and block kernels read the
fields.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from gwg_dist.graph import Graph
from gwg_dist.spaces import Change

SHORTCUTS = ("energy_and_grad", "site_slopes", "structure")
SYMMETRIC_BLOCK = 256
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Evaluation(NamedTuple):
    """A model at x. Accepting a proposal is one ``where`` a field.

    Args:
        f: ``(B,)``, -E(x) in nats.
        grad: ∇f(x), the shape of x.
        aux: what ``move`` may want of the current state, each ``(B, ...)``.
    """

    f: Tensor
    grad: Tensor
    aux: tuple[Tensor, ...] = ()


class ByClass(type(Protocol)):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
    """A protocol of methods and properties, which are looked for once a class: a look takes tens of microseconds."""

    def __instancecheck__(cls, instance: object) -> bool:
        known = OFFERED.setdefault(type(instance), {})
        if cls not in known:
            known[cls] = super().__instancecheck__(instance)
        return known[cls]


OFFERED: WeakKeyDictionary[type, dict[type, bool]] = WeakKeyDictionary()
"""Whether a class has what a protocol asks for, by class, as long as that lives, and protocol."""


@runtime_checkable
class Structure(Protocol, metaclass=ByClass):
    """What every structure offers."""

    def start(self, x: Tensor) -> Evaluation:
        """f and ∇f at ``x`` from scratch."""
        ...

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        """The evaluation at ``x``, reached from ``here`` by ``change``. Equal to ``start(x)`` up to rounding."""
        ...


@runtime_checkable
class Network(Structure, Protocol):
    """A structure of layers: ∇f costs a backward pass after the forward pass that gives f."""

    def f(self, x: Tensor) -> Tensor:
        """f at ``x``, ``(B,)`` nats, by the forward pass alone."""
        ...


@runtime_checkable
class Mixable(Structure, Protocol):
    """A structure that may take ∇f, and not f, from products in bfloat16.

    A proposal may follow any deterministic function of x: with f in full precision chains stay exact.
    """

    @property
    def in_bfloat16(self) -> bool:
        """Whether it does."""
        ...

    @property
    def backward_products(self) -> int:
        """Multiplications of the backward pass, a point."""
        ...

    def mixed(self) -> Structure:
        """The same with the backward pass in bfloat16."""
        ...


@runtime_checkable
class Pairs(Structure, Protocol):
    """A structure of sites and pairs of sites alone."""

    def dense(self) -> DensePairs:
        """The same f with a coupling for every pair."""
        ...


class DensePairs(NamedTuple):
    """f(x) = constant + slope^T x + x^T rows x / 2 with x flattened to N = D (binary) or D K (categorical) numbers.

    Args:
        rows: ``(N, N)``, symmetric, zero within a site.
        slope: ``(N,)``, ∇f at x = 0.
        constant: 0-d, f at x = 0.
    """

    rows: Tensor
    slope: Tensor
    constant: Tensor

    def start(self, x: Tensor) -> Evaluation:
        flat = x.flatten(1)
        pull = flat @ self.rows if x.ndim == 2 else self._summed_rows(x)
        f = self.constant + (flat * (self.slope + pull / 2)).sum(1, dtype=torch.float64)
        return Evaluation(f, (self.slope + pull).view_as(x))

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        """f is linear in each site, so its change is read off the gradient: exact, summed in float64."""
        if x.ndim == 2:
            step = (change.new - change.old).to(x.dtype)[:, None]
            f = here.f + (step * here.grad.gather(1, change.site[:, None]))[:, 0]
            return Evaluation(f, here.grad + step * self.rows[change.site])
        grad = here.grad.flatten(1)
        old, new = (change.site * x.shape[2] + category for category in (change.old, change.new))
        entries = grad.gather(1, torch.stack([old, new], 1))
        f = here.f + (entries[:, 1] - entries[:, 0])
        return Evaluation(f, (grad + (self.rows[new] - self.rows[old])).view_as(x))

    def dense(self) -> DensePairs:
        """Itself."""
        return self

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Sites that are independent given the others, one tensor of sites a block: here each site alone."""
        return tuple(torch.arange(x.shape[1], device=x.device).split(1))

    def grad_at(self, x: Tensor, sites: Tensor) -> Tensor:
        """∇f at some sites, ``(B, sites)`` or ``(B, sites, K)``. It does not depend on x at those sites themselves."""
        width = 1 if x.ndim == 2 else x.shape[2]
        index = (sites[:, None] * width + torch.arange(width, device=x.device)).flatten()
        grad = self.slope[index] + x.flatten(1) @ self.rows[:, index]
        return grad if x.ndim == 2 else grad.unflatten(1, (-1, width))

    def _summed_rows(self, x: Tensor) -> Tensor:
        """x^T rows for one-hot x: the rows of the categories that are there, added up."""
        if torch.compiler.is_compiling():
            return x.flatten(1) @ self.rows
        first = torch.arange(x.shape[1], device=x.device) * x.shape[2]
        return functional.embedding_bag(x.argmax(2) + first, self.rows, mode="sum")


class SparsePairs(NamedTuple):
    """f(x) = constant + slope^T x + x^T R x / 2 of binary x ``(B, D)``, R zero but between the neighbours of a graph.

    Args:
        graph: who sees whom.
        rows: ``(D, n)``, R at ``graph.neighbours``; made by ``graph.rows``, so that it is symmetric.
        slope: ``(D,)``, ∇f at x = 0.
        constant: 0-d, f at x = 0.
        paths: ``(P, n)`` int64, paths that hold every site once: of the sites of a path, only those next to each other
            in it see each other, so that a path can be drawn as a whole; None where no such paths are known.
    """

    graph: Graph
    rows: Tensor
    slope: Tensor
    constant: Tensor
    paths: Tensor | None = None

    def start(self, x: Tensor) -> Evaluation:
        pull = torch.zeros_like(x)
        for neighbour, row in zip(self.graph.neighbours.T, self.rows.T, strict=True):
            pull = torch.addcmul(pull, x[:, neighbour], row)
        f = self.constant + (x * (self.slope + pull / 2)).sum(1, dtype=torch.float64)
        return Evaluation(f, self.slope + pull)

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        """f is linear in each site, so its change is the gradient's entry."""
        step = (change.new - change.old).to(x.dtype)[:, None]
        f = here.f + (step * here.grad.gather(1, change.site[:, None]))[:, 0]
        at, pull = self.graph.neighbours[change.site], step * self.rows[change.site]
        return Evaluation(f, here.grad.scatter_add(1, at, pull))

    def dense(self) -> DensePairs:
        """The same f with a coupling for every pair, zero where no edge is."""
        rows = self.rows.new_zeros(len(self.slope), len(self.slope)).scatter(1, self.graph.neighbours, self.rows)
        return DensePairs(rows, self.slope, self.constant)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Sites that are independent given the others: those of each colour."""
        return tuple(block.to(x.device) for block in self.graph.blocks)

    def grad_at(self, x: Tensor, sites: Tensor) -> Tensor:
        """∇f at some sites, ``(B, sites)``. It does not depend on x at those sites of one colour themselves."""
        return self.slope[sites] + (x[:, self.graph.neighbours[sites]] * self.rows[sites]).sum(2)

    def steepest(self) -> Tensor:
        """A bound on every entry of abs(∇f) at every x, 0-d."""
        return ((self.slope + self.rows.sum(1) / 2).abs() + self.rows.abs().sum(1) / 2).max()


class SparseCategoricalPairs(NamedTuple):
    """f(x) = constant + sum_i slope_i^T x_i + sum_(i~j) x_i^T R_ij x_j of one-hot x ``(B, D, K)``, i~j in a graph.

    Args:
        graph: who sees whom.
        rows: ``(D, n, K, K)``, R_ij at j = ``graph.neighbours``; made by ``graph.rows``, so that R_ji is its transpose.
        slope: ``(D, K)``, ∇f at x = 0.
        constant: 0-d, f at x = 0.
    """

    graph: Graph
    rows: Tensor
    slope: Tensor
    constant: Tensor

    def start(self, x: Tensor) -> Evaluation:
        pull = torch.zeros_like(x)
        for neighbour, matrix in zip(self.graph.neighbours.T, self.rows.unbind(1), strict=True):
            pull = pull + torch.einsum("bdl,dkl->bdk", x[:, neighbour], matrix)
        f = self.constant + (x * (self.slope + pull / 2)).sum((1, 2), dtype=torch.float64)
        return Evaluation(f, self.slope + pull)

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        """f is linear in each site, so its change is read off the gradient."""
        chain = torch.arange(len(x), device=x.device)
        f = here.f + (here.grad[chain, change.site, change.new] - here.grad[chain, change.site, change.old])
        pull = self.rows[change.site, :, change.new] - self.rows[change.site, :, change.old]
        at = self.graph.neighbours[change.site][:, :, None].expand_as(pull)
        return Evaluation(f, here.grad.scatter_add(1, at, pull))

    def dense(self) -> DensePairs:
        """The same f with a coupling for every pair, zero where no edge is."""
        num, width = self.slope.shape
        rows = self.rows.new_zeros(num, num, width, width)
        rows[torch.arange(num, device=rows.device)[:, None], self.graph.neighbours] = self.rows
        rows = rows.transpose(1, 2).reshape(num * width, num * width)
        return DensePairs(rows, self.slope.flatten(), self.constant)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Sites that are independent given the others: those of each colour."""
        return tuple(block.to(x.device) for block in self.graph.blocks)

    def grad_at(self, x: Tensor, sites: Tensor) -> Tensor:
        """∇f at some sites, ``(B, sites, K)``. It does not depend on x at those sites of one colour themselves."""
        others = x[:, self.graph.neighbours[sites]]
        return self.slope[sites] + torch.einsum("bsnl,snkl->bsk", others, self.rows[sites])


class HiddenUnits(NamedTuple):
    """f(x) = visible_bias^T x + sum_h softplus(weight x + hidden_bias)_h, x flattened to N = D or D K numbers.

    The evaluation carries weight x + hidden_bias, ``(B, H)``, as its one ``aux``.

    Args:
        weight: ``(H, N)``.
        columns: its transpose, ``(N, H)``, contiguous.
        hidden_bias: ``(H,)``.
        visible_bias: ``(N,)``.
        back: the weight by which sigmoids are multiplied for ∇f, in bfloat16; None for ``weight`` itself.
    """

    weight: Tensor
    columns: Tensor
    hidden_bias: Tensor
    visible_bias: Tensor
    back: Tensor | None = None

    @property
    def in_bfloat16(self) -> bool:
        return self.back is not None

    @property
    def backward_products(self) -> int:
        return self.weight.numel()

    def mixed(self) -> HiddenUnits:
        return self._replace(back=self.weight.bfloat16())

    def start(self, x: Tensor) -> Evaluation:
        return self._at(x, functional.linear(x.flatten(1), self.weight, self.hidden_bias))

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        (hidden,) = here.aux
        return self._at(x, product_after(hidden, self.columns, x, change))

    def _at(self, x: Tensor, hidden: Tensor) -> Evaluation:
        softplus, sigmoid = _softplus_sum_and_sigmoid(hidden)
        grad = pulled(self.visible_bias, sigmoid, self.weight if self.back is None else self.back)
        return Evaluation(x.flatten(1) @ self.visible_bias + softplus, grad.view_as(x), (hidden,))


def pulled(bias: Tensor, sigmoid: Tensor, weight: Tensor) -> Tensor:
    """bias + sigmoid weight, ``(B, N)``, the product in the precision of ``weight``, the sum in that of ``bias``."""
    if weight.dtype == bias.dtype:
        return torch.addmm(bias, sigmoid, weight)
    return bias + sigmoid.to(weight.dtype) @ weight


def product_after(product: Tensor, columns: Tensor, x: Tensor, change: Change) -> Tensor:
    """W x + b at ``x``, ``(B, H)``, from ``product`` before the change of one site; ``columns`` is W^T ``(N, H)``."""
    if x.ndim == 2:
        return product + (change.new - change.old).to(x.dtype)[:, None] * columns[change.site]
    old, new = (change.site * x.shape[2] + category for category in (change.old, change.new))
    return product + (columns[new] - columns[old])


class MayKnowItself(nn.Module):
    """A model that may offer short cuts: its own gradient, or its structure.

    A short cut belongs to the ``forward`` of the class that gives it. Where a subclass or an instance has another
    ``forward`` or another ``__call__``, or where hooks are registered, it is not used (see ``offered``).
    """

    _forward_of: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls._forward_of = cls._forward_of | {name: cls.forward for name in SHORTCUTS if name in vars(cls)}

    def structure(self) -> Structure | None:
        """f = -E as plain data, from the weights as they are now; None where there is no such form."""
        return None


def offered(energy: object, shortcut: str) -> bool:
    """Whether ``energy`` gives this short cut, and it is still the one of its ``forward``."""
    if not isinstance(energy, MayKnowItself):
        return False
    cls = type(energy)
    if cls._forward_of.get(shortcut) is not cls.forward or "forward" in vars(energy):
        return False
    if cls.__call__ is not nn.Module.__call__:
        return False
    hooked = any(getattr(part, hooks) for part in energy.modules() for hooks in HOOKS)
    return not hooked and not any(getattr(torch_module, f"_global{hooks}") for hooks in HOOKS)


def symmetric(upper: Tensor, width: int = 1) -> Tensor:
    """``(N, N)`` with the part above the diagonal of ``upper`` on both sides, zero within a site of ``width`` numbers.

    The copy goes in blocks that stay in the cache. One transposing copy of the whole took 1.6 (N = 1600) and 1.8 times
    (N = 2100) as long on one thread of an AMD EPYC.
    """
    size = len(upper)
    block = max(SYMMETRIC_BLOCK // width, 1) * width
    both = torch.empty_like(upper)
    for start in range(0, size, block):
        rows, end = upper[start : start + block], min(start + block, size)
        site = torch.arange(end - start, device=upper.device) // width
        diagonal = torch.where(site[:, None] < site, rows[:, start:end], 0.0)
        torch.add(diagonal, diagonal.T, out=both[start:end, start:end])
        both[start:end, end:] = rows[:, end:]
        for right in range(end, size, block):
            both[right : right + block, start:end] = rows[:, right : right + block].T
    return both


def _softplus_sum_and_sigmoid(a: Tensor) -> tuple[Tensor, Tensor]:
    """``(B, H)`` to sum_h softplus ``(B,)`` and the sigmoid ``(B, H)``.

    softplus(a) = max(a, 0) + log(1 + exp(-|a|)), and 1 + exp(-|a|) <= 2: compiled, where passes are free and functions
    are not, one exponential serves both, and one logarithm the product of several factors.
    """
    if not torch.compiler.is_compiling():
        return functional.softplus(a).sum(1), a.sigmoid()
    tail = (-a.abs()).exp()
    factor = 1 + tail
    sigmoid = torch.where(a >= 0, 1.0, tail) / factor
    group = next(size for size in (20, 16, 10, 8, 5, 4, 2, 1) if a.shape[1] % size == 0)
    parts = factor.unflatten(1, (group, -1)).unbind(1)
    product = parts[0]
    for part in parts[1:]:
        product = product * part
    return a.relu().sum(1) + product.log().sum(1), sigmoid
