"""Gibbs sampling of quadratic energies through a Gaussian variable: all sites at once, never refused.

For f(x) = b^T x + x^T J x / 2 + constant let K = J + c I with c large enough that K has no negative eigenvalue. At beta
β, with the slope w of the log reference, the joint law p_β(x) N(z; β K x, β K) is, in x,

    exp((β b + w)^T x + β x^T J x / 2) exp(z^T x - β x^T K x / 2) = exp((β b + w + z)^T x - β c |x|² / 2),

because K undoes J: a product over sites, since |x|² is the sum of the entries of x. So z given x is normal, the sites
given z are independent, and drawing one after the other is a Gibbs sweep over both (Hubbard, 1959; Martens and
Sutskever, "Parallelizable sampling of Markov random fields", 2010; Zhang et al., 2012). The larger c against the
spread of J's eigenvalues, the more z holds x where it is.

Not implemented: another diagonal than c I; chains too large for a dense K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.samplers.block_gibbs import pairs_of, with_pairs
from gwg_dist.structure import DensePairs, Evaluation
from gwg_dist.target import Target

MAX_NUMBERS = 2**13  # of N: K and its factor are N x N float64, half a GB each, and a factor takes N^3 operations


class GaussianState(NamedTuple):
    """The chains, and the factor of K, which belongs to the weights and not to a chain.

    Args:
        x: ``(B, D)`` or ``(B, D, K)``.
        evaluation: f and ∇f at x.
        beta: 0-d or ``(B,)``.
        factor: ``(N, N)``, factor^T factor = K = J + c I, N the entries of a point.
        shift: c, 0-d.
    """

    x: Tensor
    evaluation: Evaluation
    beta: Tensor
    factor: Tensor
    shift: Tensor

    @property
    def f(self) -> Tensor:
        return self.evaluation.f


class GaussianNoise(NamedTuple):
    """``normal`` ``(B, N)``, standard normal in the precision of x; ``sites`` ``(B, D)``, uniform float64 in [0, 1)."""

    normal: Tensor
    sites: Tensor


@dataclass(frozen=True)
class GaussianIntegralGibbs(Sampler):
    """A step draws z ~ N(β K x, β K), then every site on its own given z. For energies of pairs of sites.

    With z - β c x = β J x + sqrt(β) factor^T ξ the slope of site i given z is

        β ∂_i f(x) + w_i + β c (x_i - 1/2) + sqrt(β) (factor^T ξ)_i,

    so a step costs one gradient and one product with the factor. The factor takes N^3 operations, once a run
    of chains: in training once an iteration, since it belongs to the weights.

    Raises:
        ValueError: at the start of a run, an energy that is not of pairs, or of too many numbers a point.
    """

    def refusal(self, target: Target) -> str | None:
        numbers = target.space.num_sites * target.space.width
        if pairs_of(target) is None:
            name = type(target.energy).__name__
            return f"GaussianIntegralGibbs needs an energy of pairs of sites, such as IsingEnergy; got {name}"
        if numbers <= MAX_NUMBERS:
            return None
        return f"GaussianIntegralGibbs factors a dense matrix of at most {MAX_NUMBERS} rows; the energy has {numbers}"

    def init(self, target: Target, x: Tensor, beta: Tensor) -> GaussianState:
        factor, shift = factored(couplings(target), x)
        return GaussianState(x, target.evaluate(x), beta, factor, shift)

    def temper(self, target: Target, state: GaussianState, beta: Tensor) -> GaussianState:
        return state._replace(beta=beta)

    def refresh(self, target: Target, state: GaussianState) -> GaussianState:
        return state._replace(evaluation=target.evaluate(state.x))

    def draw(self, state: GaussianState, generator: torch.Generator) -> GaussianNoise:
        x, device = state.x, state.x.device
        size = (len(x), len(state.factor))
        normal = torch.randn(size, generator=generator, device=device, dtype=x.dtype)
        return GaussianNoise(normal, torch.rand(x.shape[:2], generator=generator, device=device, dtype=torch.float64))

    def step(self, target: Target, state: GaussianState, noise: GaussianNoise) -> tuple[GaussianState, Info]:
        space, x = target.space, state.x
        x_new = space.draw_sites(x, self.logits(target, state, noise.normal), noise.sites)
        evaluation = target.move(state.evaluation, x_new)
        hops = space.hamming(x, x_new)
        return state._replace(x=x_new, evaluation=evaluation), Info(torch.ones_like(hops), hops)

    def logits(self, target: Target, state: GaussianState, normal: Tensor) -> Tensor:
        """Of the sites given z, in the form of ``Space.draw_sites``."""
        x, beta = state.x, state.beta.reshape(-1, *[1] * (state.x.ndim - 1))
        pull = (normal @ state.factor).view_as(x)
        slope = target.grad_log_prob(state.evaluation, state.beta)
        slope = slope + beta * state.shift * (x - 0.5) + beta.sqrt() * pull
        return target.space.site_differences(x, slope)


def couplings(target: Target) -> Tensor:
    """J, ``(N, N)`` float64. Raises TypeError where the energy is not of pairs."""
    _, pairs = with_pairs(target)
    if isinstance(pairs, DensePairs):
        return pairs.rows.double()
    rows = pairs.rows.double()
    return rows.new_zeros(len(rows), len(rows)).scatter_add(1, pairs.graph.neighbours, rows)


def factored(matrix: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """R and the least c >= 0 with R^T R = matrix + c I, in the precision of ``like``."""
    values, vectors = torch.linalg.eigh(matrix)
    shift = (-values[0]).clamp(min=0)
    return ((values + shift).clamp(min=0).sqrt()[:, None] * vectors.T).to(like.dtype), shift.to(like.dtype)
