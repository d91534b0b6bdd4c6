"""Annealed importance sampling against an exact log Z, for more and more temperatures.

A restricted Boltzmann machine of 16 sites and large random weights has 2^16 states, so its log Z can be summed. Forward
AIS is low on average: the error shrinks, and the effective number of chains grows, with the number of temperatures.
Expect an error of half a nat or so with 10 temperatures (9 effective chains of 500), and one of hundredths, within four
standard errors, with 1,000 (400 of 500).
"""

from __future__ import annotations

import torch

from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import ais, exact_log_z
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary

NUM_CHAINS = 500


def main() -> None:
    torch.manual_seed(0)
    space = Binary(16)
    target = Target(RBMEnergy(space, num_hidden=32, scale=0.8), Reference(space))
    exact = exact_log_z(target)
    print(f"exact log Z {exact:.3f}")
    for num_temperatures in (10, 100, 1000):
        generator = torch.Generator().manual_seed(num_temperatures)
        found = ais(target, GWG(), generator=generator, num_chains=NUM_CHAINS, num_temperatures=num_temperatures)
        print(
            f"T = {num_temperatures:5} log Z {found.log_z:.3f} ± {found.stderr:.3f} error {found.log_z - exact:+.3f} "
            f"ESS {found.ess:.0f} of {NUM_CHAINS}"
        )


if __name__ == "__main__":
    main()
