"""Small random models in float64 with exact probabilities, to check kernels on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gwg_dist.energies import Energy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import Sampler, Target
from gwg_dist.spaces import Binary, Categorical


def random_target(energy: Energy, *, spread: float = 0.5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Target:
    """``energy`` with normal weights of this standard deviation and a random reference, both in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    energy = energy.to(dtype)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    space = energy.space
    reference = Reference(space, smoothing=0.1).to(dtype)
    random = torch.rand(space.num_sites, space.num_categories, generator=generator, dtype=torch.float64)
    return Target(energy, reference.fit(space.without_padding(random).softmax(1)))


def small_targets(sampler: Sampler, *, seed: int = 0) -> Iterator[tuple[str, Target]]:
    """Models of 16 to 27 states that ``sampler`` does not refuse, with what they are called."""
    models: dict[str, tuple[Energy, float]] = {
        "a network on binary points": (MLPEnergy(Binary(4), num_hidden=6), 0.5),
        "a network on categorical points": (MLPEnergy(Categorical(3, 3), num_hidden=6), 0.5),
        "a restricted Boltzmann machine": (RBMEnergy(Binary(4), num_hidden=3), 0.5),
        "a Potts model": (PottsEnergy(Categorical(3, 3)), 0.3),
        "a network on sites of different sizes": (MLPEnergy(Categorical(3, (2, 4, 3)), num_hidden=6), 0.5),
        "a Potts model on sites of different sizes": (PottsEnergy(Categorical(3, (4, 2, 3))), 0.3),
    }
    for name, (energy, spread) in models.items():
        target = random_target(energy, spread=spread, seed=seed)
        if sampler.refusal(target) is None:
            yield name, target


def exact_pi(target: Target, beta: float) -> Tensor:
    """p_beta of every state in the order of ``space.all_codes()``, from energies and site probabilities alone."""
    space, reference = target.space, target.reference
    codes = space.all_codes().long()
    with torch.no_grad():
        log_p = -beta * target.energy(target.encode(codes)).double()
    if reference is not None:
        log_site = reference.probs.cpu().log()
        log_p = log_p + torch.stack([log_site[i, codes[:, i]] for i in range(space.num_sites)]).sum(0)
    return torch.softmax(log_p, 0)
