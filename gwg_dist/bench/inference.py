"""Couplings of Ising models learnt from samples, by kernels: the protocol of Grathwohl et al. (2021, section 6.3).

2,000 samples; a dense J from 0 by Adam at 1e-3 with an l1 penalty; batches and chains of 256, which persist. The score
is -log of the RMSE over all D² entries of J, by iterations and by seconds of CPU time. Kernels with something to tune
are tuned as they go, over the first half.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from rich.table import Table

from gwg_dist.batch import Batch
from gwg_dist.chains import ChainBuffer
from gwg_dist.data import ModelSamples
from gwg_dist.energies import ErdosRenyi, IsingEnergy, IsingGraphEnergy, Lattice
from gwg_dist.evaluation import coupling_bound
from gwg_dist.objectives import ContrastiveDivergence
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, PAS, Gibbs, Sampler, Target, run_chain
from gwg_dist.spaces import Binary
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import console

SIGMA, SAMPLES, SIZE, RATE = 0.1, 2000, 256, 1e-3
SWEEPS = 300  # of the chains that make the samples
BOUND_UP_TO, BOUND_SAMPLES = 100, 40_000  # sites up to which the bound of a dense J is worked out, and from what
GRAPHS = {
    "torus 10x10": ((10, 10), Lattice(), 400),
    "ER 100, degree 2": ((100,), ErdosRenyi(degree=2), 400),
    "ER 200, degree 4": ((200,), ErdosRenyi(degree=4), 400),
    "torus 25x25": ((25, 25), Lattice(), 200),
    "torus 50x50": ((50, 50), Lattice(), 150),
}  # shape, edges, iterations
KERNELS: dict[str, tuple[Sampler, tuple[int, ...]]] = {
    "Gibbs": (Gibbs(), (50, 10)),
    "GWG": (GWG(), (50, 10)),
    "PAS": (PAS(), (10,)),
    "DMALA": (DMALA(), (10, 2)),
}  # and steps an iteration


class Learnt(NamedTuple):
    """One run.

    Args:
        graph: name in ``GRAPHS``.
        kernel: name in ``KERNELS``.
        steps: steps an iteration.
        score: -log RMSE of J after the last iteration.
        first: the iteration at which the score first was within 0.05 of that.
        first_seconds: process CPU time until then.
        seconds: process CPU time of all iterations.
        accepted: mean acceptance of the last iteration.
    """

    graph: str
    kernel: str
    steps: int
    score: float
    first: int
    first_seconds: float
    seconds: float
    accepted: float


def samples_of(graph: str) -> ModelSamples:
    """Samples of the model J = σA on a graph of ``GRAPHS``."""
    shape, edges, _ = GRAPHS[graph]
    return ModelSamples(
        energy=lambda space: IsingGraphEnergy(space, edges=edges, coupling=2 * SIGMA),
        space=Binary(shape), batch_size=SIZE, num_train=SAMPLES, num_steps=SWEEPS,
    )  # fmt: skip


def learn(
    data: ModelSamples, sampler: Sampler, steps: int, *, iterations: int, weight_l1: float = 0.1, seed: int = 0
) -> Iterator[tuple[float, float, float]]:
    """After each iteration -log RMSE of J, CPU seconds until then, and the mean acceptance."""
    true = data.coupling
    assert true is not None
    energy = IsingEnergy(data.space)
    target, objective = Target(energy), ContrastiveDivergence(weight_l1=weight_l1)
    generator = make_generator(seed, "bench inference")
    chains = ChainBuffer(size=SIZE, init="uniform")
    chains.setup(data.space, Reference(data.space), data.splits.train, generator=generator)
    optimizer = torch.optim.Adam(energy.parameters(), lr=RATE)
    spent = 0.0
    for iteration in range(iterations):
        started = time.process_time()
        codes = data.batch(iteration).codes
        start = chains.start(codes, generator=generator)
        chain = run_chain(sampler, target, target.encode(start.codes), num_steps=steps, generator=generator)
        chains.keep(start, data.space.decode(chain.x))
        optimizer.zero_grad()
        objective(target, Batch(codes, torch.ones(len(codes))), chain.x, generator=generator).loss.backward()
        optimizer.step()
        accepted = float(chain.accept_prob.mean())
        if sampler.tunable is not None and iteration < iterations // 2:
            adapted = sampler.adapted(accepted, gain=0.3)
            sampler = adapted if adapted.refusal(target) is None else sampler  # a path is at most all sites long
        spent += time.process_time() - started
        rmse = float((energy.coupling.detach() - true).square().mean().sqrt())
        yield -math.log(rmse), spent, accepted


def run(graph: str, kernel: str, steps: int, data: ModelSamples, *, iterations: int | None = None) -> Learnt:
    """One run, with when it came near its end."""
    path = list(learn(data, KERNELS[kernel][0], steps, iterations=iterations or GRAPHS[graph][2]))
    score, seconds, accepted = path[-1]
    first = next(i for i, (reached, _, _) in enumerate(path) if reached > score - 0.05)
    return Learnt(graph, kernel, steps, score, first + 1, path[first][1], seconds, accepted)


def bounds(data: ModelSamples) -> tuple[float | None, float | None]:
    """-log of the Cramér-Rao bound for a dense J, and where the graph is known; None where it is not worked out."""
    num_sites, true = data.space.num_sites, data.coupling
    if num_sites > BOUND_UP_TO:
        return None, None
    many = ModelSamples(energy=lambda _: data.energy, space=data.space, num_train=BOUND_SAMPLES, num_steps=SWEEPS)
    codes = many.splits.train
    return tuple(-math.log(coupling_bound(codes, SAMPLES, known=known)) for known in (None, true))  # pyright: ignore


def inference(*, quick: bool = False) -> list[Learnt]:
    """Every graph with every kernel; one graph, a few iterations where quick. Prints rows as they come."""
    logging.getLogger("gwg_dist").setLevel(logging.WARNING)  # not a line for each kernel as it is tuned
    learnt: list[Learnt] = []
    for graph in list(GRAPHS)[: 1 if quick else None]:
        data = samples_of(graph)
        if not quick:
            dense, known = bounds(data)
            if dense is not None and known is not None:
                console.print(f"{graph}: Cramér-Rao bound {dense:.2f}, where the graph is known {known:.2f}")
        for kernel, (_, choices) in KERNELS.items():
            for steps in choices:
                learnt.append(run(graph, kernel, steps, data, iterations=10 if quick else None))
                last = learnt[-1]
                console.print(f"{graph}, {kernel}, {steps} steps: {last.score:.2f} after {last.seconds:.0f} s of CPU")
    console.print(table_of(learnt))
    return learnt


def table_of(learnt: list[Learnt]) -> Table:
    """The table of all runs."""
    table = Table("graph", "kernel", "steps", "-log RMSE", "iterations", "CPU s", "of all", "accept")
    for row in learnt:
        table.add_row(row.graph, row.kernel, str(row.steps), f"{row.score:.2f}", str(row.first),
                      f"{row.first_seconds:.1f}", f"{row.seconds:.1f}", f"{row.accepted:.2f}")  # fmt: skip
    return table
