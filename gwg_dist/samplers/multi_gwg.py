"""Gibbs-With-Gradients with several draws a step: the union of the sites that are drawn changes at once.

The draws i_1, ..., i_n are independent and kept for the way back, so that the step is an auxiliary-variable
Metropolis-Hastings step whatever n is. (Sampling without replacement, the path auxiliary sampler, is another kernel.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.draws import Softmax, inverse_cdf, softmax
from gwg_dist.samplers.gwg import Informed
from gwg_dist.samplers.metropolis import MetropolisState, Move
from gwg_dist.target import Evaluation, Target


class MultiProposal(NamedTuple):
    """``moves`` ``(B, num_moves)`` and ``sites`` ``(B, D)``: log weights; ``draw``: the distribution of a site."""

    moves: Tensor
    sites: Tensor
    draw: Softmax


class MultiNoise(NamedTuple):
    """Uniform float64 numbers in [0, 1).

    Args:
        num_draws: ``(B,)``, how many sites are drawn.
        sites: ``(B, max_draws)``, one for each draw.
        values: ``(B, D)``, which category a site takes; not read on binary points.
        accept: ``(B,)``, the decision.
    """

    num_draws: Tensor
    sites: Tensor
    values: Tensor
    accept: Tensor


@dataclass(frozen=True)
class MultiGWG(Informed):
    """Draws n sites with replacement in proportion to their weights and changes the union of them.

    n is uniform on 1, ..., max_draws, anew for every chain and step: were it always the same even number, half of a
    binary space could hardly be reached from the other half. A categorical site takes a new category in proportion to
    its weights. A step costs one gradient evaluation.

    Args:
        temperature: τ > 0; weights are g(t^(2/τ)), so 2 is g itself and a larger τ is flatter.
        balancing: g, one of "sqrt", "barker", "min", "max" (see ``gwg_dist.samplers.balancing``).
        max_draws: the largest n.

    Raises:
        ValueError: a setting outside its range.
    """

    max_draws: int = 4

    tunable = "max_draws"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_draws < 1:
            raise ValueError(f"max_draws must be positive, got {self.max_draws}")

    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> MultiProposal:
        moves = self.log_weights(target, x, evaluation, beta)
        sites = target.space.site_log_weights(moves)
        return MultiProposal(moves, sites, softmax(sites))

    def draw(self, state: MetropolisState, generator: torch.Generator) -> MultiNoise:
        (num, num_sites), device = state.proposal.sites.shape, state.x.device
        size = (num, 2 + self.max_draws + num_sites)
        uniform = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        accept, num_draws, sites, values = uniform.split([1, 1, self.max_draws, num_sites], 1)
        return MultiNoise(num_draws[:, 0], sites, values, accept[:, 0])

    def propose(self, target: Target, state: MetropolisState, noise: MultiNoise) -> Move:
        weights = state.proposal.draw.weights
        drawn = torch.stack([inverse_cdf(weights, uniform) for uniform in noise.sites.unbind(1)], 1)
        used = torch.arange(self.max_draws, device=drawn.device) <= (noise.num_draws * self.max_draws).long()[:, None]
        chosen = torch.zeros_like(weights).scatter_add(1, drawn, used.to(weights.dtype)) > 0
        x_new = target.space.change_sites(state.x, state.proposal.moves, chosen, noise.values)
        return Move(state.x, x_new, aux=(torch.where(used, drawn, -1),))

    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        (drawn,) = move.aux
        _, sites, draw = state.proposal
        log_q = sites.gather(1, drawn.clamp(min=0)) - draw.log_norm[:, None]
        log_sites = torch.where(drawn < 0, 0.0, log_q).sum(1, dtype=torch.float64)
        log_values = target.space.log_prob_changes(move.x, state.proposal.moves, move.x_new)
        return log_sites + log_values - math.log(self.max_draws)
