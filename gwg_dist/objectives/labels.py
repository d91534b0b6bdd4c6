"""Losses of a label that is one site of x: discriminative, and hybrid with the likelihood of the whole point."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.objectives.base import Objective, ObjectiveResult
from gwg_dist.objectives.contrastive import ContrastiveDivergence
from gwg_dist.objectives.pseudolikelihood import log_conditionals
from gwg_dist.target import Target
from gwg_dist.tools.errors import InputError


class LabelLikelihood(Objective):
    """L = -mean_w log p(y | rest) in nats, y one site of x: exact, from an energy evaluation a category; no chains.

    With an ``RBMEnergy`` that is the discriminative RBM (Larochelle and Bengio, 2008, equation 5). L is no likelihood
    of x: what the model says of the other sites is not learnt. The generative loss is ``ContrastiveDivergence``.

    Args:
        site: y's, from 0; negative ones count from the end.
    """

    needs_chains: ClassVar[bool] = False

    def __init__(self, *, site: int = -1) -> None:
        self.site = self.label_site = site

    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        """Raises InputError where the space has no such site."""
        del x_model, generator
        x = target.encode(batch.codes)
        energy = target.energy(x)
        sites = torch.full((len(x), 1), checked_site(self.site, target.space.num_sites), device=x.device)
        log_p = log_conditionals(target, x, energy, sites)
        return ObjectiveResult(-(batch.weights.to(x.dtype) * log_p).mean(), energy.detach())


class HybridLikelihood(Objective):
    """L = -mean_w log p(y | rest) + generative (mean_w E(x+) - mean E(x-)), y one site of x (equation 8 there).

    Args:
        site: y's, from 0; negative ones count from the end.
        generative: weight of the generative part, α.

    Raises:
        ValueError: a weight that is not positive.
    """

    def __init__(self, *, site: int = -1, generative: float = 0.01) -> None:
        if not generative > 0:
            raise ValueError(f"generative must be positive, got {generative}; LabelLikelihood is without")
        self.generative, self.label_site = generative, site
        self.label, self.points = LabelLikelihood(site=site), ContrastiveDivergence()

    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        """Raises ValueError where there are no chains, InputError where the space has no such site."""
        label = self.label(target, batch, None, generator=generator)
        points = self.points(target, batch, x_model, generator=generator)
        return points._replace(loss=label.loss + self.generative * points.loss)


def checked_site(site: int, num_sites: int) -> int:
    """A site from 0, of one that may count from the end. Raises InputError where there is none."""
    if not -num_sites <= site < num_sites:
        raise InputError(f"site must lie in {-num_sites}..{num_sites - 1}, got {site}")
    return site % num_sites
