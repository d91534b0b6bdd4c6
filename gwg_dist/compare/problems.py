"""What kernels are compared on: a target, and what is known of it exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.compare.clusters import cluster_samples
from gwg_dist.energies import Energy, IsingGraphEnergy, IsingTorusEnergy, PottsEnergy
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.graph import Graph
from gwg_dist.samplers import GWG, BlockGibbs, Target, run_chain
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.tools.seeding import make_generator

FEW_STATES = 2**16
SWEEPS = 60


class Posed(NamedTuple):
    """A target and what is known of it.

    Args:
        target: what the kernels leave invariant.
        marginals: the probability of every category at every site, ``(D, K)`` float64; None where it is not known.
        samples: codes of draws from the target ``(M, D)``; None where there are none.
        source: how ``samples`` were made, in a few words.
    """

    target: Target
    marginals: Tensor | None
    samples: Tensor | None
    source: str


@dataclass
class Problem(ABC):
    """Something to compare kernels on."""

    @abstractmethod
    def pose(self, num: int, device: torch.device) -> Posed:
        """The target on ``device``, with ``num`` samples where they can be had."""


@dataclass
class Bernoulli(Problem):
    """Independent binary sites, with probabilities uniform in [low, high]. Samples are drawn directly.

    Args:
        num_sites: D.
        low: least probability of a 1.
        high: largest probability of a 1.
        seed: seed of the probabilities.
    """

    num_sites: int = 1000
    low: float = 0.25
    high: float = 0.75
    seed: int = 0

    def pose(self, num: int, device: torch.device) -> Posed:
        generator = make_generator(self.seed, "compare bernoulli")
        uniform = torch.rand(self.num_sites, generator=generator, dtype=torch.float64)
        ones = self.low + (self.high - self.low) * uniform
        energy = IsingGraphEnergy(Binary(self.num_sites), edges=())
        with torch.no_grad():
            energy.bias.copy_(ones.logit() / 2)
        samples = (torch.rand(num, self.num_sites, generator=generator, dtype=torch.float64) < ones).to(torch.uint8)
        return Posed(Target(energy.to(device)), torch.stack([1 - ones, ones], 1), samples, "independent draws")


@dataclass
class IsingLattice(Problem):
    """The Ising model on a torus without a field: marginals of 1/2, samples by Swendsen-Wang.

    Args:
        shape: the lattice.
        sigma: σ of log p = 2σ sum over neighbours of s_i s_j; the square lattice is critical at 0.2203.
    """

    shape: tuple[int, ...] = (40, 40)
    sigma: float = 0.15

    def pose(self, num: int, device: torch.device) -> Posed:
        space = Binary(self.shape)
        energy = IsingTorusEnergy(space, sigma=self.sigma)
        edges = edges_of(energy.graph)
        samples = clusters(num, space, edges, torch.full((len(edges),), 4 * self.sigma))
        return Posed(Target(energy.to(device)), uniform_marginals(space), samples, f"Swendsen-Wang, {SWEEPS} sweeps")


@dataclass
class PottsLattice(Problem):
    """The Potts model on a square torus, log p = J sum over neighbours of [x_i = x_j]; samples by Swendsen-Wang.

    Args:
        side: length of the torus.
        num_categories: K.
        coupling: J; critical at log(1 + sqrt(K)).
    """

    side: int = 16
    num_categories: int = 4
    coupling: float = 0.8

    def pose(self, num: int, device: torch.device) -> Posed:
        space = Categorical((self.side, self.side), self.num_categories)
        energy = PottsEnergy(space)
        edges = edges_of(IsingTorusEnergy(Binary((self.side, self.side))).graph)
        k = self.num_categories
        with torch.no_grad():
            for category in range(k):
                first, second = edges.sort(1).values.T * k + category
                energy.pairs[first, second] = self.coupling
        samples = clusters(num, space, edges, torch.full((len(edges),), self.coupling))
        return Posed(Target(energy.to(device)), uniform_marginals(space), samples, f"Swendsen-Wang, {SWEEPS} sweeps")


@dataclass
class Cliques(Problem):
    """Disjoint cliques of binary sites that want to be alike, log p = beta sum s_i s_j: basins for single sites.

    Args:
        num: number of cliques.
        size: sites of a clique.
        beta: coupling within a clique.
    """

    num: int = 32
    size: int = 4
    beta: float = 1.5

    def pose(self, num: int, device: torch.device) -> Posed:
        space = Binary(self.num * self.size)
        edges = [(c * self.size + i, c * self.size + j)
                 for c in range(self.num) for i in range(self.size) for j in range(i)]  # fmt: skip
        energy = IsingGraphEnergy(space, edges=edges, coupling=self.beta)
        samples = clusters(num, space, torch.tensor(edges), torch.full((len(edges),), 2 * self.beta))
        return Posed(Target(energy.to(device)), uniform_marginals(space), samples, f"Swendsen-Wang, {SWEEPS} sweeps")


@dataclass
class SpinGlass(Problem):
    """The Edwards-Anderson glass: a torus with normal couplings, log p = beta sum J_ij s_i s_j; marginals of 1/2.

    Args:
        shape: the lattice.
        beta: inverse temperature.
        seed: seed of the couplings.
    """

    shape: tuple[int, ...] = (8, 8, 8)
    beta: float = 0.6
    seed: int = 0

    def pose(self, num: int, device: torch.device) -> Posed:
        space = Binary(self.shape)
        edges = edges_of(IsingTorusEnergy(space).graph)
        energy = IsingGraphEnergy(space, edges=edges.tolist())
        with torch.no_grad():
            generator = make_generator(self.seed, "compare glass")
            energy.coupling.copy_(self.beta * torch.randn(len(edges), generator=generator))
        return Posed(Target(energy.to(device)), uniform_marginals(space), None, "")


@dataclass
class Model(Problem):
    """Any energy as it is initialised. Small ones are enumerated; others have samples of long runs where asked for.

    Args:
        energy: a class of energies with its settings.
        space: where it lives.
        seed: seed of the weights.
        long_steps: steps of runs in parallel that samples are taken from, by ``BlockGibbs`` where it takes the energy
            and by ``GWG`` elsewhere; 0 for no samples.
    """

    energy: Callable[[Space], Energy]
    space: Space
    seed: int = 0
    long_steps: int = 0

    def pose(self, num: int, device: torch.device) -> Posed:
        torch.manual_seed(self.seed)
        return pose_target(Target(self.energy(self.space).to(device)), num, self.long_steps)


def pose_target(target: Target, num: int, long_steps: int) -> Posed:
    """What enumeration, or long runs from uniform points, say of a target."""
    space, generator = target.space, make_generator(0, "compare samples")
    if space.num_states <= FEW_STATES:
        codes = space.all_codes()
        prob = exact_log_prob(target)[0].exp().cpu()
        marginals = torch.stack([((codes == k) * prob[:, None]).sum(0) for k in range(space.num_categories)], 1)
        drawn = codes[torch.multinomial(prob, num, replacement=True, generator=generator)]
        return Posed(target, marginals, drawn, "enumeration")
    if not long_steps:
        return Posed(target, None, None, "")
    kernel = BlockGibbs() if BlockGibbs().refusal(target) is None else GWG()
    generator = make_generator(0, "compare samples", device=device_of(target))
    x = target.encode(space.uniform_codes(num, generator=generator))
    chain = run_chain(kernel, target, x, num_steps=long_steps, generator=generator)
    return Posed(target, None, space.decode(chain.x).cpu(), f"{long_steps} steps of {type(kernel).__name__}, not exact")


def device_of(target: Target) -> torch.device:
    """Where the energy's weights are."""
    energy = target.energy
    parameters = energy.parameters() if isinstance(energy, torch.nn.Module) else ()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def edges_of(graph: Graph) -> Tensor:
    """Every edge of a graph once, ``(M, 2)`` int64."""
    site = torch.arange(len(graph.neighbours))[:, None].expand_as(graph.neighbours)
    there = (graph.edge < graph.num_edges) & (site < graph.neighbours)
    return torch.stack([site[there], graph.neighbours[there]], 1)


def clusters(num: int, space: Space, edges: Tensor, coupling: Tensor) -> Tensor:
    """Samples by Swendsen-Wang as codes ``(num, D)``."""
    return cluster_samples(num, num_sites=space.num_sites, edges=edges, coupling=coupling,
                           num_categories=space.num_categories, sweeps=SWEEPS, seed=0)  # fmt: skip


def uniform_marginals(space: Space) -> Tensor:
    """1 / K everywhere, what a model has that no permutation of the categories changes."""
    return torch.full((space.num_sites, space.num_categories), 1 / space.num_categories, dtype=torch.float64)
