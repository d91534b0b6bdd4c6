"""What a second thread gives the kernels in C: the same steps of 1,000 chains by one thread and by two, on the wall.

The randomness of a step is drawn before. The two thread counts take turns in one process. A machine whose cores are
busy shows what its neighbours do.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from rich.table import Table

from gwg_dist.bench.rows import IMAGE, Model
from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, PottsEnergy, RBMEnergy
from gwg_dist.samplers import DMALA, GWG, PAS, BlockGibbs, Sampler, plan_chains
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.terminal import console

CHAINS = 1000
COUNTS = (1, 2)


class Work(NamedTuple):
    """A kernel on a model, and its steps in a round."""

    name: str
    make: Callable[[], Energy]
    sampler: Sampler
    steps: int


def works() -> list[Work]:
    """The kernels in C on models of pairs and of hidden units."""
    torus = ("Ising torus 40x40", lambda: IsingTorusEnergy(Binary((40, 40)), sigma=0.15))
    dense = ("dense Ising, 1600 sites", lambda: IsingEnergy(Binary(1600), scale=0.01))
    potts = ("dense Potts, 136 x 5", lambda: PottsEnergy(Categorical(136, 5), scale=0.1))
    rbm = ("RBM 784 x 500", lambda: RBMEnergy(IMAGE, num_hidden=500, scale=0.05))
    return [
        Work(*torus, GWG(), 300), Work(*dense, GWG(), 40), Work(*potts, GWG(), 60), Work(*rbm, GWG(), 20),
        Work(*torus, PAS(), 20), Work(*rbm, PAS(), 20),
        Work(*torus, DMALA(), 10), Work(*dense, DMALA(), 4), Work(*rbm, DMALA(), 10),
        Work(*torus, BlockGibbs(), 10), Work(*potts, BlockGibbs(), 2),
    ]  # fmt: skip


def thread_study(*, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Time everything with one thread and with two; print a table and return its rows."""
    table = Table(title=f"{CHAINS:,} chains, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for column in ("kernel", "model", "one thread, ms", "two threads, ms", "ratio", "range"):
        table.add_column(column)
    found = []
    for work in works()[: 1 if quick else None]:
        times = timed(work, rounds=3 if quick else rounds)
        one, two = (statistics.median(times[count]) for count in COUNTS)
        ratios = [a / b for a, b in zip(*times.values(), strict=True)]
        kernel = type(work.sampler).__name__
        found.append({"kernel": kernel, "model": work.name, "one_ms": one, "two_ms": two, "ratios": ratios})
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        table.add_row(kernel, work.name, f"{one:.3f}", f"{two:.3f}", f"[bold]{middle:.2f}[/]", f"{low:.2f}-{high:.2f}")
    console.print(table)
    return found


def timed(work: Work, *, rounds: int) -> dict[int, list[float]]:
    """Milliseconds a step by the number of threads, a number a round; a round before the first warms up."""
    before = torch.get_num_threads()
    model, beta = Model(work.make(), chains=CHAINS, device=torch.device("cpu")), torch.ones(())
    times: dict[int, list[float]] = {count: [] for count in COUNTS}
    try:
        with torch.no_grad():
            sides = {}
            for count in COUNTS:  # a plan has room for as many threads as there are when it is made
                torch.set_num_threads(count)
                kernel, target = plan_chains(work.sampler, model.target, model.x, beta=beta)
                sides[count] = kernel, target, kernel.init(target, model.x, beta)
            for number in range(rounds + 1):
                for count, (kernel, target, state) in sides.items():
                    torch.set_num_threads(count)
                    noise = kernel.draw(state, model.generator)
                    began = time.perf_counter()
                    for _ in range(work.steps):
                        state, _ = kernel.step(target, state, noise)
                    taken = (time.perf_counter() - began) / work.steps
                    sides[count] = kernel, target, state
                    times[count] += [taken * 1e3] if number else []
    finally:
        torch.set_num_threads(before)
    return times
