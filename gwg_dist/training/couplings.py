"""The couplings of a run's model: their table, their picture, and how many of the strongest are contacts."""

from __future__ import annotations

import contextlib
import copy
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.data.distances import KINDS, read_distances
from gwg_dist.evaluation.contacts import (
    MIN_SEPARATION,
    Precision,
    contact_precision,
    contact_scores,
    mean_field_couplings,
    ranked_pairs,
)
from gwg_dist.evaluation.effective import effective_couplings, num_evaluations, pairs_of
from gwg_dist.evaluation.statistics import pair_statistics
from gwg_dist.module import EBMModule
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Space
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, replacing
from gwg_dist.tools.terminal import console, make_progress, say, track
from gwg_dist.training.contact_map import draw_map
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.sampling import usual_file

PSEUDOCOUNT = 0.5  # of mean-field couplings
NUM_SHOWN = 10
NAMES = ("L/5", "L/2", "L", "2L")
GAP = "-"


class Truth(NamedTuple):
    """Where the distances between sites are; see ``read_distances``. ``cutoff`` in Å is where contact ends.

    ``kind``, ``chain`` and ``sequence`` say how the file is read; None of ``kind`` is "cb".
    """

    distances: str | None = None
    kind: str | None = None
    chain: str | None = None
    sequence: str | None = None
    cutoff: float = 8.0

    def check(self) -> None:
        """Raise InputError for a setting outside its range, or one of a file that is not given."""
        if not self.cutoff > 0:
            raise InputError(f"cutoff must be positive, got {self.cutoff}")
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, value in (("kind", self.kind), ("chain", self.chain), ("sequence", self.sequence)):
            if self.distances is None and value is not None:
                raise InputError(f"{name} says how a file of distances is read: give --distances too, got {value!r}")

    def read(self, data: DiscreteData) -> Tensor | None:
        """``(D, D)`` in Å, those of the data where no file is given; None where none are known.

        A structure's chain is aligned to ``sequence``, or to the reference of the data.
        """
        if self.distances is None:
            return data.distances
        return read_distances(
            self.distances,
            data.space.num_sites,
            chain=self.chain,
            sequence=self.sequence or data.reference,
            kind=self.kind or KINDS[0],
            name="distances",
        )


class Couplings(NamedTuple):
    """What a model couples.

    Args:
        couplings: J in the gauge of zero sums, ``(D, D, K, K)`` float64; -E holds every pair once.
        fields: h of log p, the reference's part included, in that gauge, ``(D, K)``; None unless the model is of pairs.
        scores: ``(D, D)``.
    """

    couplings: Tensor
    fields: Tensor | None
    scores: Tensor


