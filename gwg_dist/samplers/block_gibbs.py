"""Block Gibbs sampling of sites that do not see each other: the checkerboard of a lattice.

For an energy with at most pairs of sites the conditional of a site is read off the gradient, which does not depend on
the site itself: p_beta(x_i = k | rest) ∝ exp(β ∂_ik f + ref_ik). Sites of one block are independent given the others,
so a sweep over all sites costs one update a block. Not implemented: blocks of hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.draws import first_above
from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.spaces import Binary
from gwg_dist.structure import DensePairs, SparsePairs
from gwg_dist.target import StructuredTarget, Target


@dataclass
class BlockGibbsState:
    """``x`` ``(B, D)`` or ``(B, D, K)`` is moved in place, one of ``blocks`` after the other."""

    x: Tensor
    beta: Tensor
    target: StructuredTarget
    blocks: tuple[Tensor, ...]

    @property
    def f(self) -> Tensor:
        return self.target.evaluate(self.x).f


@dataclass(frozen=True)
class BlockGibbs(Sampler):
    """A step is a sweep: every site is drawn once from its conditional, one block after the other.

    Needs an energy whose ``structure`` has pairs of sites. Sparse pairs are swept by colour, dense ones site by site.

    Raises:
        ValueError: at the start of a run, another energy.
    """

    in_place = True

    def refusal(self, target: Target) -> str | None:
        if pairs_of(target) is not None:
            return None
        name = type(target.energy).__name__
        return f"BlockGibbs needs an energy of pairs of sites, such as IsingTorusEnergy or PottsEnergy; got {name}"

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BlockGibbsState:
        target, pairs = with_pairs(target)
        return BlockGibbsState(x.clone(memory_format=torch.contiguous_format), beta, target, pairs.blocks(x))

    def temper(self, target: Target, state: BlockGibbsState, beta: Tensor) -> BlockGibbsState:
        state.beta = beta
        return state

    def draw(self, state: BlockGibbsState, generator: torch.Generator) -> Tensor:
        """A uniform number in [0, 1) a site, ``(B, D)`` float64."""
        x = state.x
        return torch.rand(x.shape[:2], generator=generator, device=x.device, dtype=torch.float64)

    def step(self, target: Target, state: BlockGibbsState, noise: Tensor) -> tuple[BlockGibbsState, Info]:
        x, before = state.x, state.x.clone()
        for sites in state.blocks:
            probability, uniform = self.probability(state, sites), noise[:, sites]
            if isinstance(target.space, Binary):
                x[:, sites] = (uniform < probability).to(x.dtype)
            else:
                category, _ = first_above(probability.flatten(0, 1), uniform.flatten())
                x[:, sites] = target.space.encode(category.view_as(uniform), x.dtype)
        return state, Info(torch.ones(len(x), dtype=x.dtype, device=x.device), target.space.hamming(x, before))

    def probability(self, state: BlockGibbsState, sites: Tensor) -> Tensor:
        """p(x_i = 1 | rest) at a block's sites, ``(B, sites)``, or p(x_i = k | rest), ``(B, sites, K)``, float64."""
        (_, pairs), reference = with_pairs(state.target), state.target.reference
        logit = state.beta.reshape(-1, *[1] * (state.x.ndim - 1)) * pairs.grad_at(state.x, sites)
        if reference is not None:
            logit = logit + reference.weights[sites]
        return torch.sigmoid(logit.double()) if state.x.ndim == 2 else torch.softmax(logit.double(), 2)


def pairs_of(target: Target) -> DensePairs | SparsePairs | None:
    """The pairs of sites that an energy is made of, if it is."""
    target = target.frozen()
    structure = target.structure if isinstance(target, StructuredTarget) else None
    return structure if isinstance(structure, DensePairs | SparsePairs) else None


def with_pairs(target: Target) -> tuple[StructuredTarget, DensePairs | SparsePairs]:
    """The target by its structure, pairs of sites. Raises TypeError where it has another."""
    target = target.frozen()
    pairs = pairs_of(target)
    if pairs is None or not isinstance(target, StructuredTarget):
        raise TypeError(f"pairs of sites are needed, {target.how} was found")
    return target, pairs
