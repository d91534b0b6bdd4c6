"""The verdict on a run for people who have not seen it: one headline, its reasons, and what to type next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gwg_dist.evaluation.verdict import AGREED, EXACT, GAP, UNQUOTABLE
from gwg_dist.report.collect import Run, Series
from gwg_dist.training.loading import LoadedRun
from gwg_dist.training.results import training_of
from gwg_dist.training.verdict import (
    BETTER,
    HIGH_LAG,
    LOW_ACCEPTANCE,
    NO_BETTER,
    UNKNOWN,
    WORSE,
    Verdict,
    advise,
    another_run,
    next_commands,
    opened,
    to_try,
)

GOOD, DOUBTFUL, BAD, OPEN = "good", "doubtful", "bad", "open"
SPLITS = ("test", "val", "train")
RANKS = (OPEN, GOOD, DOUBTFUL, BAD)
TAIL = 0.2  # share of a run, its end, that checks average over
FAR = 1.4  # gap over the spread of data and chains together: two spreads of one of them; 2 is the most there can be
ERRORS, LEAST_FALL = 3.0, 0.1  # standard errors, and nats, by which a likelihood must fall to have fallen
SYMPTOM = "symptom/"  # begins the metrics of what is wrong
FEW = 0.1  # share of the chains below which the stated error of forward AIS is too small
ROUNDING = 1e-9
KINDS = {BETTER: GOOD, NO_BETTER: DOUBTFUL, WORSE: BAD, UNKNOWN: BAD}
STANDINGS = {EXACT: GOOD, AGREED: GOOD, GAP: DOUBTFUL, UNQUOTABLE: BAD}


class Check(NamedTuple):
    """One thing that was looked at.

    Args:
        level: good, doubtful or bad.
        name: what was looked at.
        text: what was found.
    """

    level: str
    name: str
    text: str


class Likelihood(NamedTuple):
    """A mean log-likelihood of one set of data, nats.

    Args:
        split: the data.
        num: points.
        mean: point estimate.
        stderr: standard error through log Z.
        data_stderr: standard error through the points.
        reference: what the factorised reference has.
        bits: bits a site.
        low: the lower side; None where there is one side alone.
        high: the higher side.
        ceiling: what it passes with a probability of at most 0.05.
    """

    split: str
    num: int
    mean: float
    stderr: float | None
    data_stderr: float | None
    reference: float | None
    bits: float | None
    low: float | None = None
    high: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What to think of a run.

    Args:
        level: "good", "doubtful", "bad", or "open" where nothing is known yet.
        headline: one line.
        standing: one line on how far the likelihood can be quoted; "" where nothing is known of it.
        likelihoods: test first.
        checks: what was looked at.
        quotable: whether the likelihoods are to be believed at all.
        cause: why it is no better, in words; "" where nothing was found.
        to_try: a command line that the verdict asks for; "" for none.
        next: command lines that one may want next.
    """

    level: str
    headline: str
    standing: str = ""
    likelihoods: list[Likelihood] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    quotable: bool = True
    cause: str = ""
    to_try: str = ""
    next: list[str] = field(default_factory=list)


def outcome_of(run: Run, loaded: LoadedRun | None, returns: Sequence[int]) -> Outcome:
    """The verdict on a run.

    Args:
        run: what its folder tells.
        loaded: its model; None where it has none yet, and so no advice.
        returns: iterations after which training went back to a healthy state.
    """
    checks = checks_of(run, returns)
    headline, level = headline_of(run)
    standing, quoted = standing_of(run.estimate)
    levels = [level, *([quoted] if standing else [])]
    if any(check.level == BAD for check in checks):
        levels.append(DOUBTFUL if level in (GOOD, OPEN) else level)
    cause, command, after = advice_of(run, loaded, is_sick=any(check.level == BAD for check in checks))
    return Outcome(max(levels, key=RANKS.index), headline, standing, likelihoods_of(run.estimate), checks,
                   quoted != BAD, cause, command, [line for line in after if line != command])  # fmt: skip


def verdict_of(estimate: dict[str, Any]) -> Verdict | None:
    """The verdict in a file of results; None where there is none."""
    values = estimate.get("verdict")
    if not isinstance(values, dict):
        return None
    known: dict[str, Any] = {
        key: math.nan if value is None else value for key, value in values.items() if key in Verdict._fields
    }
    return Verdict(**known) if "kind" in known else None


