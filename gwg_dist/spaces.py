"""Discrete spaces: the only place that knows how x looks.

The same point has three forms. Models see floats: ``(B, D)`` in {0, 1}, or one-hot ``(B, D, K)``. Data sets
hold *codes*: the smallest integer type that fits, ``(B, D)`` in 0..K-1. Buffers and checkpoints hold *packed*
codes: eight binary sites a byte, one integer a site otherwise.

A *move* changes one site. Moves are numbered: i for flipping site i of a binary point, i * K + k for setting site i
of a categorical point to category k. Not implemented: sites with different numbers of categories.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.draws import first_above
from gwg_dist.tools.memory import check_room

MAX_ENUMERABLE_STATES = 2**22


class Change(NamedTuple):
    """One changed site per chain, each field ``(B,)`` int64: the site, its old category, its new one."""

    site: Tensor
    old: Tensor
    new: Tensor

    def reversed(self) -> Change:
        """The change that undoes this one. It leads back to the OLD category."""
        return Change(self.site, self.new, self.old)


class Space(ABC):
    """A product of D sites with K categories each, arranged in ``shape``."""

    def __init__(self, shape: int | Sequence[int], num_categories: int) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(int(s) for s in shape)
        if not self.shape or any(s < 1 for s in self.shape):
            raise ValueError(f"shape must hold positive sizes, got {self.shape}")
        if num_categories < 2:
            raise ValueError(f"num_categories must be at least 2, got {num_categories}")
        self.num_sites = math.prod(self.shape)
        self.num_categories = int(num_categories)

    # -- what a space is ------------------------------------------------------------------------------------------

    @property
    def num_states(self) -> int:
        """The number of points, K^D."""
        return self.num_categories**self.num_sites

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers a model sees of a site: 1 (binary) or K (categorical)."""

    @property
    def code_dtype(self) -> torch.dtype:
        """The smallest integer type that holds every category."""
        if self.num_categories <= 2**8:
            return torch.uint8
        return torch.int16 if self.num_categories <= 2**15 else torch.int32

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    # -- integers: codes and packed codes -------------------------------------------------------------------------

    def check_codes(self, codes: Tensor, name: str = "codes") -> None:
        """Raise ValueError unless ``codes`` is ``(B, D)`` with integers in 0..K-1."""
        if codes.ndim != 2 or codes.shape[1] != self.num_sites:
            raise ValueError(f"{name} must have shape (any, {self.num_sites}) for {self}, got {tuple(codes.shape)}")
        if codes.is_floating_point() or codes.is_complex():
            raise ValueError(f"{name} must hold integers, got {codes.dtype}")
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= self.num_categories):
            raise ValueError(
                f"{name} must lie in 0..{self.num_categories - 1} for {self}, "
                f"got values from {int(codes.min())} to {int(codes.max())}"
            )

    sites_packed_together = 1
    """Neighbouring sites in one packed integer. Ranges of so many sites can be packed alone and put together."""

    def check_points(self, x: Tensor, name: str = "x") -> None:
        """Raise ValueError unless ``x`` holds points as models see them, 0 or 1 ``(B, D)`` or one-hot ``(B, D, K)``."""
        sites = (self.num_sites,) if self.width == 1 else (self.num_sites, self.width)
        if not x.is_floating_point() or x.shape[1:] != sites:
            expected, found = ", ".join(map(str, ("any", *sites))), f"{x.dtype} {tuple(x.shape)}"
            raise ValueError(f"{name} must hold floats of shape ({expected}) for {self}, got {found}")
        right = torch.equal(x * x, x)
        if right and self.width > 1:
            right = bool((x.sum(-1) == 1).all())
        if not right:
            kind = "0 or 1" if self.width == 1 else "one-hot"
            raise ValueError(f"{name} must be {kind} for {self}: codes become points by space.encode(codes)")

    def pack(self, codes: Tensor) -> Tensor:
        """Codes ``(B, D)`` in the form that buffers and checkpoints hold."""
        return codes.to(self.code_dtype)

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse of ``pack``."""
        return packed

    def all_codes(self) -> Tensor:
        """Every point, ``(K^D, D)``, the last site changing fastest.

        Raises:
            ValueError: where there are more than 2^22 points.
        """
        if self.num_states > MAX_ENUMERABLE_STATES:
            raise ValueError(f"{self} has {self.num_categories}^{self.num_sites} points, too many to enumerate")
        rank = torch.arange(self.num_states)
        place = self.num_categories ** torch.arange(self.num_sites - 1, -1, -1)
        return ((rank[:, None] // place) % self.num_categories).to(self.code_dtype)

    def uniform_codes(self, num: int, *, generator: torch.Generator) -> Tensor:
        """``num`` independent points with every site uniform, ``(num, D)``."""
        size = (num, self.num_sites)
        codes = torch.randint(self.num_categories, size, generator=generator, device=generator.device)
        return codes.to(self.code_dtype)

    # -- floats: what models and kernels see ----------------------------------------------------------------------

    @abstractmethod
    def encode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Codes ``(B, D)`` as floats for a model."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """The inverse of ``encode``."""

    @abstractmethod
    def linear_form(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """``(w, c)`` with log prod_i p_i(x_i) = c + <w, x>, from the sites' log probabilities ``(D, K)``."""

    @abstractmethod
    def first_order_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        """d(x), the first-order estimate of the change of log p by every move, ``(B, num_moves)``.

        Binary: d_i = -(2 x_i - 1) ∂_i log p. Categorical: d_ik = ∂_ik log p - sum_l x_il ∂_il log p, and -inf
        where k is the current category: staying is no move. (Grathwohl et al., 2021, equations 3 and 4.)
        """

    # -- many sites at once ---------------------------------------------------------------------------------------

    @abstractmethod
    def site_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        """d(x) by site: of flipping it, ``(B, D)``; or of every category, ``(B, D, K)``, 0 for the one it has."""

    @abstractmethod
    def site_distances(self, x: Tensor) -> Tensor:
        """|x'_i - x_i|² by site: 1 of flipping it, ``(B, D)``; or 2 of every category, 0 of its own, ``(B, D, K)``."""

    @abstractmethod
    def draw_sites(self, x: Tensor, logits: Tensor, uniform: Tensor) -> Tensor:
        """Every site drawn on its own, in a new tensor.

        Args:
            x: binary ``(B, D)`` or one-hot ``(B, D, K)``.
            logits: log odds of flipping against staying, ``(B, D)``; or of every category, ``(B, D, K)``.
            uniform: ``(B, D)`` in [0, 1).
        """

    @abstractmethod
    def log_prob_sites(self, x: Tensor, logits: Tensor, x_new: Tensor) -> Tensor:
        """log of the probability that ``draw_sites`` makes ``x_new`` of ``x``, ``(B,)`` float64 nats."""

    @abstractmethod
    def site_log_weights(self, log_weights: Tensor) -> Tensor:
        """log of the sum of the weights of each site's moves, ``(B, D)``, from all moves' ``(B, num_moves)``."""

    @abstractmethod
    def change_sites(self, x: Tensor, log_weights: Tensor | None, chosen: Tensor, uniform: Tensor) -> Tensor:
        """``x`` with every ``chosen`` site ``(B, D)`` set to another category, in a new tensor.

        Args:
            x: binary ``(B, D)`` or one-hot ``(B, D, K)``.
            log_weights: log weights of all moves ``(B, num_moves)``, by which a categorical site picks its new
                category; None picks uniformly.
            chosen: booleans.
            uniform: ``(B, D)`` in [0, 1); not read where there is one other category.
        """

    @abstractmethod
    def log_prob_changes(self, x: Tensor, log_weights: Tensor, x_new: Tensor) -> Tensor:
        """log of the probability that ``change_sites`` takes the categories of ``x_new`` where it differs, ``(B,)``."""

    @abstractmethod
    def set_sites(self, x: Tensor, sites: Tensor, categories: Tensor) -> Tensor:
        """A new tensor: ``x`` with these categories at these sites, each ``(B, n)`` int64; no site twice in a row."""

    # -- one site -------------------------------------------------------------------------------------------------

    @abstractmethod
    def change(self, x: Tensor, move: Tensor) -> Change:
        """What the moves ``(B,)`` do to ``x``."""

    @abstractmethod
    def apply(self, x: Tensor, change: Change) -> Tensor:
        """A new tensor: ``x`` after the change."""

    @abstractmethod
    def first_order_difference(self, grad: Tensor, change: Change) -> Tensor:
        """The entry of d(x) that belongs to one change a chain, ``(B,)``; ``grad`` as there."""

    @abstractmethod
    def category_at(self, x: Tensor, site: Tensor) -> Tensor:
        """The category of ``x`` at one site per chain, ``(B,)`` int64."""

    @abstractmethod
    def hamming(self, x: Tensor, y: Tensor) -> Tensor:
        """The number of sites at which x and y differ, ``(B,)`` float."""


