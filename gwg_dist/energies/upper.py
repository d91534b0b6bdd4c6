"""The quadratic form of a model of all pairs, at half the work of a square product."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

BLOCK = 512  # columns that are multiplied together: wide enough for a fast product, few below the diagonal
LARGE = 1000  # rows; below, one product with zeros in it is faster than the parts


def upper_form(x: Tensor, pairs: Tensor, width: int = 1) -> Tensor:
    """sum_{i<j} x_i^T U_ij x_j, ``(B,)``, with U_ij the blocks of ``pairs`` above its diagonal; no others are read.

    Where ``pairs`` is large, a block of columns meets the rows above it alone, forward and in the gradient of
    ``pairs``: no product is with zeros, and no triangle is copied.

    Args:
        x: ``(B, N)`` floats.
        pairs: ``(N, N)``; a site has ``width`` neighbouring rows and columns.
        width: numbers that belong to one site; pairs within a site are not read.
    """
    if len(pairs) < LARGE or torch.compiler.is_compiling():
        return (x * (x @ _upper(pairs, width))).sum(1)
    return _UpperForm.apply(x, pairs, width)  # pyright: ignore[reportReturnType]


class _UpperForm(Function):
    @staticmethod
    def forward(x: Tensor, pairs: Tensor, width: int) -> Tensor:
        form = x.new_zeros(len(x))
        for start, end in _blocks(len(pairs), width):
            pull = x[:, start:end] @ _upper(pairs[start:end, start:end], width)
            if start:
                pull = torch.addmm(pull, x[:, :start], pairs[:start, start:end])
            form = form + (x[:, start:end] * pull).sum(1)
        return form

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x, pairs, ctx.width = inputs
        ctx.save_for_backward(x, pairs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, pairs = ctx.saved_tensors
        scaled = grads[0][:, None] * x
        grad_x = grad_pairs = None
        if ctx.needs_input_grad[0]:
            upper = _upper(pairs, ctx.width)
            grad_x = scaled @ (upper + upper.T)
        if ctx.needs_input_grad[1] and torch.is_grad_enabled():  # a second derivative is wanted
            grad_pairs = _upper(x.T @ scaled, ctx.width)
        elif ctx.needs_input_grad[1]:
            grad_pairs = torch.zeros_like(pairs)
            for start, end in _blocks(len(pairs), ctx.width):
                right = scaled[:, start:end]
                torch.mm(x[:, :start].T, right, out=grad_pairs[:start, start:end])
                grad_pairs[start:end, start:end] = _upper(x[:, start:end].T @ right, ctx.width)
        return grad_x, grad_pairs, None


def _blocks(size: int, width: int) -> list[tuple[int, int]]:
    """Ranges of whole sites that cover 0..size."""
    step = max(BLOCK // width, 1) * width
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _upper(square: Tensor, width: int) -> Tensor:
    """``square`` with zeros where the row's site does not come before the column's."""
    return square.triu(1) if width == 1 else square * _above(len(square), width, square.device)


@lru_cache(maxsize=4)
def _above(size: int, width: int, device: torch.device) -> Tensor:
    """Booleans ``(size, size)``: whether the row's site comes before the column's."""
    site = torch.arange(size, device=device) // width
    return site[:, None] < site
