"""Energies and log-likelihoods of given points under a run's model, and of all changes of one site."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.evaluation.scores import PointScores, score_points, single_site_changes
from gwg_dist.pictures import save_matrix
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, replacing
from gwg_dist.tools.terminal import console, say
from gwg_dist.training.loading import load_run
from gwg_dist.training.log_z import LogZ, find_log_z
from gwg_dist.training.measurements import changed_points, rank_correlation, read_measurements
from gwg_dist.training.sampling import usual_file

SPLITS = ("train", "validation", "test")
PICTURE = ".png"
NO_LOG_Z = "no estimate of log Z belongs to these weights: numbers are not normalised; gwg_dist evaluate makes one"


def score_run(run: str, file: str, out: Path | None, checkpoint: str, device: str | None, trust: str) -> Path:
    """Score the points of a file; see ``gwg_dist.score``. Raises InputError for what cannot be used."""
    check_out(out, (".csv",))
    loaded = load_run(run, checkpoint, device=device, trust=trust)
    codes, names = points_of(loaded.data, file)
    path = fresh_file(out, Path(run), f"scores-{Path(file).stem}", ".csv")
    scores, log_z = score_points(loaded.module.target, codes), find_log_z(loaded, Path(run))
    write_csv(path, *score_rows(names, scores, log_z))
    console.print(score_table(names, scores, log_z))
    say(NO_LOG_Z if log_z is None else f"log Z {log_z.value:.2f} ± {log_z.stderr:.2f}: {log_z.source}")
    if log_z is not None and not log_z.trusted:
        say("the weights of that estimate have collapsed: log-likelihoods are too high by an unknown constant", "red")
    say(f"{len(codes)} points, written to {path}")
    return path


def score_mutations(
    run: str,
    file: str,
    out: Path | None,
    reference: str,
    measurements: str | None,
    column: str | None,
    offset: int,
    checkpoint: str,
    device: str | None,
    trust: str,
) -> Path:
    """Score all single-site changes of a point; see ``gwg_dist.score``. Raises InputError for what cannot be used."""
    check_out(out, (".csv",), beside=PICTURE)
    measured = read_measurements(measurements, column) if measurements is not None else None
    loaded = load_run(run, checkpoint, device=device, trust=trust)
    data, target = loaded.data, loaded.module.target
    codes, names = points_of(data, file)
    row = chosen_point(names, reference)
    point, sites, categories = codes[row], data.site_names(), data.category_names()
    path = fresh_file(out, Path(run), f"mutations-{Path(file).stem}", ".csv", beside=PICTURE)
    points = None if measured is None else changed_points(point, measured, sites, categories, offset)
    changes = single_site_changes(target, point)
    write_csv(path, ("site", "from", "to", "log_ratio"), mutation_rows(changes, point, sites, categories))
    say(f"reference {names[row]}: {sum(map(len, categories)) - len(sites)} changes of one site, written to {path}")
    tell_mutations(changes, point, sites, categories)
    same = all(known == categories[0] for known in categories)
    columns = categories[0] if same else [str(k) for k in range(changes.shape[1])]
    title = f"log p(x') - log p(x), x = {names[row]}"
    if save_matrix(changes, path.with_suffix(PICTURE), rows=sites, columns=columns, title=title, marked=point):
        say(f"picture: {path.with_suffix(PICTURE)}")
    if measured is not None and points is not None:
        here = score_points(target, point[None]).unnormalised
        found = score_points(target, points).unnormalised - here
        correlation = rank_correlation(found, torch.tensor([each.value for each in measured]))
        say(f"Spearman correlation with {len(measured)} measurements: {correlation:.3f}", "bold")
    return path


def points_of(data: DiscreteData, file: str, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
    """Codes and names of a file, or of a split of the run's own data where no such file exists.

    Args:
        data: the run's data.
        file: a file, or the name of a split.
        missing_as: the code of a missing site; None refuses missing sites.

    Raises:
        InputError: neither can be used.
    """
    if file in SPLITS and not Path(file).exists():
        points = data.splits.parts[file][0]
        if points.is_floating_point():
            raise InputError(f"file: the {file} points are drawn anew in every batch: give a file of codes")
        if not len(points):
            raise InputError(f"file: the data have no {file} points")
        return points.long(), data.point_names(file)
    return data.encode_file(file, missing_as=missing_as)


def chosen_point(names: Sequence[str], reference: str) -> int:
    """The row of a point by its name or the first word of it, else by its number from 1.

    Raises:
        InputError: there is no such point.
    """
    for known in (list(names), [" ".join(name.split()[:1]) for name in names]):
        if reference in known:
            return known.index(reference)
    if reference.isdecimal() and 1 <= int(reference) <= len(names):
        return int(reference) - 1
    shown = ", ".join(names[:3])
    raise InputError(f"reference: {reference} is no name ({shown}, ...) and no number from 1 to {len(names)}")


def score_rows(
    names: Sequence[str], scores: PointScores, log_z: LogZ | None
) -> tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]:
    """The header and the rows of a table of scores."""
    columns = [names, scores.energies.tolist(), scores.log_reference.tolist()]
    if log_z is None:
        header = ("name", "energy", "log_reference", "unnormalised_log_prob")
        return header, zip(*columns, scores.unnormalised.tolist(), strict=True)
    header = ("name", "energy", "log_reference", "log_likelihood", "stderr")
    values = (scores.unnormalised - log_z.value).tolist()
    return header, zip(*columns, values, [log_z.stderr] * len(names), strict=True)


def score_table(names: Sequence[str], scores: PointScores, log_z: LogZ | None) -> Table:
    """Mean, least and largest, with the points' names."""
    table = Table(title_justify="left", pad_edge=False)
    for column in ("nats", "mean", "least", "", "largest", ""):
        table.add_column(column, justify="right" if column in ("mean", "least", "largest") else "left")
    shift, name = (0.0, "log p(x) + log Z") if log_z is None else (log_z.value, "log p(x)")
    for label, values in (("E(x)", scores.energies), (name, scores.unnormalised - shift)):
        low, high = int(values.argmin()), int(values.argmax())
        table.add_row(
            label, f"{values.mean():.2f}", f"{values[low]:.2f}", names[low], f"{values[high]:.2f}", names[high]
        )
    return table


