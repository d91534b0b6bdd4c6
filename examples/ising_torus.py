"""Sample an Ising torus and compare two means with their exact values.

The 4x4 torus has 2^16 states, so its mean energy and mean |magnetisation| can be summed. 2,000 chains of
Gibbs-With-Gradients start at independent coin flips and take 400 steps each. Each line shows a sampled mean, its
standard error and the exact value. Expect, with the exact values within four standard errors:

    energy a site      -0.25 ± 0.004
    |magnetisation|     0.52 ± 0.007
"""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.energies import IsingTorusEnergy
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.samplers import GWG, Target, run_chain
from gwg_dist.spaces import Binary


def observables(target: Target, x: Tensor) -> dict[str, Tensor]:
    """By name, a number a point ``(B,)`` float64."""
    spins = 2 * x.double() - 1
    return {
        "energy a site": -target.f(x).double() / target.space.num_sites,
        "|magnetisation|": spins.mean(1).abs(),
    }


def main() -> None:
    space = Binary((4, 4))
    target = Target(IsingTorusEnergy(space, sigma=0.15))
    generator = torch.Generator().manual_seed(0)
    x = target.encode(space.uniform_codes(2000, generator=generator))
    chain = run_chain(GWG(), target, x, num_steps=400, generator=generator)

    log_prob, _ = exact_log_prob(target)
    exact = observables(target, target.encode(space.all_codes()))
    for name, values in observables(target, chain.x).items():
        stderr = values.std() / len(values) ** 0.5
        mean = (log_prob.exp() * exact[name]).sum()
        print(f"{name:16} {values.mean():.4f} ± {stderr:.4f} exact {mean:.4f}")


if __name__ == "__main__":
    main()
