"""Data as a pure function of (seed, iteration).

The batch of an iteration is the same however often the run was interrupted and on however many ranks it runs: rank r
takes its share of the global batch. So nothing about data is in a checkpoint, and a resumed run continues in the middle
of an epoch bit for bit. Splits and once-drawn binarisations come from a seed of their own that never changes.

Not implemented: data sets larger than memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from gwg_dist.distributed import rank, share, world_size
from gwg_dist.errors import InputError
from gwg_dist.seeding import make_generator
from gwg_dist.spaces import Space

FIXED_SEED = 0
BINARIZATIONS = ("dynamic", "static", "threshold")


class Splits(NamedTuple):
    """Three sets, each ``(N, D)``: codes, or intensities in [0, 1] for training images binarised anew each batch."""

    train: Tensor
    validation: Tensor
    test: Tensor


class DiscreteData(LightningDataModule, ABC):
    """A data set in a discrete space. A new one is one file with one method, ``load``.

    Args:
        space: where its points live; known before the data are read.
        batch_size: points in an iteration, on all ranks together.

    Raises:
        ValueError: a batch_size below 1.
    """

    def __init__(self, space: Space, *, batch_size: int = 100) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self.space = space
        self.batch_size = batch_size
        self.seed = 0
        self._splits: Splits | None = None
        self._order: tuple[int, Tensor] | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Read or make the data. Called once a process, on the first use of ``splits``.

        Raises:
            InputError: a file that cannot be used, naming the file and the field.
        """

    @property
    def splits(self) -> Splits:
        if self._splits is None:
            splits = self.load()
            for name, codes in zip(Splits._fields, splits, strict=True):
                try:
                    if not codes.is_floating_point():
                        self.space.check_codes(codes, f"{name} data")
                except ValueError as error:
                    raise InputError(f"data {type(self).__name__}: {error}") from error
            if len(splits.train) < self.batch_size:
                raise InputError(
                    f"batch_size must be at most the {len(splits.train)} training points, got {self.batch_size}"
                )
            self._splits = splits
        return self._splits

    def train_codes(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Codes of training points; images that are binarised dynamically draw them here."""
        points = self.splits.train[rows]
        if points.is_floating_point():
            return (torch.rand(points.shape, generator=generator) < points).to(torch.uint8)
        return points

    def sample_codes(self, num: int) -> Tensor:
        """``num`` training points drawn with replacement, always the same ones for the same ``seed``."""
        generator = make_generator(self.seed, "data sample")
        return self.train_codes(torch.randint(len(self.splits.train), (num,), generator=generator), generator)

    def frequencies(self) -> Tensor:
        """How often each site of the training points takes each category, ``(D, K)`` float64."""
        train = self.splits.train
        if train.is_floating_point():
            mean = train.double().mean(0)
            return torch.stack([1 - mean, mean], 1)
        counts = [(train == k).double().mean(0) for k in range(self.space.num_categories)]
        return torch.stack(counts, 1)

    def batch(self, iteration: int) -> Tensor:
        """This rank's share of the codes of an iteration, ``(share, D)``."""
        num_batches = len(self.splits.train) // self.batch_size
        epoch, index = divmod(iteration, num_batches)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.splits.train), generator=make_generator(self.seed, "data order", epoch))
            self._order = (epoch, order)
        rows = self._order[1][index * self.batch_size : (index + 1) * self.batch_size]
        codes = self.train_codes(rows, make_generator(self.seed, "data noise", iteration))
        return codes[share(self.batch_size, rank(), world_size())]

    def setup(self, stage: str) -> None:
        del stage
        _ = self.splits

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(_Iterations(self), batch_size=None)


class _Iterations(IterableDataset[Tensor]):
    """The endless stream of batches, from the trainer's current iteration on."""

    def __init__(self, data: DiscreteData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        iteration = self.data.trainer.global_step if self.data.trainer is not None else 0
        while True:
            yield self.data.batch(iteration)
            iteration += 1


def split_rows(points: Tensor, num_validation: int, num_test: int) -> Splits:
    """Shuffle with the fixed seed, then cut: test first, validation next, the rest for training."""
    points = points[torch.randperm(len(points), generator=make_generator(FIXED_SEED, "split"))]
    test, validation, train = points.split([num_test, num_validation, len(points) - num_test - num_validation])
    return Splits(train, validation, test)


def binarize(splits: Splits, binarization: str) -> Splits:
    """Binary codes from intensities in [0, 1].

    "dynamic": training points stay intensities and are drawn anew in every batch; validation and test are drawn once.
    "static": all are drawn once, with the fixed seed. "threshold": 1 where the intensity is at least one half.
    """
    if binarization == "threshold":
        return Splits(*((part >= 0.5).to(torch.uint8) for part in splits))
    drawn = []
    for name, part in zip(Splits._fields, splits, strict=True):
        generator = make_generator(FIXED_SEED, f"binarize {name}")
        drawn.append((torch.rand(part.shape, generator=generator) < part).to(torch.uint8))
    once = Splits(*drawn)
    return once._replace(train=splits.train.float()) if binarization == "dynamic" else once


def check_binarization(binarization: str, *more: str) -> None:
    """Raise ValueError unless ``binarization`` is one of the three, or of ``more``."""
    known = (*BINARIZATIONS, *more)
    if binarization not in known:
        raise ValueError(f"binarization must be one of {', '.join(known)}, got {binarization!r}")
