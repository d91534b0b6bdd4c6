"""An energy of your own in a run of the command line: ``--model.energy=own_energy.Ring``.

The data are chains of 16 spins. Neighbours agree with probability 0.9. The energy has a number for each bond of a ring,
E(x) = -sum_i w_i s_i s_(i+1). The truth is w_i = atanh(0.8) = 1.10 at the 15 bonds of the chain, and 0 at the bond that
closes the ring. Expect 0.95 to 1.25 and -0.15 to 0.15 after 1,000 iterations, some fifteen seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gwg_dist import fit
from gwg_dist.energies import Energy
from gwg_dist.spaces import Space


class Ring(Energy):
    """E(x) = -sum_i w_i s_i s_(i+1) on a ring, s = 2x - 1."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.weight = nn.Parameter(torch.zeros(space.num_sites))

    def forward(self, x: Tensor) -> Tensor:
        s = 2 * x - 1
        return -(s * s.roll(-1, 1)) @ self.weight


def write_chains(path: Path) -> None:
    """3,000 points of 16 sites as integers 0 and 1."""
    generator = np.random.default_rng(0)
    changes = generator.random((3000, 16)) < 0.1
    changes[:, 0] = generator.random(3000) < 0.5
    np.savez(path, x=changes.cumsum(1) % 2)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_chains(Path(folder, "chains.npz"))
        settings = (
            f"--model.energy=own_energy.Ring --data=Arrays --data.path={folder}/chains.npz --run_dir={folder}/run "
            "--trainer.max_steps=1000 --trainer.accelerator=cpu --model.learning_rate=3e-3 --ema.decay=0.99 "
            "--pictures_every=0 --evaluation.num_chains=100 --evaluation.final_temperatures=500"
        )
        fit.main(settings.split())
        weight = torch.load(f"{folder}/run/last.ckpt", weights_only=True)["state_dict"]["energy.weight"]
    chain = weight[:-1]
    print(f"bonds of the chain {chain.min():.2f} to {chain.max():.2f}, the bond that closes it {weight[-1]:.2f}")


if __name__ == "__main__":
    main()
