"""One kernel with one seed: tuned, frozen, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gwg_dist.compare.cost import cost_of, seconds_of_step
from gwg_dist.compare.problems import Posed, device_of
from gwg_dist.compare.record import Approach, Observer, noise_level
from gwg_dist.compare.settings import Comparison, Entry
from gwg_dist.evaluation.mixing import (
    autocorrelation,
    batch_means_time,
    integrated_time,
    moved,
    redrawn_times,
    split_rhat,
)
from gwg_dist.samplers import Sampler, State, plan_chains, run_chain
from gwg_dist.samplers.adapting import adapt_kernel
from gwg_dist.tools.provenance import provenance
from gwg_dist.tools.seeding import make_generator

DRAWN_LAGS = 200

Tick = Callable[[int], None]


@dataclass
class Observed:
    """How fast chains forget one observable; steps are the kernel's.

    Args:
        time: integrated autocorrelation time, steps; NaN where a chain never moved.
        batch_time: the same by batch means.
        rhat: split R-hat.
        redrawn: ``time`` of chains drawn with replacement.
        moved: share of the chains that moved.
    """

    time: float
    batch_time: float
    rhat: float
    redrawn: list[float]
    moved: float


@dataclass
class Unit:
    """What one kernel did with one seed.

    Args:
        kernel: name in the comparison.
        seed: seed of the chains.
        tuned: the kernel that the warm-up ended with, as text.
        plan: how it is run.
        values: the tuned field along the warm-up, the value that was kept last.
        accept_prob: mean acceptance probability of the measured run.
        hops: mean number of changed sites a step.
        gradients: gradient evaluations a step; None where there is no such count.
        evaluations: evaluations without a gradient a step.
        seconds: seconds of a step of all chains.
        steps: length of the measured run.
        every: steps between two looks.
        num_chains: chains in parallel.
        observed: what the observables say, by name.
        autocorrelation: of f at lags 0, 1, ... of ``every`` steps.
        curve_steps: steps done at the checkpoints of the way from uniform points, the start first.
        rmse: error of every chain's marginals there.
        mmd: squared discrepancy to samples of the target there.
        noise: discrepancy that samples of the target stay below.
        converged: steps after which ``mmd`` stays below ``noise``.
        exact: whether the kernel leaves the target invariant.
        machine: the code and the machine that measured, see ``provenance``.
    """

    kernel: str
    seed: int
    tuned: str
    plan: str
    values: list[float]
    accept_prob: float
    hops: float
    gradients: float | None
    evaluations: float | None
    seconds: float
    steps: int
    every: int
    num_chains: int
    observed: dict[str, Observed]
    autocorrelation: list[float]
    curve_steps: list[int]
    rmse: list[float]
    mmd: list[float]
    noise: float | None
    converged: int | None
    exact: bool
    machine: dict[str, str | int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Unit:
        values = dict(values)
        values["observed"] = {name: Observed(**each) for name, each in values["observed"].items()}
        return cls(**values)


def measure(name: str, entry: Entry, posed: Posed, settings: Comparison, *, seed: int, tick: Tick) -> Unit:
    """Tune from uniform points, measure from samples of the target where there are any, approach from uniform points.

    Args:
        name: of the kernel.
        entry: the kernel and how it is tuned.
        posed: the problem.
        settings: of the comparison.
        seed: of the chains.
        tick: called with the number of steps done.

    Raises:
        ValueError: an objective that does not exist.
    """
    target, device, num = posed.target, device_of(posed.target), settings.num_chains
    steps, every = entry.steps or settings.steps, entry.every or settings.every
    generator = make_generator(seed, "compare", device=device)
    x = target.encode(target.space.uniform_codes(num, generator=generator))
    kernel, x, values = tuned(entry, posed, x, steps=settings.warmup, generator=generator)
    if posed.samples is not None:
        chosen = torch.randint(len(posed.samples), (num,), generator=make_generator(seed, "compare start"))
        x = target.encode(posed.samples[chosen].to(device))
    observer = Observer(target, num_chains=num, steps=steps, every=every, device=device)

    def look(step: int, state: State) -> None:
        observer(step, state)
        tick(step)

    chain = run_chain(kernel, target, x, num_steps=steps, generator=generator, before_step=look)
    approach = Approach(posed, num_chains=num, steps=steps, every=every)
    start = target.encode(target.space.uniform_codes(num, generator=generator))
    if posed.marginals is not None or posed.samples is not None:
        run_chain(kernel, target, start, num_steps=steps, generator=generator, before_step=approach)
    cost = cost_of(kernel, target, x, generator=generator)
    noise = noise_level(posed, num)
    traces = dict(zip(observer.names, observer.values.cpu(), strict=True))
    lags = autocorrelation(traces["f"])[:DRAWN_LAGS].tolist()
    return Unit(
        kernel=name,
        seed=seed,
        tuned=str(kernel),
        plan=str(plan_chains(kernel, target, x, beta=torch.ones((), dtype=x.dtype, device=device))),
        values=values,
        accept_prob=float(chain.accept_prob.mean()),
        hops=float(chain.hops.mean()),
        gradients=cost.gradients,
        evaluations=cost.values,
        seconds=seconds_of_step(kernel, target, chain.x, generator=generator, rounds=settings.rounds),
        steps=steps,
        every=every,
        num_chains=num,
        observed={name: observed(trace, every) for name, trace in traces.items()},
        autocorrelation=lags,
        curve_steps=approach.steps,
        rmse=approach.rmse,
        mmd=approach.mmd,
        noise=noise,
        converged=approach.converged(noise),
        exact=kernel.exact,
        machine=provenance(device),
    )


def tuned(
    entry: Entry, posed: Posed, x: torch.Tensor, *, steps: int, generator: torch.Generator
) -> tuple[Sampler, torch.Tensor, list[float]]:
    """The kernel after its warm-up, where the chains stand, and the values of the field on the way."""
    if entry.objective == "none":
        chain = run_chain(entry.sampler, posed.target, x, num_steps=steps, generator=generator)
        return entry.sampler, chain.x, []
    adapted = adapt_kernel(entry.sampler, posed.target, x, num_steps=steps, generator=generator,
                           objective=entry.objective, target_acceptance=entry.target_acceptance)  # fmt: skip
    return adapted.kernel, adapted.x, list(adapted.values)


def observed(values: torch.Tensor, every: int) -> Observed:
    """What an observable ``(T, B)`` at every so many steps says; times in steps."""
    redrawn = [time * every for time in redrawn_times(values)]
    return Observed(
        time=integrated_time(values) * every,
        batch_time=batch_means_time(values) * every,
        rhat=split_rhat(values),
        redrawn=redrawn,
        moved=float(moved(values).double().mean()),
    )
