"""What a run of a model of pairs of categories leaves at its end: how its samples compare with the family."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.evaluation.family import FamilyComparison, Statistics, compare_family
from gwg_dist.evaluation.gaps import gap_blocks
from gwg_dist.module import EBMModule
from gwg_dist.spaces import Binary
from gwg_dist.tools.files import replacing, write_json
from gwg_dist.tools.seeding import fixed_generator
from gwg_dist.tools.terminal import console, say

NUMBERS, PICTURE = "family.json", "family.png"
MAX_TRAIN, MAX_OTHERS = 10_000, 2_000
MAX_NUMBERS = 4096  # of a point, D K: beyond, tables of pairs are too large
MAX_DOTS = 20_000
DPI = 120
GAP = "-"


def write_family(module: EBMModule, data: DiscreteData, checkpoint: dict[str, Any], folder: Path) -> None:
    """Write family.json and family.png where the model is one of pairs of categories, and the run has chains.

    Args:
        module: module of the run.
        data: its data.
        checkpoint: contents of the checkpoint that holds the chains.
        folder: folder of the run.
    """
    space, packed = module.space, checkpoint["chains"]["packed"]
    if packed is None or isinstance(space, Binary) or module.energy.pair_weights() is None:
        return
    if space.num_sites < 2 or space.num_sites * space.width > MAX_NUMBERS:
        return
    samples = space.unpack(some(module.chains.of_model(packed), MAX_OTHERS))
    train, weights = data.splits.parts["train"]
    validation, test = data.splits.validation, data.splits.test
    with console.status("samples beside the data"):
        found = compare_family(
            some(train, MAX_TRAIN),
            samples,
            some(torch.cat([validation, test]), MAX_OTHERS),
            space.num_categories,
            weights=None if weights is None else some(weights, MAX_TRAIN),
        )
    blocks = blocks_of(data, samples)
    write_json(folder / NUMBERS, {**numbers_of(found), "blocks of gaps": blocks})
    say(summary(found))
    for block in blocks:
        say("gaps at sites {} to {}: {:.1%} of training points, {:.1%} of samples".format(*block.values()))
    if draw_family(folder / PICTURE, found):
        say(f"picture of samples beside the data: {folder / PICTURE}")


def blocks_of(data: DiscreteData, samples: Tensor) -> list[dict[str, Any]]:
    """The first and the last site of every block of gaps, and the shares of training points and samples in it."""
    names = data.category_names()
    if not data.is_aligned or GAP not in names[0]:
        return []
    gap, sites, (train, weights) = names[0].index(GAP), data.site_names(), data.splits.parts["train"]
    return [
        {
            "first": sites[block.first], "last": sites[block.last],
            "training": block.share(train, gap, weights), "samples": block.share(samples, gap),
        }
        for block in gap_blocks(train, gap, weights)
    ]  # fmt: skip


def some(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, always the same ones."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=fixed_generator("some rows"))[:most].sort().values]


def statistics_by_name(found: FamilyComparison) -> dict[str, Statistics]:
    """Those that there are."""
    named = {"one site": found.one, "two sites": found.two, "three sites": found.three}
    return {name: statistics for name, statistics in named.items() if statistics is not None}


def numbers_of(found: FamilyComparison) -> dict[str, Any]:
    """What family.json holds; a number that is not finite becomes null."""
    numbers: dict[str, Any] = {}
    for name, statistics in statistics_by_name(found).items():
        numbers[name] = {key: finite(value) for key, value in statistics.agreement._asdict().items()}
    numbers["two sites"]["pearson held out"] = finite(found.held_out)
    for name, distances in (("samples", found.nearest_samples), ("held out", found.nearest_held_out)):
        numbers[f"nearest training point of {name}"] = finite(float(distances.median())) if len(distances) else None
    return numbers


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summary(found: FamilyComparison) -> str:
    """One line: Pearson's correlations, and how far samples and points held out are from the training points."""
    pearson = ", ".join(f"{name} {s.agreement.pearson:.3f}" for name, s in statistics_by_name(found).items())
    near = f"{float(found.nearest_samples.median()):.2f}"
    if len(found.nearest_held_out):
        near += f" (held out: {float(found.nearest_held_out.median()):.2f})"
    return f"samples beside the data: Pearson {pearson}; sites that differ from the nearest training point: {near}"


def draw_family(path: Path, found: FamilyComparison) -> bool:
    """Draw statistics, nearest training points and principal axes; whether matplotlib is there to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say("no picture: it needs matplotlib, pip install 'gwg-dist[plot]'")
        return False
    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = iter(figure.subplots(2, 3).flat)
    for name, statistics in statistics_by_name(found).items():
        panel = next(panels)
        data, samples = (some(side, MAX_DOTS).numpy() for side in statistics)
        low, high = min(data.min(), samples.min()), max(data.max(), samples.max())
        panel.plot([low, high], [low, high], color="0.7", linewidth=1)
        panel.plot(data, samples, ".", markersize=2, alpha=0.3, rasterized=True)
        pearson, slope = statistics.agreement
        panel.set(title=f"{name}: Pearson {pearson:.3f}, slope {slope:.2f}", xlabel="training", ylabel="samples")
    panel = next(panels)
    sides = {"samples": found.nearest_samples, "held out": found.nearest_held_out}
    for name, distances in sides.items():
        if len(distances):
            panel.hist(distances.numpy(), bins=30, range=(0, 1), density=True, alpha=0.6, label=name)
    panel.set(title="sites that differ from the nearest training point", xlabel="share of sites")
    panel.legend()
    lines = torch.cat([found.axes_train, found.axes_samples]).numpy()
    limits = {"xlim": (lines[:, 0].min(), lines[:, 0].max()), "ylim": (lines[:, 1].min(), lines[:, 1].max())}
    for name, points in (("training", found.axes_train), ("samples", found.axes_samples)):
        panel = next(panels)
        dots = some(points, MAX_OTHERS).numpy()
        panel.plot(dots[:, 0], dots[:, 1], ".", markersize=3, alpha=0.4, color="0.3" if name == "training" else "C0")
        panel.set(title=f"{name} along the data's first two principal axes", **limits)
    for panel in panels:
        panel.remove()
    with replacing(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")
    return True
