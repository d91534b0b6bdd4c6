"""Data as a pure function of (seed, iteration).

The batch of an iteration is the same however often the run was interrupted and on however many ranks it runs: rank r
takes its share of the global batch. So nothing about data is in a checkpoint, and a resumed run continues in the middle
of an epoch bit for bit. Splits and once-drawn binarisations come from a seed of their own that never changes.

Not implemented: data sets larger than memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from gwg_dist.batch import Batch, weighted_mean
from gwg_dist.data.forms import Grey
from gwg_dist.data.points import WRITTEN, read_points, write_points
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import rank, share, world_size
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import fixed_generator, make_generator

FOLDER = "folder"  # among the sources of a class: a folder of files
DEFAULT_BATCH_SIZE = 100
NUMBERS_AT_ONCE = 2**22  # codes that are counted together
BINARIZATIONS = ("dynamic", "static", "threshold")


@dataclass(frozen=True, eq=False)
class Splits:
    """Three sets of points; iterating gives the three. A weight says how many points one stands for.

    Args:
        train: ``(N, D)`` codes, or intensities in [0, 1] of images that are binarised anew in every batch.
        validation: ``(N, D)`` codes.
        test: ``(N, D)`` codes.
        train_weights: ``(N,)`` of the training points, not negative; None where each counts once. Their scale does not
            matter.
        validation_weights: ``(N,)``, likewise.
        test_weights: ``(N,)``, likewise.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    train_weights: Tensor | None = None
    validation_weights: Tensor | None = None
    test_weights: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.train, self.validation, self.test))

    @property
    def parts(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Points and weights by the name of the split."""
        return {
            "train": (self.train, self.train_weights),
            "validation": (self.validation, self.validation_weights),
            "test": (self.test, self.test_weights),
        }


class DiscreteData(LightningDataModule, ABC):
    """A data set in a discrete space. A new one is one file with one method, ``load``.

    Args:
        space: where its points live; known before the data are read.
        batch_size: points in an iteration, on all ranks together. The default of 100 becomes the number of training
            points where that is smaller.

    Raises:
        ValueError: a batch_size below 1.
    """

    sources: ClassVar[tuple[str, ...]] = ()
    """What a user's own data of this class come as: suffixes of files such as ".npz", or FOLDER."""

    paths: ClassVar[tuple[str, ...]] = ()
    """The settings that hold a path; a run keeps them absolute."""

    has_lines: bool = False
    """Whether people read its points as lines of text, see ``lines``."""

    is_aligned: bool = False
    """Whether its sites are the columns of an alignment, and so lie along a chain."""

    label_site: int | None = None
    """The site, from 0, that holds the label of a point; None where none is one."""

    beside: str = ""
    """The suffix of a file, written by ``write_file`` beside an .npz of samples; "" writes none."""

    def __init__(self, space: Space, *, batch_size: int = 100) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self.space = space
        self.batch_size = batch_size
        self.seed = 0
        self.notes: list[str] = []  # what was found out about the data, for people
        self.values: list[int] | None = None  # what files hold for the codes 0, 1, ...; None: the codes themselves
        self.order: str | None = None  # of packed bits in the file, "big" or "little"
        self.grey: Grey | None = None  # how the file's grey levels became categories
        self._splits: Splits | None = None
        self._order: tuple[int, Tensor] | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Read or make the data. Called once a process, on the first use of ``splits``.

        Raises:
            InputError: a file that cannot be used, naming the file and the field.
        """

    @classmethod
    def reads(cls, path: Path) -> bool:
        """Whether the content of a file is what this class reads. Where no class says so, the suffix decides.

        Args:
            path: a file that exists.
        """
        del path
        return False

    @property
    def splits(self) -> Splits:
        if self._splits is None:
            splits = self.load()
            try:
                for name, (points, weights) in splits.parts.items():
                    if not points.is_floating_point():
                        self.space.check_codes(points, f"{name} data")
                    if weights is not None and len(points):
                        check_weights(weights, len(points), f"{name} weights")
            except ValueError as error:
                raise InputError(f"data {type(self).__name__}: {error}") from error
            splits = without_weightless(splits)
            if self.batch_size == DEFAULT_BATCH_SIZE:
                self.batch_size = min(self.batch_size, len(splits.train))
            if len(splits.train) < self.batch_size:
                raise InputError(
                    f"batch_size must be at most the {len(splits.train)} training points, got {self.batch_size}"
                )
            self._splits = splits
        return self._splits

    def kept(self) -> dict[str, Any]:
        """What checkpoints keep, for questions to the model when the data are gone: plain values, see ``of_kept``.

        A class that overrides ``encode_file`` or the names of categories overrides both.
        """
        grey = None if self.grey is None else list(self.grey)
        return {"class": class_name(type(self)), "values": self.values, "order": self.order, "grey": grey}

    @classmethod
    def of_kept(cls, space: Space, kept: dict[str, Any]) -> DiscreteData:
        """A data set without points that reads, writes and names codes as the one did whose ``kept()`` this is.

        Args:
            space: where its points lived.
            kept: what ``kept()`` was.

        Raises:
            KeyError: something is missing in it.
        """
        found = _NoPoints(space)
        found.take_kept(kept)
        return found

    def take_kept(self, kept: dict[str, Any]) -> None:
        """Take what every data set keeps; what is missing is None."""
        self.values, self.order = kept.get("values"), kept.get("order")
        self.grey = None if kept.get("grey") is None else Grey(*kept["grey"])

    # -- questions to a model: what another file, a site and a category are called ------------------------------------

    def encode_file(self, path: str | Path, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
        """Points of another file as codes ``(N, D)`` int64 of this space, and a name for each.

        Here a file of arrays or a table of codes, or of ``values``, see ``read_points``. A class whose files hold
        letters or text overrides this, ``write_file`` and ``category_names``; one whose sites have names,
        ``site_names``.

        Args:
            path: the file.
            missing_as: the code of a missing site in what is returned; None refuses missing sites.

        Raises:
            InputError: a file that cannot be used, naming the file and the line or the point.
        """
        return read_points(
            path, self.space, missing_as=missing_as, values=self.values, order=self.order, grey=self.grey
        )

    @property
    def writes(self) -> tuple[str, ...]:
        """The suffixes of files that ``write_file`` writes."""
        return WRITTEN

    def write_file(self, path: str | Path, codes: Tensor, names: Sequence[str]) -> None:
        """Write codes ``(N, D)`` as a file that ``encode_file`` reads, the kind by the suffix of ``path``.

        Raises:
            InputError: a suffix that this class does not write.
            OSError: the file cannot be written.
        """
        write_points(path, codes, names, self.space, values=self.values)

    @property
    def distances(self) -> Tensor | None:
        """Distances between sites in Å, ``(D, D)``, nan where unknown; None where, as here, the data have none."""
        return None

    @property
    def reference(self) -> str | None:
        """Letters of the sites that a structure's chain is aligned to; None where, as here, they have none."""
        return None

    @property
    def columns(self) -> Tensor:
        """Where each site lies along the chain or in the file, ``(D,)`` int64, rising: here its number from 0."""
        return torch.arange(self.space.num_sites)

    def blanks(self) -> Tensor:
        """The category of each site that stands for a missing cell, ``(D,)`` int64; -1 where, as here, none does."""
        return torch.full((self.space.num_sites,), -1)

    def point_names(self, split: str) -> list[str]:
        """A name for each point of a split: here that of the split and its number from 1."""
        return [f"{split} {n + 1}" for n in range(len(self.splits.parts[split][0]))]

    def site_names(self) -> list[str]:
        """What the sites are called, ``D`` names: here their numbers from 1."""
        return [str(site + 1) for site in range(self.space.num_sites)]

    def category_names(self) -> list[list[str]]:
        """What the categories of each site are called, by site: here ``values``, or numbers from 0."""
        if self.values is not None:
            return [[str(value) for value in self.values[:size]] for size in self.space.sizes]
        return [[str(k) for k in range(size)] for size in self.space.sizes]

    def lines(self, codes: Tensor) -> list[str]:
        """A line for each point of ``(N, D)``: the names of its categories in a row."""
        names = self.category_names()
        return ["".join(names[site][k] for site, k in enumerate(row)) for row in codes.tolist()]

    def train_codes(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Codes of training points; images that are binarised dynamically draw them here.

        Args:
            rows: numbers of the points.
            generator: of the draws; codes need none.
        """
        points = self.splits.train[rows]
        if points.is_floating_point():
            return (torch.rand(points.shape, generator=generator) < points).to(torch.uint8)
        return points

    def sample_codes(self, num: int) -> Tensor:
        """``num`` training points drawn with replacement by their weights, the same ones for the same ``seed``."""
        generator = make_generator(self.seed, "data sample")
        weights = self.splits.train_weights
        if weights is None:
            rows = torch.randint(len(self.splits.train), (num,), generator=generator)
        else:
            edges = weights.double().cumsum(0)
            rows = torch.searchsorted(
                edges, edges[-1] * torch.rand(num, generator=generator, dtype=edges.dtype), right=True
            )
            rows.clamp_(max=len(edges) - 1)
        return self.train_codes(rows, generator)

    def frequencies(self) -> Tensor:
        """The weighted share of the training points that take each category at each site, ``(D, K)`` float64."""
        train, weights = self.splits.train, self.splits.train_weights
        if train.is_floating_point():
            mean = weighted_mean(train.double(), weights)
            return torch.stack([1 - mean, mean], 1)
        weights = torch.ones(len(train)).double() if weights is None else weights.double()
        counts = torch.zeros(self.space.num_sites, self.space.num_categories, dtype=torch.float64)
        rows = max(NUMBERS_AT_ONCE // self.space.num_sites, 1)
        for codes, w in zip(train.split(rows), weights.split(rows), strict=True):
            counts.scatter_add_(1, codes.T.long(), w.expand(self.space.num_sites, -1))
        return counts / weights.sum()

    def batch(self, iteration: int) -> Batch:
        """This rank's share of an iteration's points, with weights of mean one over all ranks' points."""
        num_batches = len(self.splits.train) // self.batch_size
        epoch, index = divmod(iteration, num_batches)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.splits.train), generator=make_generator(self.seed, "data order", epoch))
            self._order = (epoch, order)
        rows = self._order[1][index * self.batch_size : (index + 1) * self.batch_size]
        drawn = self.splits.train.is_floating_point()
        codes = self.train_codes(rows, make_generator(self.seed, "data noise", iteration) if drawn else None)
        weights = torch.ones(len(rows))
        if self.splits.train_weights is not None:
            weights = self.splits.train_weights[rows].double()
            weights = (weights / weights.mean()).float()
        mine = share(self.batch_size, rank(), world_size())
        return Batch(codes[mine], weights[mine])

    def check_ranks(self, num: int) -> None:
        """Raise InputError where a batch cannot give a point to each of ``num`` ranks."""
        if self.batch_size < num:
            raise InputError(f"data.batch_size must be at least the {num} processes, got {self.batch_size}")

    def setup(self, stage: str) -> None:
        """Read the data on this rank. Raises InputError, see ``check_ranks`` and ``load``."""
        del stage
        self.check_ranks(world_size())
        _ = self.splits

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on ``device``, without Lightning's search through what a batch might hold."""
        far = device.type == "cuda"
        return Batch(batch.codes.to(device, non_blocking=far), batch.weights.to(device, non_blocking=far))

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(_Iterations(self), batch_size=None)


