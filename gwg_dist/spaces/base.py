"""The interface of a space: D sites, each with its categories."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

MAX_ENUMERABLE_STATES = 2**22
CHECKED_TOGETHER = 2**22  # numbers in x: a check of many points takes no copy of them all


class Change(NamedTuple):
    """One changed site per chain, each field ``(B,)`` int64: the site, its old category, its new one."""

    site: Tensor
    old: Tensor
    new: Tensor

    def reversed(self) -> Change:
        """The change that undoes this one. It leads back to the OLD category."""
        return Change(self.site, self.new, self.old)


class Space(ABC):
    """A product of D sites arranged in ``shape``; site i has ``sizes[i]`` categories, ``num_categories`` at most."""

    def __init__(self, shape: int | Sequence[int], num_categories: int | Sequence[int]) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(int(s) for s in shape)
        if not self.shape or any(s < 1 for s in self.shape):
            raise ValueError(f"shape must hold positive sizes, got {self.shape}")
        self.num_sites = math.prod(self.shape)
        self.sizes = _checked_sizes(num_categories, self.num_sites)
        self.num_categories = max(self.sizes)
        self.is_ragged = min(self.sizes) < self.num_categories
        self.log_num_states = math.fsum(map(math.log, self.sizes))  # nats

    # -- what a space is ------------------------------------------------------------------------------------------

    @property
    def num_states(self) -> int:
        """The number of points, the product of the sites' sizes."""
        return math.prod(self.sizes)

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

    # -- sites of different sizes ---------------------------------------------------------------------------------

    def without_padding(self, values: Tensor, fill: float = -torch.inf, *, sites: Tensor | None = None) -> Tensor:
        """``values`` with ``fill`` where there is no category; as they are where all sites have K.

        Args:
            values: ``(..., D, K)``.
            fill: what stands for nothing.
            sites: the sites ``(n,)`` int64 of values ``(..., n, K)``; None: all.
        """
        if not self.is_ragged:
            return values
        padding = padding_of(self.sizes, values.device)
        return values.masked_fill(padding if sites is None else padding[sites], fill)

    def uniform_probabilities(self) -> Tensor:
        """1 / K_i for each category of site i, 0 in the padding, ``(D, K)`` float64."""
        each = 1 / torch.tensor(self.sizes, dtype=torch.float64)
        return self.without_padding(each[:, None].expand(-1, self.num_categories), 0.0).clone()

    def shifted(self, sites: Tensor, categories: Tensor, shifts: Tensor) -> Tensor:
        """Categories moved on by ``shifts``, modulo the size of their sites; int64 tensors that broadcast."""
        return (categories + shifts) % self._size_at(sites)

    def are_distinct(self, sites: Tensor, shifts: Tensor) -> Tensor:
        """Whether ``shifts`` lie below the size of their sites: 0..K-1 then lead to each category once."""
        return shifts < self._size_at(sites)

    def _size_at(self, sites: Tensor) -> Tensor | int:
        return sizes_of(self.sizes, sites.device)[sites] if self.is_ragged else self.num_categories

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    # -- integers: codes and packed codes -------------------------------------------------------------------------

    def check_codes(self, codes: Tensor, name: str = "codes") -> None:
        """Raise ValueError unless ``codes`` is ``(B, D)`` with integers from 0 to below each site's size."""
        if codes.ndim != 2 or codes.shape[1] != self.num_sites:
            raise ValueError(f"{name} must have shape (any, {self.num_sites}) for {self}, got {tuple(codes.shape)}")
        if codes.is_floating_point() or codes.is_complex():
            raise ValueError(f"{name} must hold integers, got {codes.dtype}")
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= self.num_categories):
            raise ValueError(
                f"{name} must lie in 0..{self.num_categories - 1} for {self}, "
                f"got values from {int(codes.min())} to {int(codes.max())}"
            )
        if self.is_ragged and codes.numel():
            highest = codes.amax(0).long()
            above = highest >= sizes_of(self.sizes, codes.device)
            if above.any():
                site = int(above.to(torch.uint8).argmax())
                raise ValueError(
                    f"{name} must lie in 0..{self.sizes[site] - 1} at site {site}, got {int(highest[site])}"
                )

    sites_packed_together = 1
    """Neighbouring sites in one packed integer. Ranges of so many sites can be packed alone and put together."""

    def check_points(self, x: Tensor, name: str = "x") -> None:
        """Raise ValueError unless ``x`` holds points as models see them, 0 or 1 ``(B, D)`` or one-hot ``(B, D, K)``."""
        sites = (self.num_sites,) if self.width == 1 else (self.num_sites, self.width)
        if not x.is_floating_point() or x.shape[1:] != sites:
            expected, found = ", ".join(map(str, ("any", *sites))), f"{x.dtype} {tuple(x.shape)}"
            raise ValueError(f"{name} must hold floats of shape ({expected}) for {self}, got {found}")
        at_once = max(CHECKED_TOGETHER // (self.num_sites * self.width), 1)
        parts = (x,) if len(x) <= at_once else x.split(at_once)
        if not all(self._are_points(part) for part in parts):
            kind = "0 or 1" if self.width == 1 else "one-hot"
            raise ValueError(f"{name} must be {kind} for {self}: codes become points by space.encode(codes)")

    def _are_points(self, x: Tensor) -> bool:
        if not torch.equal(x * x, x):
            return False
        return self.width == 1 or bool((self.without_padding(x, 0.0).sum(-1) == 1).all())

    def pack(self, codes: Tensor) -> Tensor:
        """Codes ``(B, D)`` in the form that buffers and checkpoints hold."""
        return codes.to(self.code_dtype)

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse of ``pack``."""
        return packed

    def all_codes(self) -> Tensor:
        """Every point, ``(num_states, D)``, the last site changing fastest.

        Raises:
            ValueError: where there are more than 2^22 points.
        """
        if self.num_states > MAX_ENUMERABLE_STATES:
            many = f"{self.num_states:,}" if self.is_ragged else f"{self.num_categories}^{self.num_sites}"
            raise ValueError(f"{self} has {many} points, too many to enumerate")
        rank = torch.arange(self.num_states)
        return ((rank[:, None] // self.places()) % torch.tensor(self.sizes)).to(self.code_dtype)

    def places(self) -> Tensor:
        """What one category more at each site adds to the number of a point in ``all_codes()``, ``(D,)`` int64."""
        return torch.tensor([math.prod(self.sizes[i + 1 :]) for i in range(self.num_sites)])

    def uniform_codes(self, num: int, *, generator: torch.Generator) -> Tensor:
        """``num`` independent points with every site uniform, ``(num, D)``."""
        size, device = (num, self.num_sites), generator.device
        if self.is_ragged:  # of 2^62 numbers modulo K_i none is favoured by more than K_i / 2^62
            codes = torch.randint(2**62, size, generator=generator, device=device) % sizes_of(self.sizes, device)
        else:
            codes = torch.randint(self.num_categories, size, generator=generator, device=device)
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
        """``(w, c)`` with log prod_i p_i(x_i) = c + <w, x>, from the sites' log probabilities ``(D, K)``; w finite."""

    @abstractmethod
    def first_order_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        """d(x), the first-order estimate of the change of log p by every move, ``(B, num_moves)``.

        Binary: d_i = -(2 x_i - 1) ∂_i log p. Categorical: d_ik = ∂_ik log p - sum_l x_il ∂_il log p, and -inf
        where k is the current category, because staying is no move, and where it is padding. (Grathwohl et al., 2021,
        equations 3 and 4.)
        """

    # -- many sites at once ---------------------------------------------------------------------------------------

    @abstractmethod
    def site_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        """d(x) by site: of flipping it, ``(B, D)``; or of every category, ``(B, D, K)``, 0 for the one it has.

        -inf in the padding, whatever the gradient is there.
        """

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
    def log_prob_changes(self, x: Tensor, log_weights: Tensor | None, x_new: Tensor) -> Tensor:
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


def _checked_sizes(num_categories: int | Sequence[int], num_sites: int) -> tuple[int, ...]:
    """One number of categories a site. Raises ValueError for one below 2, and for another number of them."""
    if isinstance(num_categories, Sequence):
        sizes = tuple(int(size) for size in num_categories)
    else:
        sizes = (int(num_categories),) * num_sites
    if len(sizes) != num_sites:
        raise ValueError(f"num_categories must be one number or one for each of {num_sites} sites, got {len(sizes)}")
    if min(sizes) < 2:
        where = f" at site {sizes.index(min(sizes))}" if isinstance(num_categories, Sequence) else ""
        raise ValueError(f"num_categories must be at least 2, got {min(sizes)}{where}")
    return sizes


@torch.compiler.assume_constant_result
def sizes_of(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """The sizes of sites as a tensor ``(D,)`` int64, made once: a step copies nothing to the device."""
    return _once(sizes, device)[0]


@torch.compiler.assume_constant_result
def padding_of(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Booleans ``(D, K)``: where a site has no such category; made once."""
    return _once(sizes, device)[1]


@cache
def _once(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    there = torch.tensor(sizes, device=device)
    return there, torch.arange(max(sizes), device=device) >= there[:, None]


def rows(per_site: Tensor, num: int) -> Tensor:
    """``(B, N)`` as it is, ``(N,)`` once for every chain."""
    return per_site.expand(num, -1)
