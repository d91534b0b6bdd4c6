"""Samples of an Ising model with known couplings, to be recovered."""

from __future__ import annotations

from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits
from gwg_dist.energies import IsingTorusEnergy
from gwg_dist.samplers import GWG, Target, run_chain
from gwg_dist.spaces import Binary
from gwg_dist.tools.seeding import fixed_generator


class IsingSamples(DiscreteData):
    """Independent long chains of an Ising torus with J = σA (Grathwohl et al., 2021, section 6.3).

    Args:
        batch_size: points in an iteration, on all ranks together.
        shape: the lattice.
        sigma: σ of the couplings.
        num_train: training samples; 500 more each for validation and test.
        num_steps: Gibbs-With-Gradients steps from a uniform start, in every chain. At σ = 0.1 a lattice forgets its
            start within a few steps a site; near the critical 0.22 it needs many more.
    """

    def __init__(
        self,
        *,
        batch_size: int = 256,
        shape: tuple[int, int] = (10, 10),
        sigma: float = 0.1,
        num_train: int = 2000,
        num_steps: int = 1000,
    ) -> None:
        super().__init__(Binary(shape), batch_size=batch_size)
        for name, value in (("num_train", num_train), ("num_steps", num_steps)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self.energy = IsingTorusEnergy(self.space, sigma=sigma)
        self.num_train = num_train
        self.num_steps = num_steps

    @property
    def coupling(self) -> Tensor:
        """The true J, ``(D, D)``."""
        return self.energy.coupling

    def load(self) -> Splits:
        generator = fixed_generator("ising samples")
        x = self.space.encode(self.space.uniform_codes(self.num_train + 1000, generator=generator))
        chain = run_chain(GWG(), Target(self.energy), x, num_steps=self.num_steps, generator=generator)
        return Splits(*self.space.decode(chain.x).split([self.num_train, 500, 500]))
