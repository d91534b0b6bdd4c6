"""Weak scaling: the same work a process, on one process and on two (or as many as there are GPUs)."""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.table import Table
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from gwg_dist.batch import Batch
from gwg_dist.energies import ResNetEnergy
from gwg_dist.objectives import ContrastiveDivergence
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target, run_chain
from gwg_dist.spaces import Binary
from gwg_dist.tools.terminal import console

SPACE = Binary((14, 14))
CHAINS, STEPS = 50, 10


def weak_scaling(*, quick: bool) -> dict[str, Any]:
    """Seconds of a PCD iteration on 1 and on N processes at equal work each, and of its all-reduce alone.

    gloo with a core each, or NCCL with a GPU each; one after the other, so that neither disturbs the other.
    """
    gpus = torch.cuda.device_count()
    num = gpus if gpus > 1 else 2
    if gpus == 1:
        console.print("one GPU: two processes are timed on the CPU, over gloo")
    backend = "nccl" if gpus > 1 else "gloo"
    iterations = 10 if quick else 30
    alone = _run(1, backend, iterations)
    together = _run(num, backend, iterations)
    result = {
        "backend": backend,
        "processes": num,
        "iteration_s_one": alone["iteration_s"],
        "iteration_s_all": together["iteration_s"],
        "all_reduce_s": together["all_reduce_s"],
        "efficiency": alone["iteration_s"] / together["iteration_s"],
    }
    table = Table(title=f"weak scaling over {backend}, {CHAINS} chains and {STEPS} steps a process")
    for column in ("processes", "iteration, ms", "all-reduce, ms", "everything else, ms", "efficiency"):
        table.add_column(column, justify="right")
    for count, figures in ((1, alone), (num, together)):
        iteration, reduce = figures["iteration_s"] * 1e3, figures["all_reduce_s"] * 1e3
        table.add_row(
            str(count), f"{iteration:.1f}", f"{reduce:.2f}", f"{iteration - reduce:.1f}",
            f"{alone['iteration_s'] / figures['iteration_s']:.3f}",
        )  # fmt: skip
    console.print(table)
    return result


def _run(num: int, backend: str, iterations: int) -> dict[str, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        spawn(_work, (num, backend, port, iterations, answer), nprocs=num)
        return json.loads(answer.read_text())


def _work(rank: int, num: int, backend: str, port: int, iterations: int, answer: Path) -> None:
    if backend == "gloo" and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1 - rank % len(cores)]})
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num)
    torch.manual_seed(0)
    energy = ResNetEnergy(SPACE, num_channels=16).to(device)
    reference = Reference(SPACE).to(device)
    target, objective = Target(energy, reference), ContrastiveDivergence()
    model = DistributedDataParallel(energy, device_ids=[rank] if device.type == "cuda" else None)
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-5)
    generator = torch.Generator(device).manual_seed(rank)
    codes, start = (reference.sample(CHAINS, generator=generator) for _ in range(2))
    batch, x = Batch(codes, torch.ones(CHAINS, device=device)), SPACE.encode(start)
    learned = Target(model, reference, space=SPACE)  # its gradients are averaged over processes
    gradient = torch.zeros(sum(parameter.numel() for parameter in energy.parameters()), device=device)
    times, reduces = [], []
    for _ in range(iterations + 3):
        dist.barrier()
        start = time.perf_counter()
        x = run_chain(GWG(), target, x, num_steps=STEPS, generator=generator).x
        optimizer.zero_grad()
        objective(learned, batch, x, generator=generator).loss.backward()
        optimizer.step()
        times.append(_since(start, device))
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(gradient)
        reduces.append(_since(start, device))
    if rank == 0:
        figures = {"iteration_s": statistics.median(times[3:]), "all_reduce_s": statistics.median(reduces[3:])}
        answer.write_text(json.dumps(figures))
    dist.destroy_process_group()


def _since(start: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
