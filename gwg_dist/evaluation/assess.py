"""What is known of a model's likelihood, as one value: the estimate of log Z, the likelihoods, and the verdict on them.

Plain functions of a target, used by training, by verbs and by sweeps alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from gwg_dist.batch import weighted_mean
from gwg_dist.evaluation.ais import LEAST_SIZE, AISResult, ais
from gwg_dist.evaluation.annealing import Between
from gwg_dist.evaluation.likelihood import Likelihood, likelihood_and_gain, point_log_probs
from gwg_dist.evaluation.pilot import check_pilot, pilot_path
from gwg_dist.evaluation.reverse import reverse_ais
from gwg_dist.evaluation.schedules import ADAPTIVE, check_schedule
from gwg_dist.evaluation.sides import Sides, sides_of
from gwg_dist.evaluation.smc import EVERY, NUM_SYSTEMS, resampler, smc
from gwg_dist.evaluation.tuned_path import TunedPath, betas_of
from gwg_dist.samplers import Sampler, Target
from gwg_dist.tools.distributed import world_size

ERRORS_ABOVE_ZERO, ROUNDING = 4.0, 1e-3  # standard errors and nats above 0 that an estimate may have by chance

AIS, SMC = ESTIMATORS = ("ais", "smc")
SEGMENT = 100  # temperatures that a stop loses at most

Weighted = tuple[Tensor, Tensor | None]
"""Codes ``(N, D)`` and the weight of each point ``(N,)``; None counts every point once."""


@dataclass(frozen=True)
class AISSettings:
    """How log Z is estimated.

    Args:
        num_chains: AIS chains on all ranks together.
        num_temperatures: gradient evaluations a chain.
        schedule: "linear", "sigmoid", "geometric", or "adaptive": from the pilot run, see ``even_knots``.
        pilot: gradient evaluations a chain of a run before, which tunes the kernel for each beta; 0 for none. An
            adaptive schedule takes as many again.
        estimator: "ais", annealed importance sampling, or "smc", whose chains are resampled in 20 systems.

    Raises:
        ValueError: fewer than two chains or one temperature, chains that are not whole systems, an unknown schedule or
            estimator, a pilot run that is too short or missing.
    """

    num_chains: int = 200
    num_temperatures: int = 1000
    schedule: str = "linear"
    pilot: int = 0
    estimator: str = AIS

    def __post_init__(self) -> None:
        if self.num_chains < 2:
            raise ValueError(f"num_chains must be at least 2 for a standard error, got {self.num_chains}")
        if self.num_temperatures < 1:
            raise ValueError(f"num_temperatures must be positive, got {self.num_temperatures}")
        check_schedule(self.schedule)
        check_pilot(self.pilot)
        if self.schedule == ADAPTIVE and not self.pilot:
            raise ValueError("schedule adaptive needs a pilot run: pilot must be above 0, as 400")
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, got {self.estimator!r}")
        if self.estimator == SMC and (self.num_chains % NUM_SYSTEMS or self.num_chains < LEAST_SIZE * NUM_SYSTEMS):
            raise ValueError(
                f"num_chains must be a multiple of {NUM_SYSTEMS}, at least {LEAST_SIZE * NUM_SYSTEMS}, for smc, "
                f"got {self.num_chains}"
            )

    @property
    def num_systems(self) -> int:
        """Systems of chains that resample among themselves, on all ranks together: 20, or one a rank; 0 for none."""
        return max(NUM_SYSTEMS, world_size()) if self.estimator == SMC else 0

    @property
    def every(self) -> int:
        """Temperatures in a segment of annealing, see ``anneal``."""
        return EVERY if self.estimator == SMC else SEGMENT

    @property
    def between(self) -> Between | None:
        """What becomes of chains between two segments."""
        return resampler(self.num_chains // self.num_systems) if self.num_systems else None

    def betas(self, path: TunedPath | None = None) -> Tensor:
        """beta_0 = 0 < ... < beta_T = 1, ``(T + 1,)`` float64; an adaptive schedule is that of ``path``."""
        return betas_of(path, self.num_temperatures, self.schedule)

    def for_kernel(self, sampler: Sampler) -> AISSettings:
        """These settings, without a pilot run where ``sampler`` has nothing to tune and the schedule is fixed."""
        needed = self.schedule == ADAPTIVE or sampler.annealed().tunable is not None
        return self if needed else replace(self, pilot=0)

    def path(
        self, target: Target, sampler: Sampler, *, generator: torch.Generator, backend: str = "auto"
    ) -> TunedPath | None:
        """The kernels that a pilot run finds, with a generator of its own; None where there is none."""
        if not self.for_kernel(sampler).pilot:
            return None
        return pilot_path(
            target, sampler, generator=generator, num_temperatures=self.pilot, adaptive=self.schedule == ADAPTIVE,
            backend=backend,
        )  # fmt: skip


@dataclass(frozen=True)
class Assessment:
    """An estimate of log Z and what follows from it.

    Args:
        estimate: estimate of log Z.
        likelihoods: mean log p(x) in nats, by the name of the data.
        reference: mean log ref(x) in nats, by the name of the data; what a model without an energy has.
        gains: mean log p(x) - log ref(x) in nats with its paired error, by the name of the data.
        sides: log Z from both sides, where points of the model were given.
        points: log ref(x) - E(x) of every point ``(N,)`` float64 nats, and the weights, by the name of the data.
    """

    estimate: AISResult
    likelihoods: dict[str, Likelihood]
    reference: dict[str, float]
    gains: dict[str, Likelihood] = field(default_factory=dict)
    sides: Sides | None = None
    points: dict[str, Weighted] = field(default_factory=dict, compare=False, repr=False)

    @property
    def collapsed(self) -> bool:
        """Whether no likelihood here is to be believed: few weights carry the estimate, or it is an impossible one."""
        return self.estimate.collapsed or self.impossible is not None

    @property
    def impossible(self) -> str | None:
        """The name of data whose log-likelihood is above 0, which no distribution over discrete points reaches."""
        for name, value in self.likelihoods.items():
            if value.mean > max(ERRORS_ABOVE_ZERO * self.estimate.stderr, ROUNDING):
                return name
        return None

    def between(self, name: str) -> tuple[float, float]:
        """The likelihood of data ``name`` by the highest and by the lowest log Z of all ways, nats.

        Twice the same where there is one way alone. The first is the conservative one: forward AIS alone is optimistic.
        """
        value = self.likelihoods[name]
        if self.sides is None:
            return value.mean, value.mean
        low, high = self.sides.bracket
        return value.mean + self.estimate.log_z - high, value.mean + self.estimate.log_z - low

    def metrics(self) -> dict[str, float]:
        """For loggers: nats, counts, and 1 where the weights have collapsed."""
        values = {f"{name}/log_likelihood": likelihood.mean for name, likelihood in self.likelihoods.items()}
        if self.sides is not None:
            for name in self.likelihoods:
                values[f"{name}/low_side"], values[f"{name}/high_side"] = self.between(name)
            values |= {"ais/reverse_log_z": self.sides.reverse.log_z, "ais/reverse_ess": self.sides.reverse.ess}
        return values | {
            "ais/log_z": self.estimate.log_z,
            "ais/log_z_stderr": self.estimate.stderr,
            "ais/ess": self.estimate.ess,
            "ais/collapsed": float(self.collapsed),
        }


def assess(
    target: Target,
    sampler: Sampler,
    splits: Mapping[str, Weighted],
    settings: AISSettings,
    *,
    generator: torch.Generator,
    backend: str = "auto",
    starts: Tensor | None = None,
    exact_samples: bool = False,
) -> Assessment:
    """Estimate log Z and the likelihood of every set of data; called on every rank.

    Args:
        target: target that has a reference.
        sampler: leaves p_beta invariant for every beta; its ``annealed()`` moves the chains.
        splits: codes ``(N, D)`` and their weights by name; empty ones are left out.
        settings: settings of the estimate.
        generator: this rank's own, on the device of the model.
        backend: see ``run_chain``.
        starts: points of the model, codes ``(M, D)``, the same on all ranks: log Z from the other side as well.
        exact_samples: whether ``starts`` are independent exact samples, which makes the other side a bound.

    Raises:
        ValueError: a target without a reference, fewer chains or starts than ranks, starts of another space.
    """
    sampler = sampler.annealed()
    path = settings.path(target, sampler, generator=generator, backend=backend)
    forward = partial(smc, num_systems=settings.num_systems) if settings.num_systems else ais
    estimate = forward(
        target,
        sampler if path is None else path,
        generator=generator,
        num_chains=settings.num_chains,
        num_temperatures=settings.num_temperatures,
        schedule=settings.schedule,
        backend=backend,
    )
    found = assessment_of(estimate, target, splits)
    if starts is None:
        return found
    reverse = reverse_ais(
        target,
        sampler if path is None else path,
        starts,
        generator=generator,
        num_temperatures=settings.num_temperatures,
        schedule=settings.schedule,
        backend=backend,
    )
    data = [codes for codes, _ in splits.values()]
    return replace(found, sides=sides_of(estimate, reverse, target, starts, data, exact_samples=exact_samples))


def assessment_of(estimate: AISResult, target: Target, splits: Mapping[str, Weighted]) -> Assessment:
    """What follows from an estimate of log Z of ``target`` for codes and weights by name; called on every rank.

    Raises:
        ValueError: a target without a reference.
    """
    reference = target.reference
    if reference is None:
        raise ValueError("an assessment needs a target with a reference to compare the model with")
    likelihoods, gains, by_reference, points = {}, {}, {}, {}
    for name, (codes, weights) in splits.items():
        if len(codes):
            codes = codes.to(reference.weights.device)
            log_prob = reference.log_prob(target.encode(codes)).double()
            values = point_log_probs(target, codes)
            likelihoods[name], gains[name] = likelihood_and_gain(values, estimate, log_prob, weights=weights)
            points[name] = values.cpu(), weights
            by_reference[name] = float(weighted_mean(log_prob, weights))
    return Assessment(estimate, likelihoods, by_reference, gains, points=points)


def describe(assessment: Assessment) -> str:
    """One line: the likelihoods in nats, the error of log Z, how it was estimated, and the lower side."""
    estimate, sides = assessment.estimate, assessment.sides
    parts = [f"{name} {value.mean:.2f}" for name, value in assessment.likelihoods.items()]
    lower = "" if sides is None else f"; {sides.bracket[1] - estimate.log_z:.2f} less by the other side"
    return (
        f"log-likelihood {', '.join(parts)} ± {estimate.error:.2f} nats "
        f"({estimate.short_name}, {estimate.num_temperatures} temperatures, "
        f"ESS {estimate.ess:.0f} of {len(estimate.units)}{' systems' if estimate.num_systems else ''}){lower}"
    )


def collapse_warning(assessment: Assessment) -> str:
    """What to make of likelihoods that a handful of chains carry, or that cannot be; one line."""
    estimate, impossible = assessment.estimate, assessment.impossible
    what = f"{estimate.ess:.1f} of {len(estimate.units)} {estimate.short_name} {estimate.what} carry the estimate"
    if impossible is not None:
        mean = assessment.likelihoods[impossible].mean
        what = f"a log-likelihood of {mean:+.2f} nats ({impossible}) is impossible for discrete data: log Z is too low"
    return (
        f"warning: {what}; do not believe "
        "this likelihood. Use more temperatures; if that does not help, the model has modes that chains do not reach: "
        "more steps an iteration, a lower learning rate, or restarts."
    )
