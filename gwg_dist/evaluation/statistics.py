"""One-site, two-site and three-site statistics of points, and how those of two sets of points agree.

Pairs of sites i < j are numbered row by row, as ``torch.triu_indices(D, D, 1)`` does. All sums are in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.tools.seeding import fixed_generator

COUNTS_AT_ONCE = 2**22  # entries whose cells are held at once: 32 MB of int64


class PairStatistics(NamedTuple):
    """How often sites, and pairs of sites, take their categories.

    Args:
        single: f_i(a), ``(D, K)`` float64.
        double: f_ij(a, b) for i < j, ``(D (D - 1) / 2, K, K)`` float64.
    """

    single: Tensor
    double: Tensor

    def with_pseudocount(self, share: float) -> PairStatistics:
        """The frequencies of (1 - share) of these points and a share of uniform ones.

            f_i(a) <- (1 - share) f_i(a) + share / K,    f_ij(a, b) <- (1 - share) f_ij(a, b) + share / K^2

        Raises:
            ValueError: a share outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a pseudocount is a share in [0, 1], got {share}")
        num = self.single.shape[1]
        return PairStatistics((1 - share) * self.single + share / num, (1 - share) * self.double + share / num**2)

    def connected(self) -> Tensor:
        """C_ij(a, b) = f_ij(a, b) - f_i(a) f_j(b), the shape of ``double``."""
        first, second = torch.triu_indices(len(self.single), len(self.single), 1, device=self.single.device)
        return self.double - self.single[first][:, :, None] * self.single[second][:, None, :]


class Agreement(NamedTuple):
    """How the statistics of samples follow those of data.

    Args:
        pearson: Pearson's correlation; nan where one side does not vary.
        slope: slope of the least squares line of the samples' statistics over the data's.
    """

    pearson: float
    slope: float


