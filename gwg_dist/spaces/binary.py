"""Binary points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.spaces.base import Change, Space, rows


class Binary(Space):
    """{0, 1}^D. Models see ``(B, D)`` floats."""

    def __init__(self, shape: int | Sequence[int]) -> None:
        super().__init__(shape, 2)

    def __repr__(self) -> str:
        return f"Binary({self.shape})"

    sites_packed_together = 8

    def pack(self, codes: Tensor) -> Tensor:
        """Eight sites a byte, ``(B, ceil(D / 8))`` uint8; the first site is the lowest bit."""
        if codes.is_cpu:
            return torch.from_numpy(np.packbits(codes.to(torch.uint8).numpy(), axis=1, bitorder="little"))
        padding = -codes.shape[1] % 8
        bits = functional.pad(codes.to(torch.uint8), (0, padding)).unflatten(1, (-1, 8))
        return (bits << _bit_positions(codes.device)).sum(-1, dtype=torch.uint8)

    def unpack(self, packed: Tensor) -> Tensor:
        if packed.is_cpu:
            return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=self.num_sites, bitorder="little"))
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

    def log_prob_changes(self, x: Tensor, log_weights: Tensor | None, x_new: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def set_sites(self, x: Tensor, sites: Tensor, categories: Tensor) -> Tensor:
        return x.scatter(1, sites, categories.to(x.dtype))

    def change(self, x: Tensor, move: Tensor) -> Change:
        old = self.category_at(x, move)
        return Change(move, old, 1 - old)

    def apply(self, x: Tensor, change: Change) -> Tensor:
        return x.scatter(1, change.site[:, None], change.new[:, None].to(x.dtype))

    def first_order_difference(self, grad: Tensor, change: Change) -> Tensor:
        slope = rows(grad, len(change.site)).gather(1, change.site[:, None])[:, 0]
        return (change.new - change.old) * slope

    def category_at(self, x: Tensor, site: Tensor) -> Tensor:
        return x.gather(1, site[:, None])[:, 0].long()

    def hamming(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().sum(1)


def _bit_positions(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
