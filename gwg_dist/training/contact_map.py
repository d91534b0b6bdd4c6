"""The picture of couplings: scores on one side of the diagonal, strongest pairs over contacts on the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gwg_dist.tools.files import replacing
from gwg_dist.tools.terminal import say

INCHES, DPI = 6.0, 130


def draw_map(path: Path, scores: Tensor, pairs: Tensor, distances: Tensor | None, *, cutoff: float) -> bool:
    """Draw the scores above the diagonal and the strongest pairs below it; whether matplotlib is there to do it.

    Args:
        path: the .png.
        scores: ``(D, D)``.
        pairs: the strongest pairs i < j, ``(P, 2)``.
        distances: ``(D, D)`` in Å, whose contacts lie in grey under the pairs; None where they are not known.
        cutoff: sites closer than so many Å are in contact.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say("no picture: it needs matplotlib, pip install 'gwg-dist[plot]'")
        return False
    figure = Figure(figsize=(INCHES, INCHES), layout="constrained")
    panel = figure.subplots()
    num = len(scores)
    upper = torch.where(torch.ones(num, num).triu(1).bool(), scores, torch.nan)
    largest = float(scores.triu(1).max()) or 1.0
    image = panel.imshow(upper.T.numpy(), cmap="Blues", vmin=0, vmax=largest, origin="lower", interpolation="nearest")
    figure.colorbar(image, ax=panel, shrink=0.7, label="score")
    if distances is not None:
        first, second = ((distances.nan_to_num(torch.inf) < cutoff).triu(1).nonzero().T + 1).numpy()
        panel.plot(second, first, "s", color="0.8", markersize=max(250 / num, 1), label=f"below {cutoff:g} Å")
    first, second = (pairs.T + 1).numpy()
    true = np.ones(len(pairs), dtype=bool)
    if distances is not None:
        true = (distances[pairs[:, 0], pairs[:, 1]] < cutoff).numpy()
        panel.plot(second[~true], first[~true], ".", color="tab:red", markersize=3, label="strongest, no contact")
    panel.plot(second[true], first[true], ".", color="tab:blue", markersize=3, label="strongest pairs")
    image.set_extent((0.5, num + 0.5, 0.5, num + 0.5))
    panel.set(xlim=(0.5, num + 0.5), ylim=(0.5, num + 0.5), xlabel="site", ylabel="site", aspect="equal")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")
    return True
