"""Which sites of a model see each other, and a colouring by which those of one colour do not."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional


class Graph(nn.Module):
    """Which pairs of sites see each other, with a colour for each site; any graph.

    Args:
        num_sites: D.
        edges: ``(M, 2)`` integers, every pair of different sites at most once, in either order.

    Attributes:
        neighbours: ``(D, n)`` int64, n the largest degree: the sites that each site sees. A site of lower degree has
            other sites in the places left over, each once; couplings there are zero.
        edge: ``(D, n)`` int64: the row of ``edges``, M in places left over.
        turned: ``(D, n)`` booleans: whether the site is the second of that row.
        colour: ``(D,)`` int64; no two sites that see each other have the same.

    Raises:
        ValueError: another shape, sites outside 0..D-1, a site paired with itself, a pair that is there twice.
    """

    neighbours: Tensor
    edge: Tensor
    turned: Tensor
    colour: Tensor

    def __init__(self, num_sites: int, edges: Tensor) -> None:
        super().__init__()
        edges = _checked_edges(num_sites, edges)
        ends = torch.cat([edges, edges.flip(1)])
        order = ends[:, 0].argsort(stable=True)
        site, other = ends[order].T
        degree = torch.bincount(site, minlength=num_sites)
        place = torch.arange(len(site)) - (degree.cumsum(0) - degree)[site]
        width = int(degree.max()) if len(edges) else 0
        neighbours = torch.full((num_sites, width), -1)
        edge, turned = torch.full((num_sites, width), len(edges)), torch.zeros(num_sites, width, dtype=torch.bool)
        neighbours[site, place], edge[site, place] = other, order % max(len(edges), 1)
        turned[site, place] = order >= len(edges)
        for i in (degree < width).nonzero()[:, 0].tolist():
            free = torch.ones(num_sites, dtype=torch.bool)
            free[neighbours[i, : degree[i]]] = free[i] = False
            neighbours[i, degree[i] :] = free.nonzero()[: width - int(degree[i]), 0]
        self.num_edges = len(edges)
        self.register_buffer("neighbours", neighbours, persistent=False)
        self.register_buffer("edge", edge, persistent=False)
        self.register_buffer("turned", turned, persistent=False)
        self.register_buffer("colour", _greedy_colouring(neighbours, degree), persistent=False)

    def rows(self, couplings: Tensor) -> Tensor:
        """Couplings of the edges at every site's neighbours; zero in places left over.

        Args:
            couplings: a number an edge ``(M,)``, or a matrix from the categories of its first site to those of its
                second, ``(M, K, K)``.

        Returns:
            ``(D, n)``, or ``(D, n, K, K)`` with the categories of the site itself first.
        """
        if couplings.ndim == 1:
            return functional.pad(couplings, (0, 1))[self.edge]
        found = functional.pad(couplings, (0, 0, 0, 0, 0, 1))[self.edge]
        return torch.where(self.turned[:, :, None, None], found.transpose(2, 3), found)

    @cached_property
    def blocks(self) -> tuple[Tensor, ...]:
        """The sites of each colour, int64 on the CPU."""
        colour = self.colour.cpu()
        return tuple((colour == c).nonzero()[:, 0] for c in range(int(colour.max()) + 1))


def _checked_edges(num_sites: int, edges: Tensor) -> Tensor:
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.is_floating_point():
        raise ValueError(f"edges must be integers of shape (M, 2), got {edges.dtype} of shape {tuple(edges.shape)}")
    edges = edges.long().cpu()
    if len(edges) and not 0 <= int(edges.min()) <= int(edges.max()) < num_sites:
        raise ValueError(f"edges must lie in 0..{num_sites - 1}, got {int(edges.min())} to {int(edges.max())}")
    if (edges[:, 0] == edges[:, 1]).any():
        raise ValueError(f"edges must join different sites, got {edges[edges[:, 0] == edges[:, 1]][0].tolist()}")
    sorted_edges = edges.sort(1).values
    if len(sorted_edges.unique(dim=0)) != len(edges):
        pairs, counts = sorted_edges.unique(dim=0, return_counts=True)
        raise ValueError(f"edges must hold every pair once, got {pairs[counts > 1][0].tolist()} twice")
    return edges


def _greedy_colouring(neighbours: Tensor, degree: Tensor) -> Tensor:
    """A colour for each site, other than its neighbours'; two on an even lattice (a checkerboard)."""
    colours: list[int] = []
    for site, (around, count) in enumerate(zip(neighbours.tolist(), degree.tolist(), strict=True)):
        taken = {colours[other] for other in around[:count] if other < site}
        colours.append(next(colour for colour in range(len(taken) + 1) if colour not in taken))
    return torch.tensor(colours)
