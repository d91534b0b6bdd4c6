"""Swendsen-Wang sampling of Potts models that attract (Swendsen and Wang, 1987): few sweeps to independent draws."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def cluster_sweep(
    codes: Tensor, edges: Tensor, coupling: Tensor, *, num_categories: int, rng: np.random.Generator
) -> Tensor:
    """One sweep on p(x) ∝ exp(sum_(i,j) J_ij [x_i = x_j]), J >= 0; the new codes ``(B, D)``.

    An edge between equal sites is a bond with probability 1 - exp(-J); every cluster of bonds takes one category, all
    as probable. An Ising model with J s_i s_j has 2 J here.

    Args:
        codes: ``(B, D)``.
        edges: ``(M, 2)`` integers, every edge once.
        coupling: J, ``(M,)``.
        num_categories: K.
        rng: the source of randomness.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num, num_sites = codes.shape
    equal = (codes[:, edges[:, 0]] == codes[:, edges[:, 1]]).numpy()
    bond = equal & (rng.random(equal.shape) < -np.expm1(-coupling.double().numpy()))
    chain, edge = bond.nonzero()
    first, second = (chain * num_sites + edges[edge, end].numpy() for end in (0, 1))
    size = num * num_sites
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
    count, cluster = connected_components(graph, directed=False)
    category = rng.integers(num_categories, size=count)
    return torch.from_numpy(category[cluster].reshape(num, num_sites)).to(codes.dtype)


def cluster_samples(
    num: int, *, num_sites: int, edges: Tensor, coupling: Tensor, num_categories: int, sweeps: int, seed: int
) -> Tensor:
    """``num`` chains of ``cluster_sweep`` from uniform points, as codes ``(num, D)``.

    Raises:
        ValueError: a negative coupling.
    """
    if bool((coupling < 0).any()):
        raise ValueError(f"clusters need couplings that attract, got {float(coupling.min())}")
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(rng.integers(num_categories, size=(num, num_sites))).to(torch.uint8)
    for _ in range(sweeps):
        codes = cluster_sweep(codes, edges, coupling=coupling, num_categories=num_categories, rng=rng)
    return codes
