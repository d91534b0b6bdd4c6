"""Losses: one file each."""

from gwg_dist.objectives.base import Objective, ObjectiveResult
from gwg_dist.objectives.contrastive import ContrastiveDivergence
from gwg_dist.objectives.labels import HybridLikelihood, LabelLikelihood
from gwg_dist.objectives.pseudolikelihood import PseudoLikelihood

__all__ = [
    "ContrastiveDivergence",
    "HybridLikelihood",
    "LabelLikelihood",
    "Objective",
    "ObjectiveResult",
    "PseudoLikelihood",
]