class Binary(Space):
    """{0, 1}^D. Models see ``(B, D)`` floats."""

    def __init__(self, shape: int | Sequence[int]) -> None:
        super().__init__(shape, 2)

    def __repr__(self) -> str:
        return f"Binary({self.shape})"

    sites_packed_together = 8

    def pack(self, codes: Tensor) -> Tensor:
        """Eight sites a byte, ``(B, ceil(D / 8))`` uint8; the first site is the lowest bit."""
        padding = -codes.shape[1] % 8
        bits = torch.nn.functional.pad(codes.to(torch.uint8), (0, padding)).unflatten(1, (-1, 8))
        return (bits << _bit_positions(codes.device)).sum(-1, dtype=torch.uint8)

    def unpack(self, packed: Tensor) -> Tensor:
        bits = (packed[:, :, None] >> _bit_positions(packed.device)) & 1
        return bits.flatten(1)[:, : self.num_sites]

    def encode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return codes.to(dtype)

    def decode(self, x: Tensor) -> Tensor:
        return x.to(self.code_dtype)

    def linear_form(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        return log_probs[:, 1] - log_probs[:, 0], log_probs[:, 0].sum()

    @property
    def width(self) -> int:
        return 1

    def first_order_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        return (1 - 2 * x) * grad

    def site_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        return self.first_order_differences(x, grad)

    def site_distances(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)

    def draw_sites(self, x: Tensor, logits: Tensor, uniform: Tensor) -> Tensor:
        return torch.where(uniform < logits.double().sigmoid(), 1 - x, x)

    def log_prob_sites(self, x: Tensor, logits: Tensor, x_new: Tensor) -> Tensor:
        changed = (x != x_new).to(logits.dtype)
        return functional.logsigmoid((2 * changed - 1) * logits).sum(1, dtype=torch.float64)

    def site_log_weights(self, log_weights: Tensor) -> Tensor:
        return log_weights

    def change_sites(self, x: Tensor, log_weights: Tensor | None, chosen: Tensor, uniform: Tensor) -> Tensor:
        return torch.where(chosen, 1 - x, x)

    def log_prob_changes(self, x: Tensor, log_weights: Tensor, x_new: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def set_sites(self, x: Tensor, sites: Tensor, categories: Tensor) -> Tensor:
        return x.scatter(1, sites, categories.to(x.dtype))

    def change(self, x: Tensor, move: Tensor) -> Change:
        old = self.category_at(x, move)
        return Change(move, old, 1 - old)

    def apply(self, x: Tensor, change: Change) -> Tensor:
        return x.scatter(1, change.site[:, None], change.new[:, None].to(x.dtype))

    def first_order_difference(self, grad: Tensor, change: Change) -> Tensor:
        slope = _rows(grad, len(change.site)).gather(1, change.site[:, None])[:, 0]
        return (change.new - change.old) * slope

    def category_at(self, x: Tensor, site: Tensor) -> Tensor:
        return x.gather(1, site[:, None])[:, 0].long()

    def hamming(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().sum(1)


class Categorical(Space):
    """{0, ..., K-1}^D. Models see one-hot ``(B, D, K)`` floats."""

    def __init__(self, shape: int | Sequence[int], num_categories: int) -> None:
        super().__init__(shape, num_categories)

    def __repr__(self) -> str:
        return f"Categorical({self.shape}, num_categories={self.num_categories})"

    def encode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Codes ``(B, D)`` one-hot, ``(B, D, K)``. Raises InputError where they do not fit into memory."""
        if codes.device.type == "cpu":
            points = f"{len(codes)} one-hot points of {self}"
            num_bytes = codes.numel() * self.num_categories * dtype.itemsize
            check_room(num_bytes, points, "fewer at a time, or fewer categories")
        x = torch.zeros(*codes.shape, self.num_categories, dtype=dtype, device=codes.device)
        return x.scatter_(-1, codes.long()[..., None], 1)

    def decode(self, x: Tensor) -> Tensor:
        return x.argmax(-1).to(self.code_dtype)

    def linear_form(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        return log_probs, log_probs.new_zeros(())

    @property
    def width(self) -> int:
        return self.num_categories

    def first_order_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        return self.site_differences(x, grad).masked_fill(x > 0.5, -torch.inf).flatten(1)

    def site_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        return grad - (x * grad).sum(-1, keepdim=True)

    def site_distances(self, x: Tensor) -> Tensor:
        return 2 - 2 * x

    def draw_sites(self, x: Tensor, logits: Tensor, uniform: Tensor) -> Tensor:
        return self.encode(_draw_last(logits, uniform), x.dtype)

    def log_prob_sites(self, x: Tensor, logits: Tensor, x_new: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, -1)
        return torch.where(x_new > 0.5, log_p, 0.0).sum((1, 2), dtype=torch.float64)

    def site_log_weights(self, log_weights: Tensor) -> Tensor:
        return log_weights.unflatten(1, (-1, self.num_categories)).logsumexp(-1)

    def change_sites(self, x: Tensor, log_weights: Tensor | None, chosen: Tensor, uniform: Tensor) -> Tensor:
        logits = torch.zeros_like(x) if log_weights is None else log_weights.view_as(x)
        logits = logits.masked_fill(x > 0.5, -torch.inf)
        return torch.where(chosen[:, :, None], self.encode(_draw_last(logits, uniform), x.dtype), x)

    def log_prob_changes(self, x: Tensor, log_weights: Tensor, x_new: Tensor) -> Tensor:
        log_p = torch.log_softmax(log_weights.view_as(x), -1)
        return torch.where((x_new > 0.5) & (x < 0.5), log_p, 0.0).sum((1, 2), dtype=torch.float64)

    def set_sites(self, x: Tensor, sites: Tensor, categories: Tensor) -> Tensor:
        whole_sites = sites[:, :, None].expand(-1, -1, self.num_categories)
        return x.scatter(1, whole_sites, self.encode(categories, x.dtype))

    def change(self, x: Tensor, move: Tensor) -> Change:
        site = move // self.num_categories
        return Change(site, self.category_at(x, site), move % self.num_categories)

    def apply(self, x: Tensor, change: Change) -> Tensor:
        one_hot = torch.arange(self.num_categories, device=x.device) == change.new[:, None]
        return x.scatter(1, self._whole_site(change.site), one_hot[:, None, :].to(x.dtype))

    def first_order_difference(self, grad: Tensor, change: Change) -> Tensor:
        grad = _rows(grad.flatten(-2), len(change.site))
        first = change.site * self.num_categories
        ends = grad.gather(1, torch.stack([first + change.old, first + change.new], 1))
        return ends[:, 1] - ends[:, 0]

    def category_at(self, x: Tensor, site: Tensor) -> Tensor:
        return x.gather(1, self._whole_site(site))[:, 0].argmax(-1)

    def hamming(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().sum((1, 2)) / 2

    def _whole_site(self, site: Tensor) -> Tensor:
        return site[:, None, None].expand(-1, 1, self.num_categories)


def _draw_last(logits: Tensor, uniform: Tensor) -> Tensor:
    """One of K for each site, ``(B, D)`` int64, from logits ``(B, D, K)`` and a uniform number each."""
    weights = torch.softmax(logits.double(), -1)
    return first_above(weights.flatten(0, 1), uniform.flatten())[0].view_as(uniform)


def _rows(per_site: Tensor, num: int) -> Tensor:
    """``(B, N)`` as it is, ``(N,)`` once for every chain."""
    return per_site.expand(num, -1)


def _bit_positions(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def read_space(text: str) -> Space:
    """The space whose ``repr`` is ``text``. Raises ValueError where there is none."""
    found = re.fullmatch(r"(Binary|Categorical)\((\((?:\d+, ?)+(?:\d+)?\))(?:, num_categories=(\d+))?\)", text)
    if found is None or (found[1] == "Categorical") != (found[3] is not None):
        raise ValueError(f"{text!r} is no space")
    shape = [int(size) for size in re.findall(r"\d+", found[2])]
    return Binary(shape) if found[3] is None else Categorical(shape, int(found[3]))