def couplings_of_run(
    run: str | Path,
    truth: Truth | None = None,
    *,
    gap: int | None = None,
    min_separation: int | None = None,
    num_points: int = 1,
    checkpoint: str = "best",
    out: Path | None = None,
    seed: int = 0,
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Find, show and write the couplings of a run; see ``gwg_dist.couplings``. Returns the .npz.

    Raises:
        InputError: a setting or a file that does not fit.
    """
    truth = truth or Truth()
    loaded = load_run(run, checkpoint, device=device, trust=trust)
    space, data = loaded.module.space, loaded.data
    truth.check()
    check(space, gap, num_points)
    gap = gap_of(data) if gap is None else gap
    distances = truth.read(data)
    min_separation = separation_of(data, distances, min_separation)
    path = place_of(loaded, Path(run), out)
    data.seed = seed
    found = couplings_of(loaded.module, data, num_points=num_points, gap=gap)
    pairs = ranked_pairs(found.scores, min_separation=min_separation, columns=data.columns)
    write_arrays(path, found)
    write_pairs(path.with_suffix(".csv"), found.scores, pairs, distances, data.site_names())
    show_pairs(found.scores, pairs[:NUM_SHOWN], distances, data.site_names())
    if distances is not None:
        show_precision(found.scores, distances, data, gap, min_separation, truth.cutoff)
    written = [path, path.with_suffix(".csv")]
    if draw_map(path.with_suffix(".png"), found.scores, pairs[: space.num_sites], distances, cutoff=truth.cutoff):
        written.append(path.with_suffix(".png"))
    say("written: " + ", ".join(map(str, written)))
    return path


def check(space: Space, gap: int | None, num_points: int) -> None:
    """Raise InputError for a setting outside its range."""
    if gap is not None and not 0 <= gap < space.num_categories:
        raise InputError(f"gap must be a category from 0 to {space.num_categories - 1}, got {gap}")
    if num_points < 1:
        raise InputError(f"num_points must be positive, got {num_points}")


def gap_of(data: DiscreteData) -> int | None:
    """The category that is called "-" at every site; None where there is none.

    Raises:
        InputError: an alignment that cannot be read, so that nobody knows.
    """
    if data.is_aligned and data.reference is None:
        raise InputError("gap: which category is the gap is not known without the run's alignment: put its file back, "
                         "or give --gap=NUMBER")  # fmt: skip
    names = data.category_names()
    return names[0].index(GAP) if all(GAP in site and site == names[0] for site in names) else None


def separation_of(data: DiscreteData, distances: Tensor | None, given: int | None) -> int:
    """How many sites apart pairs are that are ranked: neighbours along a chain are not, where the sites are a chain.

    Raises:
        InputError: one that no pair has.
    """
    largest = int(data.columns.max() - data.columns.min())
    if given is None:
        return max(min(MIN_SEPARATION, largest), 1) if data.is_aligned or distances is not None else 1
    if not 1 <= given <= largest:
        raise InputError(f"min_separation must lie in 1 to {largest}, got {given}")
    return given


def place_of(loaded: LoadedRun, run: Path, out: Path | None) -> Path:
    """The .npz to write. Raises InputError where ``out`` holds one already, or cannot be written to."""
    name = f"couplings-{loaded.checkpoint['global_step']:07d}.npz"
    if out is None:
        return usual_file(run / "couplings", name)
    for path in (out / name, (out / name).with_suffix(".csv")):
        if path.exists():
            raise InputError(f"out: {path} is there already")
    make_folder(out, name="out")
    return out / name


def couplings_of(module: EBMModule, data: DiscreteData, *, num_points: int = 1, gap: int | None = None) -> Couplings:
    """The couplings of a module's model and the scores of all pairs.

    Args:
        module: module that holds the weights.
        data: its data, of which ``num_points`` training points are drawn unless the model is of pairs.
        num_points: points that second differences are averaged over.
        gap: category that is left out of the norm; None leaves out none.

    Raises:
        InputError: fewer than two sites.
    """
    space = module.space
    if space.num_sites < 2:
        raise InputError("couplings need two sites or more")
    target = Target(copy.deepcopy(module.energy).double(), copy.deepcopy(module.reference).double())
    pairs = pairs_of(target)
    if pairs is None:
        codes = data.sample_codes(num_points).to(module.device)
        total = num_evaluations(num_points, space.num_sites, space.num_categories)
        say(f"no model of pairs: mean second difference of E over {num_points} training points, {total:,} evaluations")
        with make_progress() as progress, track(progress, "second differences", total) as advance:
            couplings, fields = effective_couplings(target, codes, advance=advance), None
    else:
        log_ref = module.reference.probs.double().log()
        gauged = pairs._replace(fields=pairs.fields + log_ref).zero_sum()
        couplings, fields = gauged.couplings, gauged.fields.cpu()
    scores = couplings[:, :, 1, 1].abs() if isinstance(space, Binary) else contact_scores(couplings, without=gap)
    return Couplings(couplings.cpu(), fields, scores.cpu())


def write_arrays(path: Path, found: Couplings) -> None:
    """Scores and couplings; of binary sites J of J s_i s_j, s = 2x - 1, in place of its four entries."""
    binary = found.couplings.shape[2] == 2
    arrays = {"scores": found.scores, "couplings": found.couplings[:, :, 1, 1] if binary else found.couplings}
    if found.fields is not None:
        arrays["fields"] = found.fields[:, 1] if binary else found.fields
    numbers: dict[str, Any] = {name: array.numpy().astype(np.float32) for name, array in arrays.items()}
    with replacing(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, **numbers)


def write_pairs(path: Path, scores: Tensor, pairs: Tensor, distances: Tensor | None, names: list[str]) -> None:
    """All ranked pairs: names of the sites, score, distance in Å where known."""
    with replacing(path) as beside, open(beside, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["rank", "i", "j", "score", *([] if distances is None else ["distance"])])
        for rank, row in enumerate(_rows(scores, pairs, distances, names)):
            table.writerow([rank + 1, *row])


def show_pairs(scores: Tensor, pairs: Tensor, distances: Tensor | None, names: list[str]) -> None:
    """The strongest pairs on the terminal."""
    table = Table(title="strongest pairs", title_justify="left", pad_edge=False)
    for column in ("i", "j", "score", *([] if distances is None else ["distance, Å"])):
        table.add_column(column, justify="right")
    for row in _rows(scores, pairs, distances, names):
        table.add_row(*map(str, row))
    console.print(table)


def show_precision(
    scores: Tensor, distances: Tensor, data: DiscreteData, gap: int | None, min_separation: int, cutoff: float
) -> None:
    """The share of contacts among the strongest pairs, beside that of mean-field couplings of the training points.

    Raises:
        InputError: no distance is known.
    """

    def precision(of: Tensor) -> Precision:
        columns = data.columns
        return contact_precision(of, distances, min_separation=min_separation, cutoff=cutoff, columns=columns)

    rows: dict[str, Precision] = {}
    try:
        rows["this model"] = precision(scores)
    except ValueError as error:
        raise InputError(f"distances: {error}") from error
    with contextlib.suppress(InputError), console.status("mean-field couplings of the training points"):
        rows["mean field"] = precision(mean_field_scores(data, gap))
    table = Table(title="share of contacts", title_justify="left", pad_edge=False)
    ours = rows["this model"]
    table.caption = f"{ours.num_contacts} contacts (< {cutoff:g} Å) {min_separation} or more sites apart"
    table.caption += f", {ours.base_rate:.3f} of the pairs"
    table.add_column("couplings")
    for share, num in zip(NAMES, ours.num, strict=True):
        table.add_column(f"{share} = {num}", justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in row.precision))
    console.print(table)


def mean_field_scores(data: DiscreteData, gap: int | None) -> Tensor:
    """Scores of mean-field couplings of the training points. Raises InputError where they cannot be read."""
    splits = data.splits
    if splits.train.is_floating_point():
        raise InputError("mean-field couplings need categories")
    statistics = pair_statistics(splits.train, data.space.num_categories, splits.train_weights)
    return contact_scores(mean_field_couplings(statistics.with_pseudocount(PSEUDOCOUNT)), without=gap)


def _rows(scores: Tensor, pairs: Tensor, distances: Tensor | None, names: list[str]) -> Iterator[list[object]]:
    """Names of the sites, score and distance of each pair."""
    columns = [pairs.T[0], pairs.T[1], scores[pairs[:, 0], pairs[:, 1]]]
    if distances is not None:
        columns.append(distances[pairs[:, 0], pairs[:, 1]])
    for i, j, *numbers in zip(*(column.tolist() for column in columns), strict=True):
        yield [names[i], names[j], *(f"{number:.4g}" for number in numbers)]
