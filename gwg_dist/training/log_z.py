"""log Z of a run's model, out of the estimates that lie in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from gwg_dist.evaluation import exact_log_z
from gwg_dist.evaluation.verdict import UNQUOTABLE
from gwg_dist.training.folder import EVALUATION, RESULTS
from gwg_dist.training.loading import LoadedRun

FEW_STATES = 2**16


class LogZ(NamedTuple):
    """A value of log Z.

    Args:
        value: log Z in nats.
        stderr: its standard error; 0 where it is exact.
        source: where it is from, for people.
        trusted: whether the weights of the estimate did not collapse; of two sides, whether they can be quoted.
    """

    value: float
    stderr: float
    source: str
    trusted: bool = True


def find_log_z(run: LoadedRun, folder: Path) -> LogZ | None:
    """The exact sum over few states, else the newest estimate of the loaded weights; None where there is none.

    An estimate belongs to the weights where it names their iteration. What evaluation has summed exactly is taken
    before what it has estimated.
    """
    if run.module.space.num_states <= FEW_STATES:
        return LogZ(exact_log_z(run.module.target), 0.0, "exact, by enumeration")
    files = [*folder.glob(f"{EVALUATION}/*.json"), *folder.glob(RESULTS)]
    found = [estimate_in(path, run.checkpoint["global_step"]) for path in sorted(files, key=lambda p: -_age(p))]
    known = [each for each in found if each is not None]
    return next((each for each in known if each.stderr == 0), known[0] if known else None)


def estimate_in(path: Path, iteration: int) -> LogZ | None:
    """The estimate in a file of results; None where it is torn, or of other weights."""
    try:
        values = json.loads(path.read_text())
        if values["iteration"] != iteration:
            return None
        if "exact" in values:
            return LogZ(float(values["exact"]["log_z"]), 0.0, f"exact, in {path}")
        if "sides" in values:
            sides = values["sides"]
            trusted = sides["standing"]["kind"] != UNQUOTABLE
            return LogZ(float(sides["log_z"]), float(sides["stderr"]), f"from both sides, in {path}", trusted)
        ais = values["ais"]
        return LogZ(float(ais["log_z"]), float(ais["stderr"]), f"the estimate in {path}", not ais["collapsed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _age(path: Path) -> float:
    return path.stat().st_mtime
