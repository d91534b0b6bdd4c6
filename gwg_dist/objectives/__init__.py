"""Losses: one file each."""

from gwg_dist.objectives.base import Objective, ObjectiveResult
from gwg_dist.objectives.contrastive import ContrastiveDivergence
from gwg_dist.objectives.pseudolikelihood import PseudoLikelihood

__all__ = ["ContrastiveDivergence", "Objective", "ObjectiveResult", "PseudoLikelihood"]