def pair_statistics(codes: Tensor, num_categories: int, weights: Tensor | None = None) -> PairStatistics:
    """Frequencies of the categories of sites and of pairs of sites.

        f_i(a) = sum_n w_n [x_ni = a] / sum_n w_n,    f_ij(a, b) = sum_n w_n [x_ni = a] [x_nj = b] / sum_n w_n

    Counted site by site, in N D^2 / 2 additions whatever K is; beside the result it holds N D counts.

    Args:
        codes: points ``(N, D)``, integers 0..K-1.
        num_categories: K.
        weights: ``(N,)``, not negative; None counts every point once.

    Raises:
        ValueError: no points, weights of another shape or without a positive sum.
    """
    share = _shares(codes, weights)
    num, num_sites = codes.shape
    codes = codes.long()
    single = codes.new_zeros(num_sites, num_categories, dtype=torch.float64)
    single.scatter_add_(1, codes.T, share.expand(num_sites, num))
    double = single.new_empty(num_sites * (num_sites - 1) // 2, num_categories, num_categories)
    start = 0
    for site in range(num_sites - 1):
        later = num_sites - 1 - site
        cell = torch.arange(later, device=codes.device) * num_categories**2 + num_categories * codes[:, site, None]
        cell = cell + codes[:, site + 1 :]
        double[start : start + later] = _counted(cell, share, later * num_categories**2).view(later, *double.shape[1:])
        start += later
    return PairStatistics(single, double)


def triple_sites(num_sites: int, num: int) -> Tensor:
    """Sites i < j < k of ``num`` triples, ``(T, 3)`` int64: all where there are no more, else always the same ones.

    Raises:
        ValueError: fewer than three sites.
    """
    if num_sites < 3:
        raise ValueError(f"triples need three sites, got {num_sites}")
    if num_sites * (num_sites - 1) * (num_sites - 2) // 6 <= num:
        return torch.combinations(torch.arange(num_sites), 3)
    generator = fixed_generator("triples of sites")
    drawn = torch.rand(num, num_sites, generator=generator).argsort(1)[:, :3]
    return drawn.sort(1).values


def three_site_moments(codes: Tensor, num_categories: int, sites: Tensor, weights: Tensor | None = None) -> Tensor:
    """Central moments of three sites, ``(T, K, K, K)`` float64.

        C_ijk(a, b, c) = E[([x_i = a] - f_i(a)) ([x_j = b] - f_j(b)) ([x_k = c] - f_k(c))]
                       = f_ijk - f_ij f_k - f_ik f_j - f_jk f_i + 2 f_i f_j f_k

    Args:
        codes: points ``(N, D)``, integers 0..K-1.
        num_categories: K.
        sites: triples of different sites, ``(T, 3)``.
        weights: ``(N,)``, not negative; None counts every point once.

    Raises:
        ValueError: no points, weights of another shape or without a positive sum.
    """
    share = _shares(codes, weights)
    found = []
    at_once = max(COUNTS_AT_ONCE // len(codes), 1)
    for part in sites.to(codes.device).split(at_once):
        triple = codes.long()[:, part]  # (N, T, 3)
        cell = (triple[..., 0] * num_categories + triple[..., 1]) * num_categories + triple[..., 2]
        cell = cell + torch.arange(len(part), device=codes.device) * num_categories**3
        joint = _counted(cell, share, len(part) * num_categories**3).view(-1, *3 * [num_categories])
        found.append(_central(joint))
    return torch.cat(found)


def agreement(data: Tensor, samples: Tensor) -> Agreement:
    """Pearson's correlation and the slope of two sets of statistics of one shape, in float64.

    Raises:
        ValueError: different shapes.
    """
    if data.shape != samples.shape:
        raise ValueError(f"statistics must have one shape, got {tuple(data.shape)} and {tuple(samples.shape)}")
    x, y = (side.double().flatten() - side.double().mean() for side in (data, samples))
    over_x, over_y, both = (float(value) for value in (x @ x, y @ y, x @ y))
    if not (over_x > 0 and over_y > 0):
        return Agreement(float("nan"), float("nan"))
    return Agreement(both / (over_x**0.5 * over_y**0.5), both / over_x)


def pearson_of_pairs(data: PairStatistics, samples: PairStatistics) -> Agreement:
    """How the connected two-site correlations of samples follow those of data: all pairs i < j, all categories.

    The measure by which Boltzmann machines of proteins are trained until it is large enough (Figliuzzi, Barrat-Charlaix
    and Weigt, "How pairwise coevolutionary models capture the collective residue variability in proteins?", Molecular
    Biology and Evolution 35, 2018).
    """
    return agreement(data.connected(), samples.connected())


def _shares(codes: Tensor, weights: Tensor | None) -> Tensor:
    """Weights that sum to one, ``(N,)`` float64."""
    if not len(codes):
        raise ValueError("statistics need points, got none")
    if weights is None:
        return torch.full((len(codes),), 1 / len(codes), dtype=torch.float64, device=codes.device)
    if tuple(weights.shape) != (len(codes),) or not float(weights.double().sum()) > 0:
        raise ValueError(f"weights must be {len(codes)} numbers with a positive sum, got {tuple(weights.shape)}")
    weights = weights.to(codes.device).double()
    return weights / weights.sum()


def _counted(cell: Tensor, share: Tensor, num_cells: int) -> Tensor:
    """The sum of the shares of the points in every cell, ``(num_cells,)``, from each point's cells ``(N, n)``."""
    return torch.bincount(cell.flatten(), share[:, None].expand(cell.shape).flatten(), minlength=num_cells)


def _central(joint: Tensor) -> Tensor:
    """Third central moments from joint frequencies ``(T, K, K, K)``."""
    one = [joint.sum(axes) for axes in ((2, 3), (1, 3), (1, 2))]
    i, j, k = one[0][:, :, None, None], one[1][:, None, :, None], one[2][:, None, None, :]
    ij, ik, jk = joint.sum(3, keepdim=True), joint.sum(2, keepdim=True), joint.sum(1, keepdim=True)
    return joint - ij * k - ik * j - jk * i + 2 * i * j * k