def headline_of(run: Run) -> tuple[str, str]:
    """One line and its level."""
    verdict = verdict_of(run.estimate)
    if verdict is None:
        newest = run.metrics.get("val/log_likelihood")
        state = (
            "Training goes on" if run.writer is not None else "Training has not ended, and no process goes on with it"
        )
        text = f"{state}: no closing estimate after {run.iterations:,} iterations"
        if newest is None:
            return f"{text}; none during training either", OPEN
        return f"{text}; newest estimate during training: {newest.last:.2f} nats (validation)", OPEN
    sentence = verdict.sentence().removeprefix("verdict: ")
    return sentence[0].upper() + sentence[1:], KINDS.get(verdict.kind, BAD)


def standing_of(estimate: dict[str, Any]) -> tuple[str, str]:
    """How far the likelihood can be quoted, in words, and the level of that."""
    standing = estimate.get("sides", {}).get("standing")
    if standing:
        size = nats_of(standing.get("nats"))
        text = {
            EXACT: "The likelihood is exact.",
            AGREED: f"Both sides of the likelihood agree within {size}.",
            GAP: f"A gap of {size} lies between the sides of the likelihood.",
            UNQUOTABLE: f"The likelihood is not to be quoted: its sides differ by {size}.",
        }.get(standing["kind"], str(standing["kind"]))
        return " ".join(
            [text, *(f"{reason[0].upper()}{reason[1:]}." for reason in standing.get("reasons", ()) if reason)]
        ), (STANDINGS.get(standing["kind"], BAD))
    ais = estimate.get("ais")
    if not ais:
        return "", OPEN
    if ais["collapsed"]:
        return "The estimate of log Z has collapsed: its likelihood is not to be quoted.", BAD
    if ais["ess"] < FEW * ais["num_chains"]:
        return "Forward AIS alone, and few chains carry it: its error is larger than the one stated.", DOUBTFUL
    return "Forward AIS alone, which is optimistic on average. “evaluate” finds the other side.", GOOD


def nats_of(value: float | None) -> str:
    """A difference in words, rounded up, so that the words hold."""
    return "an unknown number of nats" if value is None else f"{math.ceil(value * 100 - ROUNDING) / 100:.2f} nats"


def likelihoods_of(estimate: dict[str, Any]) -> list[Likelihood]:
    """Test, validation, training; from both sides where they are known."""
    both, one = estimate.get("sides", {}).get("likelihood", {}), estimate.get("likelihood", {})
    found = []
    for split in (name for name in SPLITS if name in {**both, **one}):
        values = both.get(split) or one[split]
        found.append(
            Likelihood(
                split,
                values["num"],
                values["mean"],
                values.get("stderr"),
                values.get("data_stderr"),
                estimate.get("reference", {}).get(split),
                values.get("bits_per_dim", estimate.get("bits_per_dim", {}).get(split)),
                values.get("low_side"),
                values.get("high_side"),
                values.get("ceiling"),
            )
        )
    return found


def checks_of(run: Run, returns: Sequence[int]) -> list[Check]:
    """What the numbers of training say, worst first."""
    found = [*_estimate(run.estimate), *_chains(run), *_energies(run), *_learning(run), *_symptoms(run)]
    if returns:
        where = ", ".join(f"{iteration:,}" for iteration in returns)
        found.append(Check(DOUBTFUL, "divergence", f"training went back to a healthy state after iteration {where}"))
    return sorted(found, key=lambda check: -RANKS.index(check.level))


def _estimate(estimate: dict[str, Any]) -> list[Check]:
    """Whether the estimate of log Z can be believed."""
    found, ais = [], estimate.get("ais")
    if ais:
        text = f"{ais['ess']:.1f} of {ais['num_chains']} chains carry it"
        level = BAD if ais["collapsed"] else DOUBTFUL if ais["ess"] < FEW * ais["num_chains"] else GOOD
        found.append(Check(level, "estimate of log Z", text))
    standing = estimate.get("sides", {}).get("standing")
    if standing:
        text = "exact" if standing["kind"] == EXACT else f"{nats_of(standing['nats'])} apart"
        found.append(Check(STANDINGS.get(standing["kind"], BAD), "sides of the likelihood", text))
    resample = estimate.get("resample")
    if resample:
        ours, new = resample["pairs"]["chains"], resample["pairs"]["new"]
        text = f"correlations of the training points: Pearson {ours:.2f} in the run's chains, {new:.2f} in new ones"
        level = DOUBTFUL if resample["out of equilibrium"] else GOOD
        found.append(Check(level, "chains can be made anew", text))
    return found


def _chains(run: Run) -> list[Check]:
    found = []
    accepted, lag = tail_mean(run, "train/accept_prob"), tail_mean(run, "train/lag")
    if accepted is not None:
        text = f"{accepted:.0%} of the proposals are accepted"
        stuck = not accepted >= LOW_ACCEPTANCE
        found.append(Check(BAD if stuck else GOOD, "chains move", text + (": they stand still" if stuck else "")))
    if lag is not None:
        behind = not lag <= HIGH_LAG
        text = f"lag {rounded(lag)}, {'above' if behind else 'at most'} {HIGH_LAG:.0f}"
        found.append(Check(BAD if behind else GOOD, "chains follow the model", text))
    return found


