"""Problems that were learnt from data: the model of a run, and a model trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gwg_dist.compare.problems import Posed, Problem, pose_target
from gwg_dist.data import DiscreteData
from gwg_dist.energies import Energy
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target, run_chain
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import make_progress, track

NUM_CHAINS = 100


@dataclass
class RunModel(Problem):
    """The model of a run, with the weights that evaluation reads. Of its settings, only classes of gwg_dist are built.

    Args:
        run: folder of the run.
        checkpoint: "best", "last", or the path of a file.
        long_steps: steps of runs in parallel that samples are taken from, see ``Model``; 0 for none.
    """

    run: str = ""
    checkpoint: str = "best"
    long_steps: int = 0

    def pose(self, num: int, device: torch.device) -> Posed:
        if not self.run:
            raise InputError("problem.run: give the folder of a run, --problem.run=RUN")
        from gwg_dist.training.loading import load_run

        target = load_run(self.run, self.checkpoint, device=str(device)).module.target
        return pose_target(target, num, self.long_steps)


@dataclass
class TrainedModel(Problem):
    """Any energy, trained on data on the spot by persistent contrastive divergence: an update has 100 chains.

    Args:
        energy: a class of energies with its settings.
        data: a data set with its settings.
        iterations: updates of Adam.
        num_steps: ``GWG`` steps of every chain in an update.
        learning_rate: of Adam.
        seed: seed of weights, batches and chains.
        long_steps: steps of runs in parallel that samples are taken from, see ``Model``; 0 for none.
    """

    energy: Callable[[Space], Energy]
    data: DiscreteData
    iterations: int = 1000
    num_steps: int = 40
    learning_rate: float = 5e-3
    seed: int = 0
    long_steps: int = 2000

    def pose(self, num: int, device: torch.device) -> Posed:
        data, generator = self.data, make_generator(self.seed, "compare trained")
        data.prepare_data()
        reference = Reference(data.space).fit(data.frequencies())
        torch.manual_seed(self.seed)
        energy = self.energy(data.space)
        optimizer = torch.optim.Adam(energy.parameters(), lr=self.learning_rate)
        target = Target(energy, reference)
        x = target.encode(reference.sample(NUM_CHAINS, generator=generator))
        with make_progress() as progress, track(progress, "training the model", self.iterations) as advance:
            for iteration in range(self.iterations):
                advance(iteration)
                x = run_chain(GWG(), target, x, num_steps=self.num_steps, generator=generator).x
                batch = data.batch(iteration)
                on_data = (batch.weights * energy(target.encode(batch.codes))).mean()
                optimizer.zero_grad()
                (on_data - energy(x).mean()).backward()
                optimizer.step()
        frozen = energy.requires_grad_(False).to(device)
        return pose_target(Target(frozen, reference.to(device)), num, self.long_steps)
