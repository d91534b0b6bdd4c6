"""Categorical points, one-hot."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gwg_dist.draws import first_above
from gwg_dist.spaces.base import Change, Space, rows
from gwg_dist.tools.memory import check_room


class Categorical(Space):
    """{0, ..., K_1 - 1} x ... x {0, ..., K_D - 1}. Models see one-hot ``(B, D, K)`` floats, K the largest K_i.

    Args:
        shape: of the sites.
        num_categories: K of all sites, or one for each, in the order of the flattened sites.

    Raises:
        ValueError: a shape or a number of categories that is none, another number of them than of sites.
    """

    def __repr__(self) -> str:
        sizes = self.sizes if self.is_ragged else self.num_categories
        return f"Categorical({self.shape}, num_categories={sizes})"

    def __str__(self) -> str:
        return (
            f"Categorical({self.shape}, {min(self.sizes)} to {max(self.sizes)} categories)"
            if self.is_ragged
            else repr(self)
        )

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
        return self.without_padding(log_probs, 0.0), log_probs.new_zeros(())

    @property
    def width(self) -> int:
        return self.num_categories

    def first_order_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        return self.site_differences(x, grad).masked_fill(x > 0.5, -torch.inf).flatten(1)

    def site_differences(self, x: Tensor, grad: Tensor) -> Tensor:
        grad = self.without_padding(grad, 0.0)  # there it may be anything, and 0 * inf is not a number
        return self.without_padding(grad - (x * grad).sum(-1, keepdim=True))

    def site_distances(self, x: Tensor) -> Tensor:
        return 2 - 2 * x

    def draw_sites(self, x: Tensor, logits: Tensor, uniform: Tensor) -> Tensor:
        return self.encode(_draw_last(self.without_padding(logits), uniform), x.dtype)

    def log_prob_sites(self, x: Tensor, logits: Tensor, x_new: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.without_padding(logits), -1)
        return torch.where(x_new > 0.5, log_p, 0.0).sum((1, 2), dtype=torch.float64)

    def site_log_weights(self, log_weights: Tensor) -> Tensor:
        return log_weights.unflatten(1, (-1, self.num_categories)).logsumexp(-1)

    def change_sites(self, x: Tensor, log_weights: Tensor | None, chosen: Tensor, uniform: Tensor) -> Tensor:
        logits = self._log_weights_of_changes(x, log_weights)
        return torch.where(chosen[:, :, None], self.encode(_draw_last(logits, uniform), x.dtype), x)

    def log_prob_changes(self, x: Tensor, log_weights: Tensor | None, x_new: Tensor) -> Tensor:
        if log_weights is None and not self.is_ragged:
            return -self.hamming(x, x_new).double() * math.log(self.num_categories - 1)
        log_p = torch.log_softmax(self._log_weights_of_changes(x, log_weights), -1)
        return torch.where((x_new > 0.5) & (x < 0.5), log_p, 0.0).sum((1, 2), dtype=torch.float64)

    def _log_weights_of_changes(self, x: Tensor, log_weights: Tensor | None) -> Tensor:
        """``(B, D, K)``, -inf for the category that a site has and in the padding; None: the same for all others."""
        each = torch.zeros_like(x) if log_weights is None else log_weights.view_as(x)
        return self.without_padding(each).masked_fill(x > 0.5, -torch.inf)

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
        grad = rows(grad.flatten(-2), len(change.site))
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
