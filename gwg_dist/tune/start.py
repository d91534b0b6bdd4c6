"""What a sweep tells a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrialStart:
    """What one trial is told when it starts.

    Args:
        number: number of the trial; unlike Ray's name of it, it stays when the sweep is resumed.
        point: the point of the space, by dotted keys.
        left_out: keys of the point that the trial's classes do not have.
        args: command line of fit.
        cwd: where relative paths of the command line count from.
    """

    number: int
    point: dict[str, Any]
    left_out: tuple[str, ...]
    args: tuple[str, ...]
    cwd: str

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the point that the trial's classes have."""
        return {key: value for key, value in self.point.items() if key not in self.left_out}
