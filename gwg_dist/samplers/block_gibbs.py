"""Block Gibbs sampling: variables that do not see each other are drawn together, such as the colours of a lattice.

What the blocks of a model are, and how each is drawn given the rest, stands in conditionals.py: sites of pairs, whole
chains of a factorial hidden Markov model, and the hidden units and sites of a restricted Boltzmann machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler
from gwg_dist.samplers.conditionals import RULES, Conditionals, conditionals
from gwg_dist.structure import DensePairs, SparsePairs
from gwg_dist.target import StructuredTarget, Target


@dataclass
class BlockGibbsState:
    """``x`` ``(B, D)`` or ``(B, D, K)``, what a sweep carries beside it, and the ``blocks`` that it goes over."""

    x: Tensor
    carried: tuple[Tensor, ...]
    beta: Tensor
    blocks: Conditionals

    @property
    def f(self) -> Tensor:
        return self.blocks.f(self.x, self.carried)


@dataclass(frozen=True)
class BlockGibbs(Sampler):
    """A step is a sweep: every site is drawn once, one block after the other.

    Pairs of sites: sparse ones by colour or, where the energy names paths that hold every site, path by path (see
    ``PathConditionals``); dense ones site by site. Hidden units: all of them given x, then all sites
    given them; at β = 1 never refused, at another β corrected (see ``HiddenConditionals``).

    Args:
        rule: "gibbs" draws a site of a model of pairs from its conditional; "metropolised" proposes another category
            and may refuse (Liu, 1996), site by site.

    Raises:
        ValueError: another rule; at the start of a run, an energy of another structure.
    """

    rule: str = "gibbs"

    in_place = True

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {self.rule!r}")

    def refusal(self, target: Target) -> str | None:
        frozen = target.frozen()
        name, kinds = type(target.energy).__name__, "pairs of sites (or hidden units: RBMEnergy)"
        if not isinstance(frozen, StructuredTarget) or self.blocks_of(frozen) is None:
            if isinstance(frozen, StructuredTarget) and BlockGibbs().blocks_of(frozen) is not None:
                return f"BlockGibbs(rule={self.rule!r}) needs an energy of pairs of sites; {name} takes rule='gibbs'"
            return f"BlockGibbs needs an energy of {kinds}, such as IsingTorusEnergy or PottsEnergy; got {name}"
        return None

    def blocks_of(self, target: StructuredTarget, x: Tensor | None = None) -> Conditionals | None:
        """The blocks of a target for chains like ``x``, if it has some."""
        like = target.encode(torch.zeros(1, target.space.num_sites, dtype=torch.uint8)) if x is None else x
        return conditionals(target.structure, target, like, self.rule)

    def init(self, target: Target, x: Tensor, beta: Tensor) -> BlockGibbsState:
        target = target.frozen()
        blocks = self.blocks_of(target, x) if isinstance(target, StructuredTarget) else None
        if blocks is None or not isinstance(target, StructuredTarget):
            raise TypeError(f"blocks of variables are needed, {target.how} was found")
        return BlockGibbsState(x, blocks.start(x), beta, blocks)

    def temper(self, target: Target, state: BlockGibbsState, beta: Tensor) -> BlockGibbsState:
        state.beta = beta
        return state

    def draw(self, state: BlockGibbsState, generator: torch.Generator) -> Tensor:
        """Uniform numbers in [0, 1), ``(B, numbers)`` float64: one a site, of hidden units some more."""
        x = state.x
        size = (len(x), state.blocks.numbers(x))
        return torch.rand(size, generator=generator, device=x.device, dtype=torch.float64)

    def step(self, target: Target, state: BlockGibbsState, noise: Tensor) -> tuple[BlockGibbsState, Info]:
        swept = state.blocks.sweep(state.x, state.carried, noise, state.beta)
        hops = target.space.hamming(swept.x, state.x)
        state.x, state.carried = swept.x, swept.carried
        return state, Info(swept.accept_prob, hops)


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
