"""Couplings of any model: read off a model of pairs, and the mean second difference of f for every other one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gwg_dist.evaluation.contacts import PairModel, pair_model, zero_sum
from gwg_dist.evaluation.scores import points_at_once
from gwg_dist.structure import Pairs, offered
from gwg_dist.target import Target


def pairs_of(target: Target) -> PairModel | None:
    """Couplings and fields of f = -E, without the reference; None where the energy is no model of pairs."""
    if not offered(target.energy, "structure"):
        return None
    structure = target.energy.structure()  # pyright: ignore[reportFunctionMemberAccess]
    if not isinstance(structure, Pairs):
        return None
    dense = structure.dense()
    model = pair_model(dense.rows, dense.slope, dense.constant, target.space.num_categories)
    return model._replace(shares=target.space.uniform_probabilities().to(model.fields.device))


def num_evaluations(num_points: int, num_sites: int, num_categories: int) -> int:
    """Evaluations of E that ``effective_couplings`` takes: N (1 + D (K - 1) + D (D - 1) (K - 1)^2 / 2)."""
    free = num_categories - 1
    return num_points * (1 + num_sites * free + num_sites * (num_sites - 1) // 2 * free**2)


def effective_couplings(target: Target, codes: Tensor, *, advance: Callable[[int], None] = lambda _: None) -> Tensor:
    """The mean second difference of f = -E over points, in the gauge of zero sums, ``(D, D, K, K)`` float64.

        J_ij(a, b) = mean_x [f(x[i -> a, j -> b]) - f(x[i -> a]) - f(x[j -> b]) + f(x)]

    x[i -> a] is x whose site i is set to a. After the change of gauge a model of pairs has exactly its own couplings,
    whatever the points. In any other model J_ij is the coupling of i and j as it is on average where the points lie;
    what involves one site alone, such as the reference, drops out. See ``num_evaluations`` for the cost. Give an energy
    in float64: second differences of float32 are mostly rounding.

    Args:
        target: the model.
        codes: points ``(N, D)``.
        advance: called with the number of evaluations that are done.

    Raises:
        ValueError: no points.
    """
    if not len(codes):
        raise ValueError("effective couplings need points, got none")
    num, num_sites, free = len(codes), codes.shape[1], target.space.num_categories - 1
    total = torch.zeros(num_sites, num_sites, free + 1, free + 1, dtype=torch.float64, device=codes.device)
    done = 0
    for x in codes.long():
        site = torch.arange(num_sites, device=x.device)
        others = target.space.shifted(
            site[:, None], x[:, None], torch.arange(1, free + 1, device=x.device)
        )  # (D, K - 1)
        here = _f(target, x[None])
        alone = _f(target, _with(x, site.repeat_interleave(free), others.flatten())).view(num_sites, free) - here
        done += 1 + num_sites * free
        for i in range(num_sites - 1):
            later = site[i + 1 :].repeat_interleave(free)
            for a in range(free):
                advance(done)
                if a + 1 >= target.space.sizes[i]:  # the categories of this site come again
                    done += len(later)
                    continue
                moved = x.clone()
                moved[i] = others[i, a]
                both = _f(target, _with(moved, later, others[i + 1 :].flatten())).view(-1, free) - here
                total[i, site[i + 1 :, None], others[i, a], others[i + 1 :]] += both - alone[i, a] - alone[i + 1 :]
                done += len(later)
                advance(done)
    total = total / num
    both = total + total.transpose(0, 1).transpose(2, 3)
    return zero_sum(both, target.space.uniform_probabilities().to(both))


def _with(x: Tensor, site: Tensor, category: Tensor) -> Tensor:
    """Copies of ``x`` ``(D,)``, each with one site changed, ``(n, D)``."""
    return x.expand(len(site), -1).scatter(1, site[:, None], category[:, None])


def _f(target: Target, codes: Tensor) -> Tensor:
    """f in float64, ``(N,)``, of points that are held in memory a part at a time."""
    at_once = points_at_once(target)
    dtype = target.dtype
    return torch.cat([target.f(target.space.encode(part, dtype)).double() for part in codes.split(at_once)])
