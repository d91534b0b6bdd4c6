"""log Z of a run's model, out of the estimates that lie in the run's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gwg_dist.evaluation import Interval, exact_log_z
from gwg_dist.evaluation.error_bars import standard_error
from gwg_dist.evaluation.verdict import UNQUOTABLE
from gwg_dist.training.folder import EVALUATION, RESULTS
from gwg_dist.training.loading import LoadedRun

FEW_STATES = 2**16


class LogZ(NamedTuple):
    """A value of log Z.

    Args:
        value: log Z in nats.
        stderr: its standard error, 1.96 of which reach the farther end of the estimate's interval; 0 where it is exact,
            infinite where the weights have collapsed.
        source: where it is from, for people.
        trusted: whether the weights of the estimate did not collapse; of two sides, whether they can be quoted.
    """

    value: float
    stderr: float
    source: str
    trusted: bool = True


def find_log_z(run: LoadedRun, folder: Path) -> LogZ | None:
    """The exact sum over few states, else what is known of the loaded weights; None where nothing is.

    An estimate belongs to the weights where it names their iteration. The one of most ``evidence`` is taken, and of two
    alike the newer one.
    """
    if run.module.space.num_states <= FEW_STATES:
        return LogZ(exact_log_z(run.module.target), 0.0, "exact, by enumeration")
    known = [
        (evidence(values), written, found)
        for path, values, written in estimates(folder)
        if (found := estimate_in(path, values, run.checkpoint["global_step"])) is not None
    ]
    return max(known, key=lambda each: each[:2])[2] if known else None


def estimates(folder: Path) -> Iterator[tuple[Path, dict[str, Any], float]]:
    """Every whole file of results in a run's folder: where it is, what it holds, and when it was written."""
    for path in (*folder.glob(f"{EVALUATION}/*.json"), *folder.glob(RESULTS)):
        with suppress(OSError, ValueError):
            values = json.loads(path.read_text())
            if isinstance(values, dict):
                yield path, values, path.stat().st_mtime


def evidence(values: dict[str, Any]) -> tuple[bool, int, bool]:
    """What a file of results knows of log Z, to compare files of the same weights by.

    What was summed exactly comes first, then what took more chains times temperatures, then what can be believed. So a
    short try is no worse news than a long estimate, and a short one that agreed does not outlive a long one that shows
    why it should not have.
    """
    ais = values.get("ais", {})
    effort = int(ais.get("num_chains", 0)) * int(ais.get("num_temperatures", 0))
    return "exact" in values, effort, is_believable(values)


def is_believable(values: dict[str, Any]) -> bool:
    """Whether the likelihood in a file of results is exact, or an estimate that can be quoted."""
    if "exact" in values:
        return True
    if "sides" in values:
        return values["sides"].get("standing", {}).get("kind") != UNQUOTABLE
    return not values.get("ais", {}).get("collapsed", True)


def estimate_in(path: Path, values: dict[str, Any], iteration: int) -> LogZ | None:
    """The estimate that a file of results holds; None where it is incomplete, or of other weights."""
    try:
        if values["iteration"] != iteration:
            return None
        if "exact" in values:
            return LogZ(float(values["exact"]["log_z"]), 0.0, f"exact, in {path}")
        if "sides" in values:
            sides = values["sides"]
            log_z, how = sides["log_z"], f"from both sides, in {path}"
            stderr = math.inf if sides["stderr"] is None else sides["stderr"]
        else:
            found = values["ais"]
            log_z, stderr, how = found["log_z"], error_of(found), f"the estimate in {path}"
        return LogZ(float(log_z), float(stderr), how, is_believable(values))
    except (ValueError, KeyError, TypeError):
        return None


def error_of(estimate: dict[str, Any]) -> float:
    """The ± of an estimate in a file of results; by the delta method where it is older than intervals are."""
    if "interval" not in estimate:
        return float(estimate["stderr"])
    low, high = (math.inf if end is None else float(end) for end in estimate["interval"])
    return standard_error(float(estimate["log_z"]), Interval(low, high))