def mutation_rows(
    changes: Tensor, point: Tensor, sites: Sequence[str], categories: Sequence[Sequence[str]]
) -> Iterable[tuple[str, str, str, float]]:
    """(site, from, to, log p(x') - log p(x)) of every change."""
    for site, known in enumerate(categories):
        here = int(point[site])
        for k, name in enumerate(known):
            if k != here:
                yield sites[site], known[here], name, float(changes[site, k])


def tell_mutations(
    changes: Tensor, point: Tensor, sites: Sequence[str], categories: Sequence[Sequence[str]], num: int = 5
) -> None:
    """The changes that the model likes best and least."""
    rows = sorted(mutation_rows(changes, point, sites, categories), key=lambda row: -row[3])
    for label, some in (("best", rows[:num]), ("worst", rows[-num:][::-1])):
        say(f"{label}: " + ", ".join(f"{old}{site}{new} {value:+.2f}" for site, old, new, value in some))


def check_out(out: Path | None, suffixes: tuple[str, ...] | None, *, beside: str | None = None) -> None:
    """Raise InputError where a file to write has none of some suffixes, or is there already, or the one beside it."""
    if out is None:
        return
    if suffixes is not None and not out.name.lower().endswith(suffixes):
        raise InputError(f"out must end in {' or '.join(suffixes)}, got {out}")
    for path in (out, out if beside is None else out.with_suffix(beside)):
        if path.exists():
            raise InputError(f"out: {path} exists already: nothing is overwritten")


def fresh_file(out: Path | None, folder: Path, stem: str, suffix: str, *, beside: str | None = None) -> Path:
    """The file to write: ``out``, or STEM.SUFFIX in the folder, or here where that cannot be written; a new number.

    The number is new also for the file of the suffix ``beside``.
    """
    path = out or usual_file(folder, f"{stem}{suffix}")
    number = 1
    while path.exists() or (beside is not None and path.with_suffix(beside).exists()):
        number += 1
        path = path.with_name(f"{stem}-{number}{suffix}")
    make_folder(path.parent, name="out")
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all; floats with ten digits."""
    with replacing(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.10g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
