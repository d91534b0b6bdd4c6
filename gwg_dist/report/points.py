"""What the model of a run shows: samples beside data, their nearest training points, statistics, couplings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.evaluation.contacts import Precision, contact_precision, ranked_pairs
from gwg_dist.evaluation.family import FamilyComparison, compare_family
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import fixed_generator
from gwg_dist.training.couplings import NUM_SHOWN, couplings_of, gap_of, separation_of
from gwg_dist.training.family import MAX_NUMBERS, MAX_OTHERS, MAX_TRAIN, some
from gwg_dist.training.loading import LoadedRun

NUM_POINTS = 12
MAX_COUNTS, MIN_COUNTED = 10**9, 500  # pairs of sites of all points that are counted, twice; and points at least
CUTOFF = 8.0  # Å, below which sites are in contact
COMPARED_AT_ONCE = 2**26  # sites of pairs of points
MAX_SITES = 4096  # of couplings that are drawn


class Beside(NamedTuple):
    """Samples beside data, as codes.

    Args:
        samples: ``(n, D)``.
        nearest: the training point nearest to each sample, ``(n, D)``.
        distances: sites at which it differs, ``(n,)``.
        data: other training points, ``(m, D)``.
    """

    samples: Tensor
    nearest: Tensor
    distances: Tensor
    data: Tensor


class Pairs(NamedTuple):
    """Which sites a model of pairs couples.

    Args:
        scores: ``(D, D)``.
        strongest: names of two sites and their score.
        distances: between sites in Å, ``(D, D)``; None where they are not known.
        precision: the share of contacts among the strongest; None where no distance is known.
    """

    scores: Tensor
    strongest: list[tuple[str, str, float]]
    distances: Tensor | None
    precision: Precision | None


@dataclass(frozen=True)
class Shown:
    """What can be shown of a model, and in words what cannot.

    Args:
        beside: samples beside data.
        statistics: of samples beside those of data.
        pairs: couplings of a model of pairs.
        missing: why a part is missing, by its name.
    """

    beside: Beside | None = None
    statistics: FamilyComparison | None = None
    pairs: Pairs | None = None
    missing: dict[str, str] = field(default_factory=dict)


def show(loaded: LoadedRun) -> Shown:
    """Everything that the model, its chains and its data show."""
    missing: dict[str, str] = {}
    beside = statistics = pairs = None
    samples = samples_of(loaded)
    if samples is None:
        missing["samples"] = missing["statistics"] = "the run keeps no chains: “sample --start reference” draws samples"
    else:
        with _noting(missing, "samples"):
            beside = beside_data(loaded.data, samples)
        with _noting(missing, "statistics"):
            statistics = statistics_of(loaded.data, samples)
    with _noting(missing, "couplings"):
        pairs = pairs_of_run(loaded)
    return Shown(beside, statistics, pairs, missing)


@contextmanager
def _noting(missing: dict[str, str], name: str) -> Iterator[None]:
    """Note why a part is missing, in place of an InputError."""
    try:
        yield
    except InputError as error:
        missing[name] = str(error)


def samples_of(loaded: LoadedRun) -> Tensor | None:
    """Codes of the persistent chains, ``(N, D)``; None where the run keeps none."""
    packed = loaded.checkpoint["chains"]["packed"]
    if packed is None:
        return None
    return loaded.module.space.unpack(some(loaded.module.chains.of_model(packed), MAX_OTHERS))


def beside_data(data: DiscreteData, samples: Tensor) -> Beside:
    """Samples, the training points nearest to them, and others. Raises InputError where the data are gone."""
    train = data.splits.train
    if train.is_floating_point():
        train = (train >= 0.5).to(samples.dtype)
    shown = some(samples, NUM_POINTS)
    rows, distances = nearest_rows(shown, train)
    return Beside(shown, train[rows], distances, some(train, NUM_POINTS))


def nearest_rows(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``points`` ``(N, D)`` the row of the nearest of ``others`` ``(M, D)`` and the sites that differ."""
    best = torch.full((len(points),), points.shape[1] + 1)
    rows = torch.zeros(len(points), dtype=torch.long)
    start = 0
    for part in others.split(max(COMPARED_AT_ONCE // max(points.numel(), 1), 1)):
        found, where = (points[:, None] != part[None]).sum(2).min(1)
        rows = torch.where(found < best, start + where, rows)
        best = torch.minimum(found, best)
        start += len(part)
    return rows, best


def statistics_of(data: DiscreteData, samples: Tensor) -> FamilyComparison | None:
    """One-, two- and three-site statistics. Raises InputError where there are too many, or the data are gone."""
    space = data.space
    if space.num_sites < 2 or space.num_sites * space.width > MAX_NUMBERS:
        raise InputError(f"tables of pairs need 2 sites or more, and at most {MAX_NUMBERS:,} numbers of a point")
    train, weights = data.splits.parts["train"]
    rows = some(torch.arange(len(train)), min(max(MAX_COUNTS // space.num_sites**2, MIN_COUNTED), MAX_TRAIN))
    codes = data.train_codes(rows, fixed_generator("binarize for a report"))
    held_out = some(torch.cat([data.splits.validation, data.splits.test]), len(rows))
    samples = some(samples, len(rows))
    weights = None if weights is None else weights[rows]
    return compare_family(codes, samples, held_out, space.num_categories, weights=weights)


def pairs_of_run(loaded: LoadedRun) -> Pairs | None:
    """Couplings of a model of pairs; None for other models, and for one too large to draw."""
    module, data = loaded.module, loaded.data
    num = module.space.num_sites
    if module.energy.pair_weights() is None or not 2 <= num <= MAX_SITES:
        return None
    gap = gap_of(data)
    distances = data.distances
    separation = separation_of(data, distances, None)
    found = couplings_of(module, data, gap=gap)
    ranked = ranked_pairs(found.scores, min_separation=separation, columns=data.columns)
    names = data.site_names()
    strongest = [(names[i], names[j], float(found.scores[i, j])) for i, j in ranked[:NUM_SHOWN].tolist()]
    precision = None
    if distances is not None:
        precision = contact_precision(
            found.scores, distances, min_separation=separation, cutoff=CUTOFF, columns=data.columns
        )
    return Pairs(found.scores, strongest, distances, precision)


def is_image(space: Space) -> bool:
    """Whether points are pictures."""
    return len(space.shape) in (2, 3)
