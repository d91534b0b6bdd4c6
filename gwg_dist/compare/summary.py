"""What the seeds of a comparison say together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from gwg_dist.compare.measure import Unit
from gwg_dist.evaluation.mixing import RELIABLE_TIMES, Estimate, combined_time

SLOWEST = "slowest"
SHOWN = ("f", "distance", SLOWEST)
"""Observables in the table; the slowest is the one with the longest autocorrelation time, for each kernel its own."""

NOT_EXACT = "not exact"
APART = 1.1  # split R-hat above which chains have not seen the same


@dataclass
class Rate:
    """How many independent draws of one observable a kernel gives.

    Args:
        observable: name; for the slowest, that of the observable that it is.
        time: autocorrelation time, steps.
        batch_time: the same by batch means.
        per_step: of one chain, a thousand steps.
        per_gradient: of one chain, a thousand gradient evaluations; None where a step takes none.
        per_evaluation: of one chain, a thousand evaluations without a gradient; None where a step takes none.
        per_second: of all chains together.
        gain_per_gradient: ``per_gradient`` over that of the first kernel.
        gain_per_second: ``per_second`` over that of the first kernel.
        note: why not to believe it; "" where there is no reason.
    """

    observable: str
    time: Estimate
    batch_time: float
    per_step: Estimate
    per_gradient: Estimate | None
    per_evaluation: Estimate | None
    per_second: Estimate
    gain_per_gradient: Estimate | None
    gain_per_second: Estimate | None
    note: str


@dataclass
class Summary:
    """One kernel over all seeds.

    Args:
        kernel: name.
        tuned: the kernels that the warm-ups ended with.
        accept_prob: mean acceptance probability.
        hops: mean number of changed sites a step.
        gradients: gradient evaluations a step; None where there is no such count.
        evaluations: evaluations without a gradient a step.
        seconds: seconds of a step of all chains, the median of the seeds.
        converged: steps to converge from uniform points, the median of the seeds; None where one did not.
        rmse: error of a chain's marginals at the end; None where the marginals are not known.
        mmd: discrepancy to samples of the target at the end; None where there are none.
        rates: by observable, those of ``SHOWN``.
        machines: the code and the machine that measured each seed.
    """

    kernel: str
    tuned: list[str]
    accept_prob: float
    hops: float
    gradients: float | None
    evaluations: float | None
    seconds: float
    converged: float | None
    rmse: float | None
    mmd: float | None
    rates: dict[str, Rate]
    machines: list[dict[str, str | int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; null where nothing was measured."""
        return _plain(asdict(self))


def summaries(units: dict[str, list[Unit]]) -> list[Summary]:
    """A summary of each kernel, the first of which the others are measured against."""
    found: list[Summary] = []
    for name, seeds in units.items():
        rates = {observable: rate(seeds, observable, found[0].rates if found else None) for observable in SHOWN}
        converged = [unit.converged for unit in seeds if unit.converged is not None]
        found.append(
            Summary(
                kernel=name,
                tuned=[unit.tuned for unit in seeds],
                accept_prob=_mean([unit.accept_prob for unit in seeds]),
                hops=_mean([unit.hops for unit in seeds]),
                gradients=seeds[0].gradients,
                evaluations=seeds[0].evaluations,
                seconds=_median([unit.seconds for unit in seeds]),
                converged=_median([float(steps) for steps in converged]) if len(converged) == len(seeds) else None,
                rmse=_mean([unit.rmse[-1] for unit in seeds]) if seeds[0].rmse else None,
                mmd=_mean([unit.mmd[-1] for unit in seeds]) if seeds[0].mmd else None,
                rates=rates,
                machines=[unit.machine for unit in seeds],
            )
        )
    return found


def rate(seeds: list[Unit], observable: str, first: dict[str, Rate] | None) -> Rate:
    """The rate of one observable, with that of the first kernel for the gains."""
    name = slowest(seeds) if observable == SLOWEST else observable
    seen = [unit.observed[name] for unit in seeds]
    chains = sum(unit.num_chains for unit in seeds)
    time = combined_time([each.time for each in seen], [each.redrawn for each in seen], num_chains=chains)
    one = seeds[0]
    per_second = time.reciprocal(one.num_chains / _median([unit.seconds for unit in seeds]))
    per_gradient = time.reciprocal(1000 / one.gradients) if one.gradients else None
    base = None if first is None else first[observable]
    return Rate(
        observable=name,
        time=time,
        batch_time=_mean([each.batch_time for each in seen]),
        per_step=time.reciprocal(1000),
        per_gradient=per_gradient,
        per_evaluation=time.reciprocal(1000 / one.evaluations) if one.evaluations else None,
        per_second=per_second,
        gain_per_gradient=gain(per_gradient, base and base.per_gradient, alone=base is None),
        gain_per_second=gain(per_second, base and base.per_second, alone=base is None),
        note="; ".join(filter(None, [NOT_EXACT * (not one.exact), note(seeds, name, time.value)])),
    )


def gain(rate: Estimate | None, base: Estimate | None, *, alone: bool) -> Estimate | None:
    """A rate over that of the first kernel, which is 1 ``alone``; None where one of them is not known."""
    if rate is None:
        return None
    if alone:
        return Estimate(rate.value / rate.value)
    return None if base is None else rate.over(base)


def slowest(seeds: list[Unit]) -> str:
    """The observable with the longest time over all seeds; one that was not measured counts as the longest."""
    names = list(seeds[0].observed)

    def length(name: str) -> float:
        times = [unit.observed[name].time for unit in seeds]
        return math.inf if any(map(math.isnan, times)) else math.prod(times)

    return max(names, key=length)


def elsewhere(units: dict[str, list[Unit]], machine: dict[str, str | int]) -> dict[str, list[str]]:
    """What other code or another machine than ``machine`` measured, "kernel, seed", by what that was."""
    found: dict[str, list[str]] = {}
    for unit in (unit for seeds in units.values() for unit in seeds):
        if origin(unit.machine) != origin(machine):
            found.setdefault(origin(unit.machine), []).append(f"{unit.kernel}, {unit.seed}")
    return found


def origin(machine: dict[str, str | int]) -> str:
    """The code and the machine in a line, without the day."""
    return "{code}, torch {torch}, {device}, threads {threads}".format(**machine)


def note(seeds: list[Unit], observable: str, time: float) -> str:
    """Why not to believe a rate; "" where there is no reason."""
    seen = [unit.observed[observable] for unit in seeds]
    still = sum((1 - each.moved) * unit.num_chains for each, unit in zip(seen, seeds, strict=True))
    if still > 0.5:
        return f"not measured: {still:.0f} chains never moved"
    apart = max(each.rhat for each in seen)
    if apart > APART:
        return f"chains apart, R-hat {apart:.2f}"
    if seeds[0].steps < RELIABLE_TIMES * time:
        return f"short: {seeds[0].steps / time:.0f} times a chain"
    return "recorded too seldom" if time < 1.5 * seeds[0].every and seeds[0].every > 1 else ""


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Estimate):
        low, high = value.interval()
        return _plain({"value": value.value, "low": low, "high": high})
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
