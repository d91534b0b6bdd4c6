"""How the time of a step grows with the number of chains, sites and categories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gwg_dist.bench.measure import timed
from gwg_dist.bench.rows import Model, Stepper
from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.samplers import GWG
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import console, make_progress, track

IMAGE = Binary((28, 28))
ROUNDS = 3


def scaling(device: torch.device, *, quick: bool, out: Path) -> list[dict[str, Any]]:
    """Time every point, draw ``scaling.png`` beside ``out``, and return the points.

    Raises:
        InputError: where matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise InputError("the plot needs matplotlib: pip install 'gwg-dist[plot]'") from None
    todo = points(quick=quick, cuda=device.type == "cuda")
    found: list[dict[str, Any]] = []
    with make_progress() as progress, track(progress, "scaling", len(todo)) as advance:
        for number, (axis, name, value, chains, energy) in enumerate(todo):
            advance(number)
            ms = step_ms(energy, chains, device)
            found.append({"axis": axis, "energy": name, "value": value, "chains": chains, "ms": ms})
    axes = list(dict.fromkeys(point["axis"] for point in found))
    figure, panels = plt.subplots(1, len(axes), figsize=(4.2 * len(axes), 3.4), layout="constrained")
    for panel, axis in zip(panels, axes, strict=True):
        here = [point for point in found if point["axis"] == axis]
        for name in dict.fromkeys(point["energy"] for point in here):
            line = [point for point in here if point["energy"] == name]
            panel.loglog([point["value"] for point in line], [point["ms"] for point in line], marker="o", label=name)
        values = sorted({point["value"] for point in here})
        panel.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
        panel.xaxis.minorticks_off()
        panel.set_xlabel(axis)
        panel.set_ylabel("ms a step")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    picture = out.with_name("scaling.png")
    figure.savefig(picture, dpi=120)
    plt.close(figure)
    console.print(f"drawn to {picture}", soft_wrap=True)
    return found


def points(*, quick: bool, cuda: bool) -> list[tuple[str, str, int, int, Energy]]:
    """(axis, energy, value on the axis, chains, the energy itself)."""
    torch.manual_seed(0)
    chains = [10, 30, 100, 300, 1000] + ([3000, 10_000, 30_000] if cuda else [])
    lattices = [10, 20, 40, 80, 160]
    dense = [100, 200, 400, 800, 1600]
    categories = [2, 5, 10, 20, 40]
    if quick:
        chains, lattices, dense, categories = chains[::2], lattices[::2], dense[::2], categories[::2]
    rbm, mlp = RBMEnergy(IMAGE, num_hidden=500, scale=0.05), MLPEnergy(IMAGE, num_hidden=512, num_layers=3)
    torus = IsingTorusEnergy(Binary((40, 40)), sigma=0.15)
    todo: list[tuple[str, str, int, int, Energy]] = []
    for name, energy in (("RBM 784 x 500", rbm), ("MLP 784-512-512-512-1", mlp), ("torus 40x40", torus)):
        todo += [("chains", name, num, num, energy) for num in chains]
    todo += [("sites", "torus", n * n, 100, IsingTorusEnergy(Binary((n, n)), sigma=0.15)) for n in lattices]
    todo += [("sites", "dense Ising", n, 100, IsingEnergy(Binary(n), scale=0.01)) for n in dense]
    todo += [("categories", "dense Potts, 50 sites", k, 100, PottsEnergy(Categorical(50, k))) for k in categories]
    return todo


def step_ms(energy: Energy, chains: int, device: torch.device) -> float:
    """The best of a few rounds of about a quarter of a second."""
    model = Model(energy, chains=chains, device=device)
    stepper = Stepper(model, GWG(), 3, "auto")
    stepper.run()
    once = max(timed(stepper.run, device), 1e-5) / 3
    stepper.steps = max(3, min(2000, int(0.25 / once)))
    return min(timed(stepper.run, device) for _ in range(ROUNDS)) / stepper.steps * 1e3
