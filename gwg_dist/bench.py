"""Time the kernels against the step as published, alternately in one process.

python -m gwg_dist.bench            all rows
python -m gwg_dist.bench --quick    a few minutes
python -m gwg_dist.bench --only resnet

Both sides run on one thread (process CPU time) or on one GPU (wall time, synchronised), in alternating rounds, with the
same weights and chains; figures are medians over the rounds, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import gwg_dist
from gwg_dist.callbacks import console, make_progress, track
from gwg_dist.cli import Parser, errors_for_people, quiet
from gwg_dist.energies import Energy, MLPEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.energies.resnet import BasicBlock
from gwg_dist.errors import InputError
from gwg_dist.evaluation import ais
from gwg_dist.reference import Reference
from gwg_dist.runs import write_json
from gwg_dist.samplers import GWG, Info, Target
from gwg_dist.samplers.run import step_function
from gwg_dist.spaces import Binary

BACKENDS = {"eager": ("eager",), "compiled": ("compiled",), "both": ("eager", "compiled")}


class Row(NamedTuple):
    """Two functions that do the same amount of work, ``steps`` steps or temperatures each."""

    name: str
    ours: Callable[[], object]
    published: Callable[[], object]
    steps: int


class Timing(NamedTuple):
    """Milliseconds a step, and how many times faster ours is."""

    name: str
    ours_ms: float
    published_ms: float
    ratio: float
    ratios: list[float]


# -- the other side: Gibbs-With-Gradients with the evaluations that the published code makes ---------------------------


def published_energy(energy: Energy) -> Callable[[Tensor], Tensor]:
    """The same weights in plain layers: NCHW memory, Swish as x * sigmoid(x)."""
    if not isinstance(energy, ResNetEnergy):
        return energy
    plain = ResNetEnergy(energy.space, num_channels=energy.head.in_features, num_blocks=len(energy.blocks) - 2)
    plain.load_state_dict(energy.state_dict())
    plain.to(next(energy.parameters()).device).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]

    def forward(x: Tensor) -> Tensor:
        h = plain.stem(x.unflatten(1, plain.image_shape))
        for block in plain.blocks:
            assert isinstance(block, BasicBlock)
            shortcut = h
            if isinstance(block.shortcut, nn.Sequential):
                project = block.shortcut[1]
                assert isinstance(project, nn.Conv2d)
                shortcut = functional.conv2d(h, project.weight, project.bias, stride=2)
            h = _swish(block.second(_swish(block.first(h))) + shortcut)
        return plain.head(h.mean((2, 3)))[:, 0]

    return forward


def _swish(h: Tensor) -> Tensor:
    return h * torch.sigmoid(h)


class PublishedStep:
    """Four forwards, two backwards and a distribution object on each side (Grathwohl et al., 2021, algorithm 1)."""

    def __init__(self, energy: Energy, reference: Reference) -> None:
        self.energy = published_energy(energy)
        self.mean = reference.probs[:, 1].float()

    def log_prob(self, x: Tensor, beta: float = 1.0) -> Tensor:
        return torch.distributions.Bernoulli(probs=self.mean).log_prob(x).sum(1) - beta * self.energy(x)

    def proposal(self, x: Tensor, beta: float) -> torch.distributions.OneHotCategorical:
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.log_prob(x, beta).sum(), x)
        return torch.distributions.OneHotCategorical(logits=-(2 * x.detach() - 1) * grad / 2)

    def __call__(self, x: Tensor, beta: float = 1.0) -> Tensor:
        forward = self.proposal(x, beta)
        change = forward.sample()
        proposed = (1 - x) * change + x * (1 - change)
        backward = self.proposal(proposed, beta)
        log_accept = (
            self.log_prob(proposed, beta)
            - self.log_prob(x, beta)
            + backward.log_prob(change)
            - forward.log_prob(change)
        )
        accepted = (log_accept.exp() > torch.rand_like(log_accept)).float()[:, None]
        return (proposed * accepted + x * (1 - accepted)).detach()

    def chain(self, x: Tensor, num_steps: int) -> Tensor:
        for _ in range(num_steps):
            x = self(x)
        return x

    def ais(self, x: Tensor, num_temperatures: int) -> Tensor:
        """Two more forwards a temperature for the weights."""
        log_weights = torch.zeros(len(x), device=x.device)
        for t in range(num_temperatures):
            low, high = t / num_temperatures, (t + 1) / num_temperatures
            with torch.no_grad():  # the published loop keeps no graph here either
                log_weights += self.log_prob(x, high) - self.log_prob(x, low)
            x = self(x, high)
        return log_weights


# -- rows --------------------------------------------------------------------------------------------------------------


def make_rows(*, num_chains: int, quick: bool, backends: tuple[str, ...], device: torch.device) -> list[Row]:
    """Every row: a step of three energies on 28x28, and a temperature of AIS."""
    space = Binary((28, 28))
    torch.manual_seed(0)
    energies: dict[str, tuple[Energy, int]] = {
        "MLP 784-512-512-512-1": (MLPEnergy(space, num_hidden=512, num_layers=3), 20),
        "RBM 784 x 500": (RBMEnergy(space, num_hidden=500, scale=0.05), 20),
        "ResNet-64": (ResNetEnergy(space), 4),
    }
    rows = []
    generator = torch.Generator(device).manual_seed(0)
    reference = Reference(space).to(device)
    for name, (module, steps) in energies.items():
        energy = module.to(device)
        target, published = Target(energy, reference), PublishedStep(energy, reference)
        x = space.encode(reference.sample(num_chains, generator=generator))
        steps = steps if quick else 2 * steps
        for backend in backends:
            rows.append(_step_row(name, target, published, x, steps, generator, backend))
            if isinstance(energy, ResNetEnergy):
                rows.append(_ais_row(name, target, published, x, 2 * steps, generator, backend))
    return rows


def _step_row(
    name: str, target: Target, published: PublishedStep, x: Tensor, steps: int, generator: torch.Generator, backend: str
) -> Row:
    step, state = step_function(backend), GWG().init(target, x)
    return Row(
        f"step, {name}, {len(x)} chains, {backend}",
        lambda: _steps(step, target, state, steps, generator),
        lambda: published.chain(x, steps),
        steps,
    )


def _steps(
    step: Callable[..., tuple[Any, Info]], target: Target, state: Any, steps: int, generator: torch.Generator
) -> None:
    """The body of ``run_chain`` without its first evaluation, so that what is timed is a step."""
    sampler, beta = GWG(), torch.ones((), device=generator.device)
    with torch.no_grad():
        for _ in range(steps):
            state, _ = step(sampler, target, state, sampler.draw(state, generator), beta)


def _ais_row(
    name: str, target: Target, published: PublishedStep, x: Tensor, steps: int, generator: torch.Generator, backend: str
) -> Row:
    return Row(
        f"AIS temperature, {name}, {len(x)} chains, {backend}",
        lambda: ais(target, GWG(), generator=generator, num_chains=len(x), num_temperatures=steps, backend=backend),
        lambda: published.ais(x, steps),
        steps,
    )


def measure(row: Row, *, rounds: int, device: torch.device) -> Timing:
    """Warm both sides up, then alternate."""
    row.ours()
    row.published()
    ours, published = [], []
    for number in range(rounds):
        pair = [(ours, row.ours), (published, row.published)]
        for times, function in pair if number % 2 else reversed(pair):
            times.append(_timed(function, device) / row.steps * 1e3)
    ratios = [b / a for a, b in zip(ours, published, strict=True)]
    return Timing(row.name, statistics.median(ours), statistics.median(published), statistics.median(ratios), ratios)


def _timed(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def bench(
    *,
    quick: bool = False,
    only: str = "",
    num_chains: int = 100,
    rounds: int = 5,
    backend: str = "both",
    out: str = "bench.json",
    device: str | None = None,
) -> Path:
    """Print the table and write the figures as JSON with hardware and versions.

    Args:
        quick: half the steps and three rounds.
        only: rows whose name contains this, in any case.
        num_chains: chains in a batch.
        rounds: alternations.
        backend: ours: "eager", "compiled" or "both".
        out: the JSON file.
        device: "cpu" or "cuda"; a CUDA device where there is one.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    for name, value in (("num_chains", num_chains), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name} must be positive, got {value}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cpu":
        torch.set_num_threads(1)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = make_rows(num_chains=num_chains, quick=quick, backends=BACKENDS[backend], device=where)
    rows = [row for row in rows if only.lower() in row.name.lower()]
    if not rows:
        raise InputError(f"only: no row has {only!r} in its name")
    timings = []
    with make_progress() as progress, track(progress, "benchmark", len(rows)) as advance:
        for number, row in enumerate(rows):
            advance(number)
            timings.append(measure(row, rounds=3 if quick else rounds, device=where))
    machine = hardware(where)
    console.print(timing_table(timings, machine))
    path = Path(out)
    write_json({"machine": machine, "rows": [timing._asdict() for timing in timings]}, path)
    console.print(f"written to {path}", soft_wrap=True)
    return path


def hardware(device: torch.device) -> dict[str, str]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "gwg_dist": gwg_dist.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def timing_table(timings: list[Timing], machine: dict[str, str]) -> Table:
    """Milliseconds a step and ratios."""
    table = Table(title=", ".join(f"{key} {value}" for key, value in machine.items()), title_justify="left")
    table.add_column("work")
    for column in ("ours, ms", "published, ms", "ratio", "range"):
        table.add_column(column, justify="right")
    for row in timings:
        table.add_row(
            row.name, f"{row.ours_ms:.3f}", f"{row.published_ms:.3f}", f"[bold]{row.ratio:.2f}[/]",
            f"{min(row.ratios):.2f}-{max(row.ratios):.2f}",
        )  # fmt: skip
    return table


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    quiet()
    parser = Parser(prog="python -m gwg_dist.bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="half the steps and three rounds")
    parser.add_function_arguments(bench, skip={"quick"})
    config = parser.parse_args(sys.argv[1:] if args is None else args)
    with errors_for_people():
        bench(**config.as_dict())


if __name__ == "__main__":
    main()
