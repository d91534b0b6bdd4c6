"""A split of sequences by homology: parts that are held out are made of whole clusters."""

from __future__ import annotations

import numpy as np
import torch

from gwg_dist.tools.seeding import fixed_generator

ENOUGH = 0.5  # share of its size that a part must reach
LARGEST = 0.25  # share of a part that one cluster may be


def whole_clusters(clusters: np.ndarray, sizes: tuple[int, int]) -> np.ndarray | None:
    """A part for each point: 1 and 2 of about ``sizes`` points, made of whole clusters, and 0, the rest.

    Clusters come in a fixed random order, and each goes to the first part that has room for it. The largest stay in
    part 0: a cluster that would be more than a quarter of a part is not held out.

    Args:
        clusters: the number of the cluster of each point, ``(N,)`` from 0.
        sizes: points wanted in part 1 and in part 2.

    Returns:
        ``(N,)`` int64; None where a part would have less than half of its size.
    """
    members = np.bincount(clusters).tolist()
    order = torch.randperm(len(members), generator=fixed_generator("clusters")).numpy()
    part = np.zeros(len(members), dtype=np.int64)
    room, most = list(sizes), [max(round(LARGEST * size), 1) for size in sizes]
    for cluster in order.tolist():
        place = next((place for place in (0, 1) if members[cluster] <= min(room[place], most[place])), None)
        if place is not None:
            part[cluster] = place + 1
            room[place] -= members[cluster]
        if not any(room):
            break
    if any(left > (1 - ENOUGH) * size for left, size in zip(room, sizes, strict=True)):
        return None
    return part[clusters]
