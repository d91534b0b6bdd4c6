"""What is kept of chains while they run: observables at every look, and how far they are from the target."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gwg_dist.compare.problems import Posed
from gwg_dist.evaluation import mmd_squared
from gwg_dist.samplers import State, Target
from gwg_dist.spaces import Space
from gwg_dist.tools.seeding import make_generator

NUM_CHECKPOINTS = 25
NOISE_DRAWS, NOISE_DEVIATIONS = 20, 3.0


def fixed_points(space: Space) -> dict[str, Tensor]:
    """Codes ``(D,)`` of the states that chains are measured from, by the name of the distance to them."""
    random = space.uniform_codes(1, generator=make_generator(0, "compare point"))[0]
    sites = torch.arange(space.num_sites)
    return {
        "distance": random,
        "magnetisation": torch.zeros_like(random),
        "stripes": (sites % space.num_categories).to(space.code_dtype),
    }


class Observer:
    """Keeps f and the Hamming distances to fixed states at every look; a ``before_step`` of ``run_chain``.

    "distance" is to a uniformly drawn state, "magnetisation" to category 0 everywhere, "stripes" to site i in category
    i mod K.

    Args:
        target: what the chains run on.
        num_chains: B.
        steps: length of the run.
        every: steps between two looks.
        device: where the chains are.
    """

    def __init__(self, target: Target, *, num_chains: int, steps: int, every: int, device: torch.device) -> None:
        points = fixed_points(target.space)
        self.names = ("f", *points)
        self.space, self.every = target.space, every
        self.points = [target.encode(code[None].to(device)) for code in points.values()]
        looks = -(-steps // every)
        self.values = torch.empty(len(self.names), looks, num_chains, dtype=torch.float64, device=device)

    def __call__(self, step: int, state: State) -> None:
        if step % self.every:
            return
        look = step // self.every
        self.values[0, look] = state.f
        for row, point in enumerate(self.points, 1):
            self.values[row, look] = self.space.hamming(state.x, point)


class Approach:
    """How chains from uniform points approach the target, at checkpoints; a ``before_step`` of ``run_chain``.

    A checkpoint at t is of the chains after t steps; the first one is the start. The error of the marginals is that of
    every chain's own mean from its start on, a root mean square over chains, sites and categories. MMD^2 is between the
    chains as they stand and samples of the target.

    Args:
        posed: the problem.
        num_chains: B.
        steps: length of the run.
        every: steps between two points of the chains' means.
    """

    def __init__(self, posed: Posed, *, num_chains: int, steps: int, every: int) -> None:
        self.posed, self.every = posed, every
        looks = -(-steps // every)
        spread = torch.logspace(0, math.log10(looks), NUM_CHECKPOINTS).round().long() - 1
        self.checkpoints = sorted(set(spread.clamp(0, looks - 1).tolist()))
        self.total: Tensor | None = None
        space = posed.target.space
        self.exact = None if posed.marginals is None else (
            posed.marginals[:, 1] if space.width == 1 else posed.marginals
        )  # fmt: skip
        self.steps: list[int] = []
        self.rmse: list[float] = []
        self.mmd: list[float] = []

    def __call__(self, step: int, state: State) -> None:
        if step % self.every:
            return
        look = step // self.every
        if self.exact is not None:
            self.total = state.x.double() if self.total is None else self.total.add_(state.x)
        if look not in self.checkpoints:
            return
        self.steps.append(step)  # the state is the one before this step
        if self.exact is not None and self.total is not None:
            error = self.total / (look + 1) - self.exact.to(self.total.device)
            self.rmse.append(float(error.square().mean().sqrt()))
        if self.posed.samples is not None:
            space = self.posed.target.space
            codes = space.decode(state.x).cpu()
            self.mmd.append(mmd_squared(codes, self.posed.samples, num_categories=space.num_categories))

    def converged(self, noise: float | None) -> int | None:
        """The first checkpoint from which on MMD^2 stays below ``noise``, steps; None where it does not, or is not."""
        if noise is None or not self.mmd or self.mmd[-1] >= noise:
            return None
        above = [number for number, value in enumerate(self.mmd) if value >= noise]
        return self.steps[above[-1] + 1] if above else self.steps[0]


def noise_level(posed: Posed, num_chains: int) -> float | None:
    """The MMD^2 that as many samples of the target itself stay below: its mean plus three deviations over draws."""
    if posed.samples is None or len(posed.samples) < 2 * num_chains:
        return None
    generator = make_generator(0, "compare noise")
    found = []
    for _ in range(NOISE_DRAWS):
        order = torch.randperm(len(posed.samples), generator=generator)
        some, others = posed.samples[order[:num_chains]], posed.samples[order[num_chains:]]
        found.append(mmd_squared(some, others, num_categories=posed.target.space.num_categories))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean() + NOISE_DEVIATIONS * values.std())
