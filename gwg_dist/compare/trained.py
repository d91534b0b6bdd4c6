"""Problems that were learnt from data: the model of a run, and a small machine trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gwg_dist.compare.problems import Posed, Problem, pose_target
from gwg_dist.data import Digits
from gwg_dist.energies import RBMEnergy
from gwg_dist.samplers import GWG, Target, run_chain
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator


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
class DigitsRBM(Problem):
    """A restricted Boltzmann machine on the 8x8 digits, trained by persistent contrastive divergence in seconds.

    Args:
        num_hidden: hidden units.
        iterations: updates of Adam, of 100 points and 100 chains of 40 ``GWG`` steps each.
        learning_rate: of Adam.
        seed: seed of weights, batches and chains.
        long_steps: steps of runs in parallel that samples are taken from, see ``Model``; 0 for none.
    """

    num_hidden: int = 64
    iterations: int = 1000
    learning_rate: float = 5e-3
    seed: int = 0
    long_steps: int = 2000

    def pose(self, num: int, device: torch.device) -> Posed:
        data = Digits()
        torch.manual_seed(self.seed)
        energy = RBMEnergy(data.space, num_hidden=self.num_hidden, scale=0.05)
        target, points = Target(energy), data.space.encode(data.load().train)
        generator = make_generator(self.seed, "compare digits")
        optimizer = torch.optim.Adam(energy.parameters(), lr=self.learning_rate)
        x = data.space.encode(data.space.uniform_codes(100, generator=generator))
        for _ in range(self.iterations):
            x = run_chain(GWG(), target, x, num_steps=40, generator=generator).x
            batch = points[torch.randint(len(points), (100,), generator=generator)]
            optimizer.zero_grad()
            (energy(batch).mean() - energy(x).mean()).backward()
            optimizer.step()
        return pose_target(Target(energy.requires_grad_(False).to(device)), num, self.long_steps)
