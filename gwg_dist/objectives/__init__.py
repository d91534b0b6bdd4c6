"""Losses."""

from gwg_dist.objectives.base import Objective, ObjectiveResult
from gwg_dist.objectives.contrastive import ContrastiveDivergence

__all__ = ["ContrastiveDivergence", "Objective", "ObjectiveResult"]
