"""Clans of a family that lack the same stretch of sites: how large they are, and which share of samples is in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LENGTH = 8  # gaps side by side that are a block
LEAST = 0.01  # share of the points that is a clan, and that has to be outside


class GapBlock(NamedTuple):
    """Sites ``first`` to ``last`` from 0, both included; a point is in the block where it has a gap at each of them."""

    first: int
    last: int

    def share(self, codes: Tensor, gap: int, weights: Tensor | None = None) -> float:
        """The share of the points, or of their weight, that is in the block; nan of no points.

        Single sites hardly leave or enter a block, because each gap of it asks for the others. So where samples have
        another share than the training points, chains were trapped on one side while the model was learnt.

        Args:
            codes: points ``(N, D)``.
            gap: the category of a gap.
            weights: weights of the points ``(N,)``.
        """
        inside = (codes[:, self.first : self.last + 1] == gap).all(1).double()
        share = torch.ones_like(inside) if weights is None else weights.to(inside)
        return float(inside @ share / share.sum())


def gap_blocks(codes: Tensor, gap: int, weights: Tensor | None = None) -> list[GapBlock]:
    """Blocks of eight gaps side by side that between 1 and 99 % of the points have, the most frequent first.

    Of blocks that overlap the most frequent one is taken, and of equal ones the first.

    Args:
        codes: points ``(N, D)``.
        gap: the category of a gap.
        weights: weights of the points ``(N,)``.
    """
    if codes.shape[1] < LENGTH:
        return []
    inside = (codes == gap).unfold(1, LENGTH, 1).all(-1).double()  # (N, D - 7)
    weight = torch.ones(len(codes)) if weights is None else weights
    shares = weight.to(inside) @ inside / weight.sum()
    shares = torch.where((shares >= LEAST) & (shares <= 1 - LEAST), shares, 0.0)
    found = []
    while float(shares.max()) > 0:
        first = int(shares.argmax())
        found.append(GapBlock(first, first + LENGTH - 1))
        shares[max(first - LENGTH + 1, 0) : first + LENGTH] = 0.0
    return found
