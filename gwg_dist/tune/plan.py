"""What a sweep is about to run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gwg_dist.tune.recipe import Recipe
from gwg_dist.tune.sweep import Sweep


@dataclass(frozen=True)
class Plan:
    """What a sweep is about to run.

    Args:
        sweep: settings of the sweep, with its folder and GPUs per worker.
        recipe: turns a point of the space into a run.
        points: the point of every trial, by number; empty where the search proposes it.
        grace: iterations before the first decision of a scheduler.
        every: iterations between two evaluations.
        max_steps: iterations of a whole run.
        at_once: trials that run at the same time.
    """

    sweep: Sweep
    recipe: Recipe
    points: list[dict[str, Any]]
    grace: int
    every: int
    max_steps: int
    at_once: int

    def config(self, number: int, point: dict[str, Any]) -> dict[str, Any]:
        """What Ray hands to a trial."""
        return {"start": asdict(self.recipe.start(number, point, workers=self.sweep.workers))}
