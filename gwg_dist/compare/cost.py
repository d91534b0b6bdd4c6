"""What a step of a kernel costs: evaluations of the model, counted while it runs, and seconds."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gwg_dist.samplers import Kernel, Sampler, Target, run_chain

COUNTED_STEPS = 4
LEAST_SECONDS = 0.1


class Cost(NamedTuple):
    """Evaluations a step and a chain; None where the kernel reads conditionals in closed form.

    Args:
        gradients: of f with its gradient.
        values: of f alone.
    """

    gradients: float | None
    values: float | None


class Counted(nn.Module):
    """An energy that counts the points that it sees, those with a gradient apart.

    Args:
        energy: the energy; x -> E(x), ``(B,)``.
    """

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy
        self.gradients = self.values = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.gradients += len(x)
        else:
            self.values += len(x)
        return self.energy(x)


def cost_of(kernel: Sampler, target: Target, x: Tensor, *, generator: torch.Generator) -> Cost:
    """The evaluations of a few generic steps from ``x``, without fast paths, which save time and not evaluations."""
    counted = Counted(target.energy)  # pyright: ignore[reportArgumentType]  # energies of problems are modules
    plain = Target(counted, target.reference, space=target.space).plain()
    if kernel.refusal(plain) is not None:
        return Cost(None, None)
    begun = (0, 0)
    with torch.no_grad():
        state = kernel.init(plain, x, torch.ones((), dtype=x.dtype, device=x.device))
        begun = counted.gradients, counted.values
        for _ in range(COUNTED_STEPS):
            state, _ = kernel.step(plain, state, kernel.draw(state, generator))
    counts = (counted.gradients - begun[0], counted.values - begun[1])
    gradients, values = (count / (COUNTED_STEPS * len(x)) for count in counts)
    return Cost(gradients, values)


def seconds_of_step(kernel: Kernel, target: Target, x: Tensor, *, generator: torch.Generator, rounds: int = 5) -> float:
    """Seconds of a step of all chains at ``x`` together: of this process's CPUs, or on the wall with a GPU.

    The median of rounds of at least a tenth of a second each; what a run of no steps takes is not counted.
    """

    def seconds(steps: int) -> float:
        began = now(x.device)
        run_chain(kernel, target, x, num_steps=steps, generator=generator)
        return now(x.device) - began

    steps = 8
    seconds(steps)
    while (taken := seconds(steps)) < LEAST_SECONDS:
        steps = int(steps * max(2.0, min(1.2 * LEAST_SECONDS / max(taken, 1e-6), 50.0)))
    found = sorted((seconds(steps) - seconds(0)) / steps for _ in range(rounds))
    return max(found[rounds // 2], 1e-12)


def now(device: torch.device) -> float:
    """The clock that work on ``device`` is timed by, seconds."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