def _energies(run: Run) -> list[Check]:
    gap, spread = tail_mean(run, "train/energy_gap"), tail_mean(run, "train/energy_spread")
    if gap is None or spread is None:
        return []
    text = f"mean energies {rounded(abs(gap))} nats apart, spread {rounded(spread)} nats"
    far = not abs(gap) <= FAR * spread
    return [Check(BAD if far else GOOD, "chains look like data to the model", text)]


def _learning(run: Run) -> list[Check]:
    """Whether validation has fallen, and by how much training data are likelier than validation data."""
    found, curve = [], believed(run, "val/log_likelihood")
    errors = run.metrics.get("ais/log_z_stderr")
    if len(curve.values) > 1:
        best = max(curve.values)
        fall, error = best - curve.last, errors.last if errors is not None else 0.0
        fell = not fall <= max(ERRORS * error, LEAST_FALL)
        at = curve.iterations[curve.values.index(best)]
        text = (
            f"validation fell by {rounded(fall)} nats after iteration {at:,}"
            if fell
            else "validation ended at its best"
        )
        found.append(Check(DOUBTFUL if fell else GOOD, "learning", text))
    by_split = {each.split: each for each in likelihoods_of(run.estimate)}
    if {"train", "val"} <= by_split.keys():
        ahead = by_split["train"].mean - by_split["val"].mean
        found.append(
            Check(GOOD, "memorising", f"training points are {rounded(ahead)} nats likelier than validation points")
        )
    return found


def _symptoms(run: Run) -> list[Check]:
    """What training said was wrong, by the metrics symptom/NAME; where it said so near its end, it still is."""
    found = []
    for name, series in run.metrics.items():
        if name.startswith(SYMPTOM):
            when = ", ".join(f"{iteration:,}" for iteration in series.iterations)
            late = series.iterations[-1] > (1 - TAIL) * run.iterations
            text = f"training named this symptom at iteration {when}"
            found.append(Check(BAD if late else DOUBTFUL, name.removeprefix(SYMPTOM), text))
    return found


def rounded(value: float) -> str:
    """Two figures, or whole numbers where they are more."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def believed(run: Run, name: str) -> Series:
    """An estimate over training without those whose weights had collapsed."""
    series, collapsed = run.metrics.get(name), run.metrics.get("ais/collapsed", Series([], []))
    bad = {iteration for iteration, value in zip(*collapsed, strict=True) if value}
    kept = {} if series is None else dict(zip(*series, strict=True))
    kept = {iteration: value for iteration, value in kept.items() if iteration not in bad and math.isfinite(value)}
    return Series(list(kept), list(kept.values()))


def tail_mean(run: Run, name: str) -> float | None:
    """The mean of a metric over the end of training; None where it was not measured."""
    series = run.metrics.get(name)
    if series is None:
        return None
    values = series.values[-max(round(TAIL * len(series.values)), 1) :]
    return sum(values) / len(values)


def advice_of(run: Run, loaded: LoadedRun | None, *, is_sick: bool) -> tuple[str, str, list[str]]:
    """The cause, a command line to try, and others that one may want next.

    Args:
        run: what the run's folder tells.
        loaded: its model; None where it has none yet.
        is_sick: whether a check failed, so that a cause is looked for in any case.
    """
    go_on = [] if run.has_ended else [f"python -m gwg_dist.fit --resume {opened(run.folder)}"]
    if loaded is None:
        return "", "", go_on
    training = training_of(run.folder, loaded.checkpoint, loaded.data.batch_size)
    has_chains = loaded.checkpoint["chains"]["packed"] is not None
    text = next_commands(run.folder, training.iterations, has_chains=has_chains)
    after = [line.strip() for line in text.removeprefix("next:").splitlines()]
    after = [*go_on, *(after[:2] if go_on else after)]
    verdict = verdict_of(run.estimate)
    if verdict is None or (verdict.kind == BETTER and not is_sick):
        return "", "", after
    at_end = {name: value for name in ("train/lag", "train/accept_prob") if (value := tail_mean(run, name)) is not None}
    advice = advise(verdict, loaded.module, training._replace(metrics={**training.metrics, **at_end}))
    if verdict.kind == BETTER:
        return advice.cause, another_run(run.folder, advice.changes) if advice.changes else "", after
    temperatures = run.estimate.get("ais", {}).get("num_temperatures", 0)
    command = to_try(verdict, advice, run.folder, training.iterations, num_temperatures=temperatures)
    return advice.cause, command, after
