"""What to make of a log Z that was estimated from both sides, in words."""

from __future__ import annotations

import math
from typing import NamedTuple

from gwg_dist.evaluation.error_bars import LOW_ESS
from gwg_dist.evaluation.sides import ERRORS, Sides

EXACT, AGREED, GAP, UNQUOTABLE = "exact", "agreed", "gap", "not to be quoted"
TOLERANCE = 0.5  # nats within which all ways to log Z agree
LEAST_OVERLAP = 0.03  # of both directions, below which neither the error nor the estimate is to be believed
ERRORS_QUOTED = 2.0  # standard errors of the estimate that count as a difference


class Standing(NamedTuple):
    """Whether the sides of an estimate agree.

    Args:
        kind: "exact", "agreed", "gap" or "not to be quoted".
        nats: what the ways to log Z differ by at most, or twice the error of the estimate where that is more.
        reasons: what speaks against the estimate, each in words.
    """

    kind: str
    nats: float
    reasons: tuple[str, ...]

    def sentence(self) -> str:
        """One line for people."""
        what = {
            EXACT: "likelihood: exact",
            AGREED: f"likelihood: both sides agreed within {_up(self.nats)} nats",
            GAP: f"likelihood: gap of {_up(self.nats)} nats between the sides",
            UNQUOTABLE: f"likelihood: not to be quoted (the sides differ by {_up(self.nats)} nats)",
        }[self.kind]
        return what + "".join(f"; {reason}" for reason in self.reasons)


def judge(sides: Sides, *, tolerance: float = TOLERANCE) -> Standing:
    """The verdict on an estimate.

    Not to be quoted: the weights of a side have collapsed, the sides hardly overlap, points that were seen have more
    mass than Z, or the points sit where no annealed chain ends. What is left agrees, or has a gap.

    Args:
        sides: log Z from both sides.
        tolerance: nats within which they agree.
    """
    nats = max(sides.spread, ERRORS_QUOTED * sides.both.stderr)
    if sides.exact is not None:
        return Standing(EXACT, 0.0, ())
    against, remarks = [*_unseen(sides), *_collapsed(sides), *_elsewhere(sides)], _unsettled(sides)
    if against:
        return Standing(UNQUOTABLE, sides.spread, (*against, *remarks))
    if nats > tolerance or remarks:
        return Standing(GAP, nats, tuple(remarks))
    return Standing(AGREED, nats, ())


def _unseen(sides: Sides) -> list[str]:
    """Points have more mass than Z as forward AIS has it."""
    if not sides.excess:
        return []
    more = f"points that were seen have {_times(sides.excess)} the mass that forward AIS found"
    return [f"log Z is at least {sides.floor:.2f}, because {more}"]


def _collapsed(sides: Sides) -> list[str]:
    """Few weights carry a side, or the two hardly meet."""
    found, reverse = [], sides.reverse
    if sides.forward.collapsed:
        forward = sides.forward
        found.append(f"{forward.ess:.1f} of {len(forward.units)} forward {forward.what} carry the estimate")
    if not reverse.ess >= LOW_ESS:
        found.append(f"{reverse.ess:.1f} of {len(reverse.log_weights)} reverse chains carry the estimate")
    if not sides.both.overlap >= LEAST_OVERLAP:
        found.append(f"the works of both directions overlap by {sides.both.overlap:.3f} alone")
    return found


def _elsewhere(sides: Sides) -> list[str]:
    """The points are not those that annealed chains stand for."""
    found = []
    if sides.are_elsewhere:
        found.append(f"{sides.num_elsewhere} of the chains sit where no annealed chain ends")
    if sides.sites > 1:
        found.append(
            "chains and annealed ends have different frequencies: they do not share their modes as the model does"
        )
    if sides.crooks > 1:
        found.append(
            "works of both directions break Crooks' theorem: chains sit where no annealed chain ends, or as often"
        )
    return found


def _unsettled(sides: Sides) -> list[str]:
    if sides.exact_samples or not abs(sides.drift) > ERRORS:
        return []
    return [f"the chains are not at equilibrium: their mean energy moved by {abs(sides.drift):.1f} standard errors"]


def _times(nats: float) -> str:
    return f"{math.exp(nats):.3g} times" if nats < 20 else f"e^{nats:.0f} times"


def _up(nats: float) -> str:
    """Rounded up, so that the words hold."""
    return f"{math.ceil(nats * 100 - 1e-9) / 100:.2f}" if math.isfinite(nats) else "infinitely many"
