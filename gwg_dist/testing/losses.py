"""Whether a loss has the gradient that it claims, by enumeration."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from gwg_dist.batch import Batch, weighted_mean
from gwg_dist.energies import Energy
from gwg_dist.objectives import Objective
from gwg_dist.samplers import Target
from gwg_dist.testing.errors import CheckError
from gwg_dist.testing.models import exact_pi, random_target

NUM_POINTS = 9
NUM_CHAINS = 2**19
Exact = Callable[[Target, Batch], Tensor]


def negative_log_likelihood(target: Target, batch: Batch) -> Tensor:
    """-mean log p(x) over a batch by its weights, 0-d nats, log Z summed over all states."""
    x, everything = target.encode(batch.codes), target.encode(target.space.all_codes())
    log_z = torch.logsumexp(target.log_prob(everything, -target.energy(everything)), 0)
    return log_z - weighted_mean(target.log_prob(x, -target.energy(x)), batch.weights)


def check_gradient(
    objective: Objective, energy: Energy, *, exact: Exact = negative_log_likelihood, seed: int = 0
) -> None:
    """Check that the gradient of a loss in the weights is that of ``exact``, on a weighted batch of random points.

    A loss that needs chains gets every state in its exact proportion, half a million points, so that its gradient is
    right to 1e-3 of the largest entry; another one must be right to 1e-8.

    Args:
        objective: the loss; one that draws must be averaged by ``exact`` in the same way.
        energy: energy of at most some 500 states; a copy with random weights in float64 is used.
        exact: the same quantity by enumeration, differentiable; the likelihood where none is given.
        seed: seed of weights and points.

    Raises:
        CheckError: which parameter's gradient differs, and by how much.
    """
    target = random_target(copy.deepcopy(energy), seed=seed)
    space, generator = target.space, torch.Generator().manual_seed(seed)
    weights = torch.rand(NUM_POINTS, generator=generator, dtype=torch.float64) + 0.5
    codes = space.uniform_codes(NUM_POINTS, generator=generator)
    batch = Batch(codes, (weights / weights.mean()).float())
    x_model = None
    if objective.needs_chains:
        counts = (exact_pi(target, 1.0) * NUM_CHAINS).round().long()
        x_model = target.encode(space.all_codes()).repeat_interleave(counts, 0)
    model = target.energy
    assert isinstance(model, Energy)
    parameters = dict(model.named_parameters())
    loss = objective(target, batch, x_model, generator=generator).loss
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    right = torch.autograd.grad(exact(target, batch), list(parameters.values()), allow_unused=True)
    largest = max(float(grad.abs().max()) for grad in right if grad is not None)
    tolerance = (1e-3 if objective.needs_chains else 1e-8) * largest
    for name, a, b in zip(parameters, found, right, strict=True):
        zeros = torch.zeros_like(parameters[name])
        gap = float(((zeros if a is None else a) - (zeros if b is None else b)).abs().max())
        if not gap <= tolerance:
            raise CheckError(f"the gradient in {name} is off by {gap:.1e} where the exact one reaches {largest:.1e}")
