"""Ising models: dense couplings, and the nearest-neighbour lattice on a torus in any dimension.

Spins are s = 2x - 1. As in Grathwohl et al. (2021, section 6), log p(x) = s^T J s + b^T s - log Z: every pair is
counted twice, so a lattice "of σ" has J = σA, and 2σ in the textbook convention (the critical point of the square
lattice is σ = 0.2203). Not implemented: sparse couplings other than the torus.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, require_binary
from gwg_dist.spaces import Change, Space
from gwg_dist.target import EnergyState


class IsingEnergy(Energy):
    """E(x) = -s^T J s - b^T s with J symmetric and zero on its diagonal, s = 2x - 1.

    Args:
        space: Binary; D sites.
        scale: standard deviation of the initial couplings; 0 starts at independence.

    Raises:
        ValueError: a space that is not Binary, a negative scale.
    """

    def __init__(self, space: Space, *, scale: float = 0.0) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        self.pairs = nn.Parameter(scale * torch.randn(space.num_sites, space.num_sites).triu(1))
        self.bias = nn.Parameter(torch.zeros(space.num_sites))

    @property
    def coupling(self) -> Tensor:
        """J, ``(D, D)``; only the upper triangle of ``pairs`` is used."""
        upper = self.pairs.triu(1)
        return upper + upper.T

    def forward(self, x: Tensor) -> Tensor:
        s = 2 * x - 1
        return -(s * (s @ self.coupling + self.bias)).sum(1)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One product: ∇E = -2 (2 J s + b)."""
        s = 2 * x - 1
        field = s @ self.coupling
        return -(s * (field + self.bias)).sum(1), -2 * (2 * field + self.bias)

    def increments(self) -> IsingIncrements:
        """The gradient follows a chain by one row of J a step."""
        return IsingIncrements(8 * self.coupling.detach(), self.bias.detach())


class IsingIncrements(NamedTuple):
    """``rows`` is 8 J, ``(D, D)``: turning x_i by ±1 turns s_i by ±2 and ∇E = -2 (2 J s + b) by ∓8 J_i."""

    rows: Tensor
    bias: Tensor

    def start(self, x: Tensor) -> EnergyState:
        s = 2 * x - 1
        field = s @ self.rows
        energy = -(s * (field / 8 + self.bias)).sum(1, dtype=torch.float64)
        return EnergyState(energy, -field / 2 - 2 * self.bias)

    def move(self, state: EnergyState, x: Tensor, change: Change) -> EnergyState:
        """E is linear in every single x_i, so its change is the gradient's entry: exact, summed in float64."""
        step = (change.new - change.old).to(x.dtype)[:, None]
        slope = state.grad.gather(1, change.site[:, None])
        energy = state.energy + (step * slope)[:, 0]
        return EnergyState(energy, state.grad - step * self.rows[change.site])


class IsingTorusEnergy(Energy):
    """E(x) = -2σ sum_<ij> s_i s_j - b sum_i s_i over neighbours of a periodic lattice of ``space.shape``.

    Args:
        space: Binary; one axis a dimension, each of length 3 or more.
        sigma: σ; positive is ferromagnetic.
        bias: b, the same at every site.

    Raises:
        ValueError: a space that is not Binary, an axis shorter than 3 (it would count a pair twice).
    """

    sigma: Tensor
    bias: Tensor
    neighbours: Tensor
    colour: Tensor

    def __init__(self, space: Space, *, sigma: float = 0.1, bias: float = 0.0) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if min(space.shape) < 3:
            raise ValueError(f"every axis of a torus must be at least 3 long, got shape {space.shape}")
        self.sigma = nn.Parameter(torch.tensor(float(sigma)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        site = torch.arange(space.num_sites).reshape(space.shape)
        around = [site.roll(shift, axis).flatten() for axis in range(site.ndim) for shift in (1, -1)]
        self.register_buffer("neighbours", torch.stack(around, 1), persistent=False)
        self.register_buffer("colour", _greedy_colouring(self.neighbours), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._energy(*self._spins_and_neighbours(x))

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """No product at all: ∇E = -2 (2σ sum over neighbours + b)."""
        s, neighbours = self._spins_and_neighbours(x)
        return self._energy(s, neighbours), -2 * (2 * self.sigma * neighbours + self.bias).flatten(1)

    @property
    def coupling(self) -> Tensor:
        """J = σA, ``(D, D)``."""
        adjacency = self.sigma.new_zeros(self.space.num_sites, self.space.num_sites)
        return self.sigma.detach() * adjacency.scatter_(1, self.neighbours, 1)

    def increments(self) -> TorusIncrements:
        """The gradient follows a chain at the neighbours alone."""
        rows = (8 * self.sigma.detach()).expand(self.neighbours.shape).contiguous()
        colours = tuple((self.colour == c).nonzero()[:, 0] for c in range(int(self.colour.max()) + 1))
        return TorusIncrements(self.neighbours, rows, self.bias.detach(), colours)

    def _spins_and_neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s = (2 * x - 1).unflatten(1, self.space.shape)
        neighbours = torch.zeros_like(s)
        for axis in range(1, s.ndim):
            neighbours = neighbours + s.roll(1, axis) + s.roll(-1, axis)
        return s, neighbours

    def _energy(self, s: Tensor, neighbours: Tensor) -> Tensor:
        return -(s * (self.sigma * neighbours + self.bias)).flatten(1).sum(1)


class TorusIncrements(NamedTuple):
    """``neighbours`` and ``rows`` (8σ each), ``(D, 2 axes)``: see ``gwg_dist.target.ColouredPairs``."""

    neighbours: Tensor
    rows: Tensor
    bias: Tensor
    colours: tuple[Tensor, ...]

    def start(self, x: Tensor) -> EnergyState:
        s = 2 * x - 1
        pull = torch.zeros_like(s)
        for neighbour, row in zip(self.neighbours.T, self.rows.T, strict=True):
            pull = torch.addcmul(pull, s[:, neighbour], row)
        return EnergyState(-(s * (pull / 8 + self.bias)).sum(1, dtype=torch.float64), -pull / 2 - 2 * self.bias)

    def move(self, state: EnergyState, x: Tensor, change: Change) -> EnergyState:
        """E is linear in every single x_i, so its change is the gradient's entry."""
        step = (change.new - change.old).to(x.dtype)[:, None]
        energy = state.energy + (step * state.grad.gather(1, change.site[:, None]))[:, 0]
        grad = state.grad.scatter_add(1, self.neighbours[change.site], -step * self.rows[change.site])
        return EnergyState(energy, grad)

    def steepest(self) -> Tensor:
        return self.rows.abs().sum(1).max() / 2 + 2 * self.bias.abs()


def _greedy_colouring(neighbours: Tensor) -> Tensor:
    """A colour for each site, ``(D,)``, other than its neighbours'; two where every axis is even (a checkerboard)."""
    colours: list[int] = []
    for site, around in enumerate(neighbours.tolist()):
        taken = {colours[other] for other in around if other < site}
        colours.append(next(colour for colour in range(len(taken) + 1) if colour not in taken))
    return torch.tensor(colours)
