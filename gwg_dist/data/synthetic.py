"""Samples of a model with known parameters, to be recovered: any energy on any space."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from gwg_dist.data.base import DiscreteData, Splits
from gwg_dist.energies import Energy
from gwg_dist.samplers import GWG, BlockGibbs, Target, run_chain
from gwg_dist.spaces import Binary, Space
from gwg_dist.structure import Pairs, offered
from gwg_dist.tools.seeding import fixed_generator


class ModelSamples(DiscreteData):
    """Independent long chains of an energy as it is initialised, p(x) ∝ exp(-E(x)).

    Chains start at uniform points and go by ``BlockGibbs``, a step of which is a sweep over all sites, where the energy
    has such blocks; else by ``GWG``, a step of which changes one site. So these are samples up to what the chains
    remember of their start. The same settings give the same samples.

    Args:
        energy: a class of energies with its settings, such as ``IsingGraphEnergy`` on ``ErdosRenyi`` edges.
        space: where it lives.
        batch_size: points in an iteration, on all ranks together.
        num_train: training samples; 500 more each for validation and test.
        num_steps: steps of every chain.
        seed_of_weights: seed of what the energy draws when it is made.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self,
        *,
        energy: Callable[[Space], Energy],
        space: Space,
        batch_size: int = 256,
        num_train: int = 2000,
        num_steps: int = 1000,
        seed_of_weights: int = 0,
    ) -> None:
        super().__init__(space, batch_size=batch_size)
        for name, value in (("num_train", num_train), ("num_steps", num_steps)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of_weights)
            self.energy = energy(space)
        self.num_train = num_train
        self.num_steps = num_steps

    @cached_property
    def coupling(self) -> Tensor | None:
        """The true J of f = s^T J s + b^T s, ``(D, D)``, where the energy is pairs of spins s = 2x - 1; else None."""
        if not isinstance(self.space, Binary) or not offered(self.energy, "structure"):
            return None
        with torch.no_grad():
            structure = self.energy.structure()
        return structure.dense().rows / 8 if isinstance(structure, Pairs) else None

    def load(self) -> Splits:
        generator, target = fixed_generator("model samples"), Target(self.energy)
        kernel = BlockGibbs() if BlockGibbs().refusal(target) is None else GWG()
        x = target.encode(self.space.uniform_codes(self.num_train + 1000, generator=generator))
        chain = run_chain(kernel, target, x, num_steps=self.num_steps, generator=generator)
        return Splits(*self.space.decode(chain.x).split([self.num_train, 500, 500]))
