"""The interface of a source of chains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.reference import Reference
from gwg_dist.samplers import ChainResult, Sampler, Target, run_chain
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError


class Start(NamedTuple):
    """Where a batch of chains starts.

    Args:
        codes: points ``(B, D)``.
        rows: the source's rows that they come from.
        fresh: those drawn from the reference just now, ``(B, 1)`` booleans; None where none is.
    """

    codes: Tensor
    rows: Tensor
    fresh: Tensor | None = None


class ChainSource(ABC):
    """Moves the chains of an iteration and keeps what it wants of them; it may veto an update of the weights."""

    may_veto: ClassVar[bool] = False
    """Whether ``accepts`` can say no. Only then are the weights of before the update kept until it was asked."""

    tells_starts: ClassVar[bool] = False
    """Whether ``last_start`` says after every move which of its rows were moved, and from where."""

    last_start: Start | None = None
    of_reference: bool = False
    """Whether the first chains are draws from the reference."""

    betas: tuple[float, ...] = (1.0,)
    """Betas of the chains that ``gather`` returns, each of as many rows. A checkpoint holds them beside the chains."""

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
        """Make this rank's share of the chains on the generator's device. ``data`` holds codes ``(N, D)``."""
        self.space = space
        self.reference = reference
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
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
        """Move the chains of this rank's iteration on the present weights, and keep them.

        Args:
            kernel: leaves ``target`` invariant.
            target: the model.
            batch: this rank's points of the data.
            num_steps: transitions a chain.
            generator: generator of this rank.
            backend: how chains are run, see ``plan_chains``.
        """

    def interval(self, batch_size: int) -> float:
        """Mean number of iterations from one visit of a chain to the next, for a batch of all ranks together."""
        del batch_size
        return 1.0

    def num_bytes(self, space: Space) -> int:
        """What the chains of all ranks take while they are kept; 0 where none are."""
        del space
        return 0

    def check_batch(self, batch_size: int) -> None:
        """Raise InputError where so many chains cannot be moved in an iteration, on all ranks together."""
        del batch_size

    def check_saved(self, packed: Tensor | None) -> None:
        """Raise InputError where ``restore`` cannot take these chains; asked before processes start."""
        if packed is not None:
            raise InputError(f"the checkpoint's chains do not fit this run: {len(packed)} there, none in the settings")

    def accepts(self, target: Target) -> bool:
        """Whether the chains can follow ``target``, whose weights have just been updated.

        Asked on every rank after every update where ``may_veto`` is True. Where any rank says no, weights and optimizer
        go back to what they were before the update, on all ranks.
        """
        del target
        return True

    def first_codes(self, num: int) -> Tensor | None:
        """Codes of at most ``num`` chains of the model that this rank keeps, to look at; None where none are kept."""
        del num
        return None

    def gather(self) -> Tensor | None:
        """The packed chains of all ranks; called on every rank. None where nothing is kept."""
        return None

    def of_model(self, packed: Tensor) -> Tensor:
        """The rows of what ``gather`` returned that are chains of the model itself."""
        return packed

    def restore(self, packed: Tensor | None) -> None:
        """Take this rank's share of what ``gather`` returned, on any number of ranks."""
        del packed


class StartAndKeep(ChainSource):
    """A source whose chains are moved by the kernel alone: it says where they start and takes back their ends."""

    @abstractmethod
    def start(self, data: Tensor, *, generator: torch.Generator) -> Start:
        """Where one chain per row of ``data``, codes ``(B, D)``, starts."""

    @abstractmethod
    def keep(self, start: Start, codes: Tensor) -> None:
        """Take the ends of the chains that began at ``start``."""

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
        """As many chains as the batch has points, ``num_steps`` transitions each."""
        start = self.last_start = self.start(batch.codes, generator=generator)
        x = target.encode(start.codes)
        chain = run_chain(kernel, target, x, num_steps=num_steps, generator=generator, backend=backend)
        self.keep(start, target.space.decode(chain.x))
        return chain
