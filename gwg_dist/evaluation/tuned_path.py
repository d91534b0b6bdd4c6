"""A kernel for every beta of an annealed estimate, fixed before the estimate begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.evaluation.schedules import ADAPTIVE, beta_schedule, through
from gwg_dist.samplers import Sampler


@dataclass(frozen=True)
class TunedPath:
    """A kernel whose tunable field v depends on beta, and on nothing else.

    The interval [0, 1] has L equal parts, and v is one number in each. Every kernel leaves its p_beta invariant and
    none depends on the chains that it moves, so that estimates with them are unbiased for Z.

    Args:
        sampler: kernel whose field is set.
        values: v in each part, ``(L,)``; empty for ``sampler`` as it is at every beta.
        knots: beta at equal parts of the run, from 0 to 1, which an adaptive schedule goes through; empty for none.

    Raises:
        ValueError: values for a sampler that has no tunable field.
    """

    sampler: Sampler
    values: tuple[float, ...] = ()
    knots: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.values and self.sampler.tunable is None:
            raise ValueError(f"{type(self.sampler).__name__} has no field that values could be for, got {self.values}")

    def part(self, beta: float) -> int:
        """The number of the part that ``beta`` in [0, 1] lies in, from 0; the last one has both its ends."""
        return max(0, min(int(beta * len(self.values)), len(self.values) - 1))

    def at(self, beta: float) -> Sampler:
        """The kernel for ``beta`` in [0, 1]."""
        return self.sampler.tuned(self.values[self.part(beta)]) if self.values else self.sampler


def betas_of(path: TunedPath | None, num_temperatures: int, schedule: str) -> Tensor:
    """beta_0 = 0 < ... < beta_T = 1, ``(T + 1,)`` float64.

    Args:
        path: from a pilot run; needed for an adaptive schedule.
        num_temperatures: T.
        schedule: see ``beta_schedule``; or "adaptive", the one of ``path``.

    Raises:
        ValueError: an unknown schedule, fewer than one temperature, an adaptive schedule that no pilot run has found.
    """
    if schedule != ADAPTIVE or path is None or not path.knots:
        return beta_schedule(num_temperatures, schedule)
    return through(torch.tensor(path.knots, dtype=torch.float64), num_temperatures)


def path_of(sampler: Sampler | TunedPath) -> TunedPath:
    """A sampler as a path on which it is the same at every beta."""
    return TunedPath(sampler) if isinstance(sampler, Sampler) else sampler
