"""Persistent chains with replicas at smaller betas: tempered chains in training.

A replay buffer for every beta of a ladder. The chains of the last, at β = 1, are those that train. Hotter ones cross
between modes, and swaps hand what they find down the ladder. A swap between neighbours at β_a < β_b is made with
probability min(1, exp((β_b - β_a) (f(x_a) - f(x_b)))) on the present weights, which leaves the joint law of all rungs
invariant (Geyer, 1991). Which chains meet is drawn anew in every iteration.

Not implemented: a ladder that follows the weights.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.chains.base import ChainSource
from gwg_dist.chains.buffer import ChainBuffer
from gwg_dist.reference import Reference
from gwg_dist.samplers import ChainResult, Sampler, Target, run_chain
from gwg_dist.samplers.parallel_tempering import checked_ladder, swap_probability
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError


class Cold(NamedTuple):
    """The chains at β = 1 after their swaps: ``x`` ``(B, ...)``, ``f`` ``(B,)``, ``beta`` 0-d."""

    x: Tensor
    f: Tensor
    beta: Tensor


class TemperedChains(ChainSource):
    """Persistent chains at every beta of a ladder, swapped between neighbours after the steps of an iteration.

    A ladder of R betas costs R times the steps of ``ChainBuffer``. Any kernel moves the chains, by the fast path that
    it has. Chains at β = 0 are drawn from the reference anew. A checkpoint holds the chains of all rungs.

    Args:
        betas: the ladder, ascending within [0, 1]; the last is 1, whose chains the loss sees.
        size: number of chains on a rung, on all ranks together; "auto" leaves it to a run's recipe, and is 10,000
            elsewhere.
        init: where chains are born: "reference", "data" or "uniform".

    Raises:
        ValueError: a ladder of one beta, betas that do not ascend from 0 or more to 1, a size below 1, an unknown init.
    """

    def __init__(
        self,
        *,
        betas: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.0),
        size: int | Literal["auto"] = 10_000,
        init: str = "reference",
    ) -> None:
        self.betas = checked_ladder(betas)
        self.rungs = [ChainBuffer(size=size, init=init, restart_prob=float(beta == 0)) for beta in self.betas]

    @property
    def size(self) -> int:
        """Number of chains on a rung."""
        return self.rungs[-1].size

    @size.setter
    def size(self, value: int) -> None:
        for rung in self.rungs:
            rung.size = value

    def setup(
        self,
        space: Space,
        reference: Reference,
        data: Tensor,
        *,
        generator: torch.Generator,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().setup(space, reference, data, generator=generator, rank=rank, world_size=world_size)
        for rung in self.rungs:
            rung.setup(space, reference, data, generator=generator, rank=rank, world_size=world_size)

    def advance(
        self,
        kernel: Sampler,
        target: Target,
        batch: Batch,
        *,
        num_steps: int,
        generator: torch.Generator,
        backend: str = "auto",
    ) -> ChainResult:
        """As many chains of every rung as the batch has points, ``num_steps`` transitions each, then swaps."""
        num, num_rungs = len(batch.codes), len(self.rungs)
        starts = [rung.start(batch.codes, generator=generator) for rung in self.rungs]
        x = target.encode(torch.cat([start.codes for start in starts]))
        betas = torch.tensor(self.betas, dtype=x.dtype, device=x.device)[:, None].expand(-1, num)
        chain = run_chain(
            kernel, target, x, num_steps=num_steps, generator=generator, beta=betas.flatten(), backend=backend
        )
        f = chain.state.f.view(num_rungs, num)
        order, prob = swapped(f, betas, generator)
        x = chain.x.view(num_rungs, num, *x.shape[1:])[order, torch.arange(num, device=x.device)]
        codes = target.space.decode(x.flatten(0, 1)).view(num_rungs, num, -1)
        for rung, start, ends in zip(self.rungs, starts, codes, strict=True):
            rung.keep(start, ends)
        cold = Cold(x[-1], f.gather(0, order)[-1], betas.new_ones(()))
        accept_prob, hops = (value.view(num_rungs, num)[-1] for value in (chain.accept_prob, chain.hops))
        return ChainResult(cold, accept_prob, hops, prob.mean(0))

    def interval(self, batch_size: int) -> float:
        return self.rungs[-1].interval(batch_size)

    def num_bytes(self, space: Space) -> int:
        return sum(rung.num_bytes(space) for rung in self.rungs)

    def check_batch(self, batch_size: int) -> None:
        self.rungs[-1].check_batch(batch_size)

    def check_saved(self, packed: Tensor | None) -> None:
        total = self.size * len(self.rungs)
        if packed is None or len(packed) != total:
            found = "none" if packed is None else len(packed)
            raise InputError(
                f"the checkpoint's chains do not fit this run: {found} there, "
                f"{self.size} at each of {len(self.rungs)} betas in the settings"
            )

    def of_model(self, packed: Tensor) -> Tensor:
        return packed[-self.size :]

    def first_codes(self, num: int) -> Tensor:
        return self.rungs[-1].first_codes(num)

    def gather(self) -> Tensor:
        """The packed chains of all ranks, rung by rung, the hottest first."""
        return torch.cat([rung.gather() for rung in self.rungs])

    def restore(self, packed: Tensor | None) -> None:
        """Raises InputError where the checkpoint holds no chains, or another number of them."""
        self.check_saved(packed)
        assert packed is not None
        for rung, rows in zip(self.rungs, packed.split(self.size), strict=True):
            rung.restore(rows)


def swapped(f: Tensor, betas: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Swaps of all neighbours of a ladder, those that start at an even rung first, then those at an odd one.

    Args:
        f: f of the chains on each rung, ``(R, B)`` nats.
        betas: betas of the rungs, the same shape.
        generator: generator on the device of ``f``.

    Returns:
        ``(R, B)`` int64, from which rung each one's chain comes, and the probability of the swap of each pair when it
        was its turn, ``(R - 1, B)`` float64.
    """
    order = torch.arange(len(f), device=f.device)[:, None].expand(f.shape).clone()
    probs = torch.zeros(len(f) - 1, f.shape[1], dtype=torch.float64, device=f.device)
    uniform = torch.rand(probs.shape, generator=generator, device=f.device, dtype=torch.float64)
    for first in (0, 1):
        probs[first::2] = swap_probability(f.gather(0, order), betas)[first::2]
        for low in range(first, len(probs), 2):
            made = uniform[low] < probs[low]
            order[low], order[low + 1] = (
                torch.where(made, order[low + 1], order[low]),
                torch.where(made, order[low], order[low + 1]),
            )
    return order, probs
