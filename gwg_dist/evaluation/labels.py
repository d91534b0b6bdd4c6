"""The probability of every category of one site of given points: classification by any model of points with labels."""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.evaluation.scores import score_points
from gwg_dist.target import Target


def label_probs(target: Target, codes: Tensor, site: int) -> Tensor:
    """p(y = k | the other sites), ``(N, K)`` float64, K the number of categories of the site.

    p(y = k | rest) ∝ ref_y(k) exp(-E(x with y = k)), an evaluation a category; log Z cancels. Of an ``RBMEnergy`` this
    is the closed form of Larochelle and Bengio (2008, equation 2).

    Args:
        target: the model.
        codes: points ``(N, D)``; what they hold at the site does not matter.
        site: y's, from 0.
    """
    num = target.space.sizes[site]
    logits = []
    for k in range(num):
        points = codes.clone()
        points[:, site] = k
        logits.append(score_points(target, points).unnormalised)
    return torch.stack(logits, 1).softmax(1)
