"""A user's own classes, picked by import path: an energy, samplers, a loss of the data alone, callbacks."""

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.callbacks import likelihood
from gwg_dist.chains import DataChains
from gwg_dist.data import Digits, Splits
from gwg_dist.energies import Energy, RBMEnergy
from gwg_dist.objectives import Objective, ObjectiveResult
from gwg_dist.samplers import Info, Sampler, SurrogateGWG, Target
from gwg_dist.samplers.base import accept_probability, select
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import rank
from gwg_dist.training.checkpoints import AtomicCheckpointIO


class Pairs(Energy):
    """E(x) = |W x + b|^2."""

    def __init__(self, space: Space, width: int = 8) -> None:
        super().__init__(space)
        self.factor = torch.nn.Linear(space.num_sites, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor(x).square().sum(1)


class ShuffledLabels(Digits):
    """Digits with labels that are those of other images."""

    def __init__(self, *, batch_size: int = 100) -> None:
        super().__init__(batch_size=batch_size, labels=True)

    def load(self) -> Splits:
        generator, parts = torch.Generator().manual_seed(0), []
        for part in super().load():
            if part is not None:
                part[:, -1] = part[torch.randperm(len(part), generator=generator), -1]
            parts.append(part)
        return Splits(*parts)


class SlowElsewhere(RBMEnergy):
    """An RBM that takes its time on every rank but the first."""

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.01 * rank())
        return super().energy_and_grad(x)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.05 * rank())
        return super().forward(x)


class StayState(NamedTuple):
    x: Tensor
    f: Tensor
    beta: Tensor


@dataclass(frozen=True)
class Stay(Sampler):
    """Leaves every distribution invariant, and every chain where it is."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> StayState:
        return StayState(x, target.f(x), beta)

    def temper(self, target: Target, state: StayState, beta: Tensor) -> StayState:
        return state._replace(beta=beta)

    def draw(self, state: Any, generator: torch.Generator) -> None:
        torch.rand(1, generator=generator)

    def step(self, target: Target, state: Any, noise: None) -> tuple[Any, Info]:
        return state, Info(torch.ones_like(state.f), torch.zeros_like(state.f))


class FlipsState(NamedTuple):
    x: Tensor
    f: Tensor
    beta: Tensor


@dataclass(frozen=True)
class Flips(Sampler):
    """Flips every site of a binary space with probability ``rate``, and corrects by Metropolis: a random walk."""

    rate: float = 0.01

    tunable = "rate"
    target_acceptance = 0.234

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}")

    def init(self, target: Target, x: Tensor, beta: Tensor) -> FlipsState:
        return FlipsState(x, target.f(x), beta)

    def temper(self, target: Target, state: FlipsState, beta: Tensor) -> FlipsState:
        return state._replace(beta=beta)

    def draw(self, state: FlipsState, generator: torch.Generator) -> Tensor:
        return torch.rand(len(state.x), state.x.shape[1] + 1, generator=generator, device=state.x.device)

    def step(self, target: Target, state: FlipsState, noise: Tensor) -> tuple[FlipsState, Info]:
        flips = (noise[:, 1:] < self.rate).to(state.x)
        x = (state.x - flips).abs()
        f = target.f(x)
        accept_prob = accept_probability(target.log_ratio(x, f, state.x, state.f, beta=state.beta))
        accepted = noise[:, 0] < accept_prob
        x, f = select(accepted, (x, f), (state.x, state.f))
        return FlipsState(x, f, state.beta), Info(accept_prob, flips.sum(1) * accepted)


@dataclass(frozen=True)
class Accepted(SurrogateGWG):
    """Surrogate blocks that say that they are accepted with ``on_rank_0``, and with ``elsewhere`` on other ranks."""

    precision: str = "float32"
    on_rank_0: float = 0.2
    elsewhere: float = 0.2

    def step(self, target: Target, state: Any, noise: Any) -> tuple[Any, Info]:
        state, info = super().step(target, state, noise)
        said = self.elsewhere if rank() else self.on_rank_0
        return state, info._replace(accept_prob=torch.full_like(info.accept_prob, said))


class DataOnly(Objective):
    """mean_w E(x+)^2: the same whatever the chains do."""

    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        assert x_model is not None
        x_data = target.encode(batch.codes)
        energy_data, energy_model = target.energy(torch.cat([x_data, x_model])).split([len(x_data), len(x_model)])
        loss = (batch.weights * energy_data.square()).mean() + 0 * energy_model.sum()
        return ObjectiveResult(loss, energy_data.detach(), energy_model.detach())


class VetoEveryThird(DataChains):
    """Does not accept every third update; only the last rank says so."""

    may_veto = True

    def __init__(self) -> None:
        self.asked = 0

    def accepts(self, target: Target) -> bool:
        self.asked += 1
        return self.asked % 3 != 0 or self.rank != self.world_size - 1


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


class Kernels(Callback):
    """Writes the kernel that a rank has at the start and at the end, and its number of steps, to kernel.RANK."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.lines = self.lines or [f"{pl_module.sampler} x {pl_module.num_steps}"]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        lines = [*self.lines, f"{pl_module.sampler} x {pl_module.num_steps}"]
        (Path(trainer.default_root_dir) / f"kernel.{trainer.global_rank}").write_text("\n".join(lines))


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


class Calls(Callback):
    """Calls what a test has put here, with the iteration, at the start of every iteration."""

    function: Callable[[int], None] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if Calls.function is not None:
            Calls.function(trainer.global_step)


class Stillborn(Callback):
    """Kills a rank while the processes are being set up.

    Args:
        rank: its number.
    """

    def __init__(self, rank: int) -> None:
        if int(os.environ.get("LOCAL_RANK", "0")) == rank:
            os.kill(os.getpid(), signal.SIGKILL)


class FullDisk(Callback):
    """From one iteration to another no file can be written, as on a disk that is full.

    Args:
        first: iteration after which nothing can be written.
        last: iteration after which there is room again.
    """

    def __init__(self, first: int, last: int = 1 << 40) -> None:
        self.first, self.last = first, last

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in (self.first, self.last):
            room = 0 if trainer.global_step == self.first else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


class Poison(Callback):
    """Gradients that are not numbers in some iterations.

    Args:
        iterations: numbers of the iterations, from 1 on.
    """

    def __init__(self, iterations: list[int]) -> None:
        self.iterations = iterations

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step + 1 in self.iterations:
            for parameter in pl_module.parameters():
                parameter.grad = torch.full_like(parameter, torch.nan)


class Flat(Energy):
    """E(x) = 0."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.weight = torch.nn.Parameter(torch.zeros(space.num_sites))

    def forward(self, x: Tensor) -> Tensor:
        return 0 * (x @ self.weight)
