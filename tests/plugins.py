"""A user's own classes, picked by import path: an energy, a sampler that stays, a loss of the data alone, callbacks."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gwg_dist.callbacks import likelihood
from gwg_dist.checkpoints import AtomicCheckpointIO
from gwg_dist.energies import Energy
from gwg_dist.objectives import Objective, ObjectiveResult
from gwg_dist.samplers import Info, Sampler, Target
from gwg_dist.spaces import Space


class Pairs(Energy):
    """E(x) = |W x + b|^2."""

    def __init__(self, space: Space, width: int = 8) -> None:
        super().__init__(space)
        self.factor = torch.nn.Linear(space.num_sites, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor(x).square().sum(1)


class StayState(NamedTuple):
    x: Tensor
    f: Tensor


@dataclass(frozen=True)
class Stay(Sampler):
    """Leaves every distribution invariant, and every chain where it is."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> StayState:
        return StayState(x, target.f(x))

    def draw(self, state: Any, generator: torch.Generator) -> None:
        torch.rand(1, generator=generator)

    def step(self, target: Target, state: Any, noise: None, beta: Tensor) -> tuple[Any, Info]:
        return state, Info(torch.ones_like(state.f), torch.zeros_like(state.f))


class DataOnly(Objective):
    """mean E(x+)^2: the same whatever the chains do."""

    def __call__(self, energy: Energy, x_data: Tensor, x_model: Tensor) -> ObjectiveResult:
        energy_data, energy_model = energy(torch.cat([x_data, x_model])).split([len(x_data), len(x_model)])
        loss = energy_data.square().mean() + 0 * energy_model.sum()
        return ObjectiveResult(loss, energy_data.detach(), energy_model.detach())


class Exploding(Energy):
    """Becomes infinite as soon as its weight has moved."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.weight = torch.nn.Parameter(torch.zeros(space.num_sites))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight) + (self.weight.abs().sum() * 1e6).exp() - 1


class Peaked(Energy):
    """Far from any factorised distribution: two opposite points hold nearly everything."""

    def __init__(self, space: Space, strength: float = 2.0) -> None:
        super().__init__(space)
        self.strength = torch.nn.Parameter(torch.tensor(strength))

    def forward(self, x: Tensor) -> Tensor:
        return -self.strength * (2 * x - 1).sum(1).square() / x.shape[1] ** 0.5


class Watched(Callback):
    """Says who and where this process is: pid.RANK and phase.RANK in the run's folder.

    Args:
        seconds: that an iteration takes longer on rank 1 than on rank 0, on rank 2 than on rank 1, ...
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        folder, rank = Path(trainer.default_root_dir), trainer.global_rank
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"pid.{rank}").write_text(str(os.getpid()))
        self.phase = os.open(folder / f"phase.{rank}", os.O_RDWR | os.O_CREAT)
        likelihood.assess_module = self.within("likelihood", likelihood.assess_module)
        AtomicCheckpointIO.save_checkpoint = self.within("checkpoint", AtomicCheckpointIO.save_checkpoint)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.write("training")
        time.sleep(self.seconds * trainer.global_rank)

    def within(self, phase: str, function: Callable) -> Callable:
        """``function``, with the phase set while it runs."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.write(phase)
            result = function(*args, **kwargs)
            self.write("training")
            return result

        return wrapped

    def write(self, phase: str) -> None:
        os.pwrite(self.phase, f"{phase:<12}".encode(), 0)
