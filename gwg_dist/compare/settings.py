"""The settings of a comparison."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gwg_dist.compare import trained  # noqa: F401  # so that its problems are known by name
from gwg_dist.compare.problems import Problem
from gwg_dist.samplers import Sampler
from gwg_dist.samplers.tuners import TUNERS, check_objective, check_target_acceptance


@dataclass
class Entry:
    """One kernel of a comparison.

    Args:
        sampler: where its tuning starts.
        objective: what the warm-up tunes for, see ``adapt_kernel``; "none" keeps the settings.
        target_acceptance: acceptance that the warm-up aims at; the kernel's own where none is given.
        steps: measured steps; those of the comparison where none are given.
        every: steps between two looks at the observables; those of the comparison where none are given.
    """

    sampler: Sampler
    objective: str = "acceptance"
    target_acceptance: float | None = None
    steps: int | None = None
    every: int | None = None

    def check(self) -> None:
        """Raise ValueError for settings that do not go with each other, or with the kernel."""
        check_target_acceptance(self.target_acceptance)
        if self.objective != "none":
            check_objective(self.objective)
            tuner = TUNERS[self.objective](self.target_acceptance)
            refusal = None if self.sampler.tunable is None else tuner.refusal(self.sampler)
            if refusal is not None:
                raise ValueError(refusal)
        for name, value in (("steps", self.steps), ("every", self.every)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass
class Comparison:
    """The settings of a comparison.

    Args:
        problem: the target.
        kernels: the kernels by name; the first is the one that the others are measured against.
        num_chains: chains in parallel.
        warmup: steps in which a kernel is tuned.
        steps: measured steps.
        every: steps between two looks at the observables.
        seeds: independent repetitions.
        rounds: timings of a step, the median of which counts.
        num_exact: samples of the target that chains are compared with.
        device: "cpu" or "cuda"; a CUDA device where there is one.
        out: folder of the results; runs/compare-TIME by default. A folder that holds some of them is gone on with.

    Raises:
        ValueError: no kernel, names of kernels that differ by no letter or digit, a number that is not positive, fewer
            than 16 looks, tuning that is not for the kernel.
    """

    problem: Problem
    kernels: dict[str, Entry] = field(default_factory=dict)
    num_chains: int = 32
    warmup: int = 1000
    steps: int = 10_000
    every: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    num_exact: int = 300
    rounds: int = 5
    device: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        if not self.kernels:
            raise ValueError("kernels: name one at least")
        if not self.seeds:
            raise ValueError("seeds: give one at least")
        for name, least in (("num_chains", 2), ("warmup", 1), ("every", 1), ("num_exact", 2), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        files: dict[str, str] = {}
        for name, entry in self.kernels.items():
            other = files.setdefault(slug(name), name)
            if other != name:
                raise ValueError(f"kernels: {other!r} and {name!r} would share a file, rename one")
            try:
                entry.check()
            except ValueError as error:
                raise ValueError(f"kernels.{name}: {error}") from error
            steps, every = entry.steps or self.steps, entry.every or self.every
            if steps < 16 * every:
                raise ValueError(f"kernels.{name}: steps must be at least 16 times every, got {steps} and {every}")


def slug(name: str) -> str:
    """The name of a kernel as part of a file's."""
    return re.sub(r"[^\w.]+", "_", name)
