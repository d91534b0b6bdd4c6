"""Which sites a model couples: gauges of pair models, norms of couplings, their ranking, and how much of it is true.

Sites of a protein that touch in its fold evolve together, so that strong couplings of a Potts model tell contacts
(Weigt et al., "Identification of direct residue contacts in protein-protein interaction by message passing", PNAS 106,
2009). Not implemented: gauges other than the one of zero sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.statistics import PairStatistics

MIN_SEPARATION = 6
CUTOFF = 8.0
SHARES = (0.2, 0.5, 1.0, 2.0)


class PairModel(NamedTuple):
    """f(x) = constant + sum_i h_i(x_i) + sum_{i<j} J_ij(x_i, x_j), every pair once.

    Args:
        couplings: J, ``(D, D, K, K)`` float64, J_ji the transpose of J_ij, zero for i = j.
        fields: h, ``(D, K)`` float64.
        constant: 0-d float64.
        shares: what each category counts in a mean over a site's categories, ``(D, K)`` float64: 1 / K_i, 0 where there
            is none; None: all alike.
    """

    couplings: Tensor
    fields: Tensor
    constant: Tensor
    shares: Tensor | None = None

    def f(self, codes: Tensor) -> Tensor:
        """f at codes ``(N, D)``, ``(N,)`` nats."""
        site = torch.arange(len(self.fields), device=codes.device)
        codes = codes.long()
        total = self.constant + self.fields[site, codes].sum(1)
        for i in range(1, len(site)):
            total = total + self.couplings[i, site[:i], codes[:, i, None], codes[:, :i]].sum(1)
        return total

    def zero_sum(self) -> PairModel:
        """The same f in the gauge where every row and column of a J_ij, and every h_i, sums to zero.

            J_ij(a, b) <- J_ij(a, b) - J_ij(., b) - J_ij(a, .) + J_ij(., .)
            h_i(a) <- h_i(a) - h_i(.) + sum_{j != i} (J_ij(a, .) - J_ij(., .))

        A dot is the mean over a site's categories; what stands where it has none becomes 0. What is left over goes into
        the constant, so that f stays as it is at every x. Of all gauges this one has the smallest sum of J^2 (Ekeberg
        et al., Physical Review E 87, 2013).
        """
        shares = torch.full_like(self.fields, 1 / self.fields.shape[1]) if self.shares is None else self.shares
        old = torch.where(shares > 0, self.fields, 0.0)
        over_b = (self.couplings * shares[None, :, None]).sum(3)
        mean = (over_b * shares[:, None]).sum(2)
        fields = old - (old * shares).sum(1, keepdim=True) + (over_b - mean[:, :, None]).sum(1)
        fields = torch.where(shares > 0, fields, 0.0)
        constant = self.constant + (old * shares).sum() + mean.sum() / 2
        return PairModel(zero_sum(self.couplings, shares), fields, constant, self.shares)


class Precision(NamedTuple):
    """How many of the highest pairs are contacts.

    Args:
        num: pairs that were looked at, for each of the shares of D.
        precision: the share of contacts among them.
        num_contacts: contacts among all pairs that were ranked.
        base_rate: their share among all pairs that were ranked.
    """

    num: tuple[int, ...]
    precision: tuple[float, ...]
    num_contacts: int
    base_rate: float


def pair_model(rows: Tensor, slope: Tensor, constant: Tensor, num_categories: int) -> PairModel:
    """The couplings and fields of f = constant + slope^T x + x^T rows x / 2, x one-hot, or in {0, 1} where K = 2.

    Args:
        rows: ``(N, N)``, symmetric, N = D K or, for binary x, D.
        slope: ``(N,)``.
        constant: 0-d.
        num_categories: K.
    """
    rows, slope = rows.double(), slope.double()
    if num_categories == 2 and slope.ndim == 1:
        one = torch.tensor([0.0, 1.0], dtype=torch.float64, device=rows.device)
        return PairModel(rows[:, :, None, None] * one[:, None] * one, slope[:, None] * one, constant.double())
    couplings = rows.unflatten(1, (-1, num_categories)).unflatten(0, (-1, num_categories)).transpose(1, 2)
    return PairModel(couplings.contiguous(), slope.view(-1, num_categories), constant.double())


def zero_sum(couplings: Tensor, shares: Tensor | None = None) -> Tensor:
    """Couplings ``(..., K, K)`` in the gauge where every row and every column sums to zero.

    Args:
        couplings: J; ``(D, D, K, K)`` where there are shares.
        shares: as in ``PairModel``.
    """
    if shares is None:
        rows = couplings - couplings.mean(-1, keepdim=True)
        return rows - rows.mean(-2, keepdim=True)
    of_a, of_b = shares[:, None, :, None], shares[None, :, None]
    rows = couplings - (couplings * of_b).sum(-1, keepdim=True)
    both = rows - (rows * of_a).sum(-2, keepdim=True)
    return torch.where((of_a > 0) & (of_b > 0), both, 0.0)


def frobenius(couplings: Tensor, *, without: int | None = None) -> Tensor:
    """sqrt(sum_{a,b} J_ij(a, b)^2), ``(D, D)``, from couplings ``(D, D, K, K)`` in the gauge of zero sums.

    Args:
        couplings: J.
        without: a category that is left out of the sum, such as the gap of an alignment; None counts all.
    """
    if without is not None:
        kept = [a for a in range(couplings.shape[2]) if a != without]
        couplings = couplings[:, :, kept][:, :, :, kept]
    return couplings.square().sum((2, 3)).sqrt()


def average_product_correction(scores: Tensor) -> Tensor:
    """S_ij - S_i. S_.j / S_.., ``(D, D)`` with a zero diagonal; means over pairs of different sites.

    Dunn, Wahl and Gloor, "Mutual information without the influence of phylogeny or entropy dramatically improves
    residue contact prediction", Bioinformatics 24, 2008.

    Args:
        scores: S, ``(D, D)``, symmetric; its diagonal is not read.

    Raises:
        ValueError: fewer than two sites.
    """
    num = len(scores)
    if num < 2:
        raise ValueError(f"pairs need two sites, got {num}")
    off = ~torch.eye(num, dtype=torch.bool, device=scores.device)
    scores = torch.where(off, scores, 0.0)
    mean = scores.sum(1) / (num - 1)
    overall = mean.mean()
    if not overall > 0:
        return scores
    return torch.where(off, scores - mean[:, None] * mean / overall, 0.0)


def contact_scores(couplings: Tensor, *, without: int | None = None) -> Tensor:
    """The score of every pair, ``(D, D)``: zero sums, Frobenius norm, average product correction."""
    return average_product_correction(frobenius(zero_sum(couplings), without=without))


def ranked_pairs(scores: Tensor, *, min_separation: int = MIN_SEPARATION, columns: Tensor | None = None) -> Tensor:
    """Pairs i < j that are ``min_separation`` or more apart, the highest score first, ``(P, 2)`` int64.

    Args:
        scores: ``(D, D)``.
        min_separation: smallest j - i, or columns[j] - columns[i], of a pair.
        columns: where each site lies along the chain, ``(D,)`` int64, rising; None counts the sites.
    """
    num = len(scores)
    pairs = torch.triu_indices(num, num, 1, device=scores.device).T
    place = torch.arange(num) if columns is None else columns
    pairs = pairs[place.to(scores.device)[pairs].diff(dim=1)[:, 0] >= min_separation]
    order = scores[pairs[:, 0], pairs[:, 1]].argsort(descending=True, stable=True)
    return pairs[order]


def contact_precision(
    scores: Tensor,
    distances: Tensor,
    *,
    min_separation: int = MIN_SEPARATION,
    cutoff: float = CUTOFF,
    shares: tuple[float, ...] = SHARES,
    columns: Tensor | None = None,
) -> Precision:
    """The share of contacts among the L/5, L/2, L and 2 L highest pairs; L is the number of sites D.

    Args:
        scores: ``(D, D)``.
        distances: ``(D, D)`` in Å; pairs whose distance is nan are not ranked.
        min_separation: see ``ranked_pairs``.
        cutoff: sites closer than so many Å are in contact.
        shares: numbers of pairs as shares of D.
        columns: see ``ranked_pairs``.

    Raises:
        ValueError: distances of another size, or none of them known.
    """
    if distances.shape != scores.shape:
        raise ValueError(f"distances must have shape {tuple(scores.shape)}, got {tuple(distances.shape)}")
    pairs = ranked_pairs(scores, min_separation=min_separation, columns=columns)
    distance = distances.to(scores.device)[pairs[:, 0], pairs[:, 1]]
    contact = (distance < cutoff)[~distance.isnan()].double()
    if not len(contact):
        raise ValueError(f"no distance of two sites {min_separation} or more apart is known")
    nums = tuple(min(max(int(share * len(scores)), 1), len(contact)) for share in shares)
    return Precision(
        nums, tuple(float(contact[:num].mean()) for num in nums), int(contact.sum()), float(contact.mean())
    )


def mean_field_couplings(statistics: PairStatistics) -> Tensor:
    """J = -C^-1 in the gauge where the last category has none, ``(D, D, K, K)``.

    C is the covariance of the first K - 1 categories of all sites. Give frequencies with a pseudocount of a half or so:
    C of data alone has no inverse (Morcos et al., "Direct-coupling analysis of residue coevolution captures native
    contacts across many protein families", PNAS 108, 2011).
    """
    single, num, free = statistics.single, len(statistics.single), statistics.single.shape[1] - 1
    covariance = single.new_zeros(num, num, free, free)
    first, second = torch.triu_indices(num, num, 1, device=single.device)
    covariance[first, second] = statistics.connected()[:, :free, :free]
    covariance = covariance + covariance.transpose(0, 1).transpose(2, 3)
    site = torch.arange(num, device=single.device)
    kept = single[:, :free]
    covariance[site, site] = torch.diag_embed(kept) - kept[:, :, None] * kept[:, None, :]
    flat = covariance.transpose(1, 2).reshape(num * free, num * free)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(flat))
    couplings = single.new_zeros(num, num, free + 1, free + 1)
    couplings[:, :, :free, :free] = -inverse.view(num, free, num, free).transpose(1, 2)
    couplings[site, site] = 0
    return couplings