class _NoPoints(DiscreteData):
    """A space without data."""

    def load(self) -> Splits:
        raise InputError("the run's data are gone")


class _Iterations(IterableDataset[Batch]):
    """The endless stream of batches, from the trainer's current iteration on."""

    def __init__(self, data: DiscreteData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Batch]:
        iteration = self.data.trainer.global_step if self.data.trainer is not None else 0
        while True:
            yield self.data.batch(iteration)
            iteration += 1


def class_name(kind: type[DiscreteData]) -> str:
    """The name of a class with that of its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def check_weights(weights: Tensor, num: int, name: str = "weights") -> None:
    """Raise ValueError unless ``weights`` holds ``num`` finite numbers, none negative and not all zero."""
    if tuple(weights.shape) != (num,):
        raise ValueError(f"{name} must have shape ({num},), one for each point, got {tuple(weights.shape)}")
    if not torch.isfinite(weights.double()).all() or weights.min() < 0:
        raise ValueError(f"{name} must be finite and not negative, got values from {weights.min()} to {weights.max()}")
    if not weights.any():
        raise ValueError(f"{name} must not all be zero")


def without_weightless(splits: Splits) -> Splits:
    """Leave out training points of weight zero, so that no batch consists of them alone."""
    weights = splits.train_weights
    if weights is None or weights.all():
        return splits
    return replace(splits, train=splits.train[weights > 0], train_weights=weights[weights > 0])


def split_rows(points: Tensor, num_validation: int, num_test: int, *, weights: Tensor | None = None) -> Splits:
    """Shuffle with the fixed seed, then cut: test first, validation next, the rest for training. Weights go along."""
    order = torch.randperm(len(points), generator=fixed_generator("split"))
    sizes = [num_test, num_validation, len(points) - num_test - num_validation]
    test, validation, train = points[order].split(sizes)
    if weights is None:
        return Splits(train, validation, test)
    test_weights, validation_weights, train_weights = weights[order].split(sizes)
    return Splits(train, validation, test, train_weights, validation_weights, test_weights)


def binarize(splits: Splits, binarization: str) -> Splits:
    """Binary codes from intensities in [0, 1]; weights stay.

    "dynamic": training points stay intensities and are drawn anew in every batch; validation and test are drawn once.
    "static": all are drawn once, with the fixed seed. "threshold": 1 where the intensity is at least one half.
    """
    if binarization == "threshold":
        drawn = {name: (part >= 0.5).to(torch.uint8) for name, (part, _) in splits.parts.items()}
        return replace(splits, **drawn)
    drawn = {}
    for name, (part, _) in splits.parts.items():
        generator = fixed_generator(f"binarize {name}")
        drawn[name] = (torch.rand(part.shape, generator=generator) < part).to(torch.uint8)
    once = replace(splits, **drawn)
    return replace(once, train=splits.train.float()) if binarization == "dynamic" else once


def check_binarization(binarization: str, *more: str) -> None:
    """Raise ValueError unless ``binarization`` is one of the three, or of ``more``."""
    known = (*BINARIZATIONS, *more)
    if binarization not in known:
        raise ValueError(f"binarization must be one of {', '.join(known)}, got {binarization!r}")
