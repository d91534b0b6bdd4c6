"""What is known of a run in the words, charts and pictures of a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.report import figures
from gwg_dist.report.collect import Run, Series
from gwg_dist.report.figures import Curve
from gwg_dist.report.outcome import Outcome
from gwg_dist.report.points import Beside, Shown, is_image
from gwg_dist.report.tables import (
    Chart,
    Table,
    checks_table,
    links_charts,
    map_of,
    routes_table,
    statistics_charts,
    statistics_table,
    table_of_links,
    tables_of,
)
from gwg_dist.spaces import Space
from gwg_dist.tools.errors import InputError
from gwg_dist.training.loading import LoadedRun

MAX_COLUMNS = 24  # of a table of points
MAX_BYTES = 400_000  # of a picture that is shown as it is

TRAINING = (
    ("Energies", "nats", (("train/energy_data", "data"), ("chains", "chains"))),
    ("Energy gap", "nats", (("train/energy_gap", ""),)),
    ("Acceptance", "", (("train/accept_prob", ""),)),
    ("Sites that change in a step", "", (("train/hops", ""),)),
    ("Lag of the chains", "", (("train/lag", ""),)),
    ("Exchanges between temperatures", "", (("train/swap_prob", ""),)),
    ("Loss", "nats", (("train/loss", ""),)),
    ("Effective chains of the estimate", "", (("ais/ess", ""),)),
)
"""Title, unit, and the metrics of each chart of training."""

OF_ESTIMATES = ("ais/", "val/log_likelihood", "test/log_likelihood", "val/online", "val/low_side",
                "val/high_side", "test/low_side", "test/high_side", "train/energy_spread", "symptom/")  # fmt: skip
"""Beginnings of the metrics that are shown elsewhere, or are not for a chart."""


class Tile(NamedTuple):
    """A small picture, and what stands below it."""

    source: str
    caption: str = ""
    below: str = ""


@dataclass(frozen=True)
class RunView:
    """A run as its part of the page shows it.

    Args:
        run: what its folder tells.
        outcome: the verdict.
        facts: short names and values for the first screen.
        likelihood: charts of the likelihood over training.
        training: charts of training.
        chains: pictures of the chains over training.
        samples: pictures of samples, each with its nearest training point.
        data: pictures of training points.
        words: samples, nearest training points and data as tables of words or as lines, by title.
        statistics: charts of statistics.
        statistics_table: how they agree.
        couplings: the map of couplings; "" for none.
        contacts: whether contacts lie below its diagonal.
        couplings_tables: strongest pairs, shares of contacts, by title.
        routes: the ways to log Z.
        checks: what the two sides were checked by.
        links: the annealing path, link by link, as a chart and a table.
        missing: why a part is missing, by its name.
        config: settings as YAML.
        made_by: versions and hardware.
    """

    run: Run
    outcome: Outcome
    facts: list[tuple[str, str]]
    likelihood: list[Chart] = field(default_factory=list)
    training: list[Chart] = field(default_factory=list)
    chains: list[Tile] = field(default_factory=list)
    samples: list[Tile] = field(default_factory=list)
    data: list[Tile] = field(default_factory=list)
    words: dict[str, Table] = field(default_factory=dict)
    statistics: list[Chart] = field(default_factory=list)
    statistics_table: Table | None = None
    couplings: str = ""
    contacts: bool = False
    couplings_tables: dict[str, Table] = field(default_factory=dict)
    routes: Table | None = None
    checks: Table | None = None
    links: list[Chart] = field(default_factory=list)
    links_table: Table | None = None
    missing: dict[str, str] = field(default_factory=dict)
    config: str = ""
    made_by: dict[str, str] = field(default_factory=dict)


def view_of(run: Run, outcome: Outcome, loaded: LoadedRun | None, shown: Shown) -> RunView:
    """Everything that the page shows of a run."""
    samples, data, words = tiles_and_words(loaded, shown.beside)
    return RunView(
        run, outcome, facts_of(run, loaded),
        likelihood_charts([run]), training_charts([run]), chain_tiles(run), samples, data, words,
        statistics_charts(shown), statistics_table(shown),
        "" if shown.pairs is None else map_of(shown.pairs),
        shown.pairs is not None and shown.pairs.distances is not None,
        {} if shown.pairs is None else tables_of(shown.pairs),
        routes_table(run.estimate), checks_table(run.estimate),
        links_charts(run.estimate), table_of_links(run.estimate), shown.missing,
        yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True),
        {key: str(value) for key, value in run.estimate.get("made by", {}).items()},
    )  # fmt: skip


def facts_of(run: Run, loaded: LoadedRun | None) -> list[tuple[str, str]]:
    """Model, data, length and cost in a few words."""
    found = [
        ("model", run.class_of("model", "energy")),
        ("data", run.class_of("data")),
        ("kernel", run.class_of("model", "sampler")),
        ("iterations", f"{run.iterations:,}"),
    ]
    if loaded is not None:
        found.insert(1, ("weights", f"{sum(p.numel() for p in loaded.module.energy.parameters()):,}"))
    if run.clock is not None:
        found.append(("training", hours(run.clock.hours)))
    training, estimate = evaluations_of(run, loaded)
    if training:
        found.append(("gradients, training", count(training)))
    if estimate:
        found.append(("gradients, estimate", count(estimate)))
    if run.num_starts > 1:
        found.append(("starts", str(run.num_starts)))
    return [(name, value) for name, value in found if value]


def evaluations_of(run: Run, loaded: LoadedRun | None) -> tuple[int, int]:
    """Gradient evaluations of the chains in training, one a chain a step, and of the newest estimate."""
    steps = run.setting("model", "num_steps")
    batch = run.results.get("training", {}).get("batch_size") or run.setting("data", "init_args", "batch_size")
    training = 0
    if isinstance(steps, int) and isinstance(batch, int) and (loaded is None or loaded.module.objective.needs_chains):
        training = run.iterations * steps * batch
    in_all = run.estimate.get("gradient_evaluations", {}).get("in all", 0)
    sides, ais = run.estimate.get("sides", {}).get("gradient_evaluations"), run.estimate.get("ais", {})
    if in_all or sides:
        return training, in_all or sum(sides.values())
    return training, ais.get("num_chains", 0) * ais.get("num_temperatures", 0)


def hours(value: float) -> str:
    """A time in the unit that fits it."""
    if value >= 1:
        return f"{value:.1f} h"
    return f"{60 * value:.0f} min" if value >= 1 / 60 else f"{3600 * value:.0f} s"


def count(value: int) -> str:
    """A large count in a few letters."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:,}"


# -- curves --------------------------------------------------------------------------------------------------------


def likelihood_charts(runs: list[Run]) -> list[Chart]:
    """Likelihoods over training: of one run by split, with both sides where they are known; of several by run."""
    curves = []
    if len(runs) == 1:
        metrics = runs[0].metrics
        for number, (split, name) in enumerate((("val", "validation"), ("test", "test"))):
            if series := metrics.get(f"{split}/log_likelihood"):
                curves.append(Curve(name, series, number))
            curves += [
                Curve(f"{name}, {side.replace('_', ' ')}", metrics[f"{split}/{side}"], number, dashed=True)
                for side in ("low_side", "high_side")
                if f"{split}/{side}" in metrics
            ]
            if series := metrics.get(f"{split}/online"):
                curves.append(Curve(f"{name}, running estimate", series, number + 2))
    else:
        for number, run in enumerate(runs):
            if series := run.metrics.get("val/log_likelihood"):
                curves.append(Curve(run.name, series, number))
    label = "mean log-likelihood over iterations" + (", validation data" if len(runs) > 1 else "")
    svg, wide = (figures.line_chart(curves, label, wide=wide, unit="nats") for wide in (False, True))
    return [Chart("Log-likelihood" + (", validation" if len(runs) > 1 else ""), svg, wide)] if svg else []


def training_charts(runs: list[Run]) -> list[Chart]:
    """What training measured, a chart each; of several runs in one."""
    found = []
    for title, unit, parts in [*TRAINING, *other_metrics(runs)]:
        if len(runs) > 1 and len(parts) > 1:
            continue
        curves = []
        for number, run in enumerate(runs):
            for place, (name, called) in enumerate(parts):
                series = chain_energy(run) if name == "chains" else run.metrics.get(name)
                if series is not None:
                    curves.append(Curve(run.name if len(runs) > 1 else called, series, number + place))
        if svg := figures.line_chart(curves, f"{title} over iterations", unit=unit):
            found.append(Chart(title, svg))
    rates = [Curve(run.name if len(runs) > 1 else "", run.clock.rate, number)
             for number, run in enumerate(runs) if run.clock is not None]  # fmt: skip
    if svg := figures.line_chart(rates, "iterations a second over iterations"):
        found.append(Chart("Iterations a second", svg))
    return found


def other_metrics(runs: list[Run]) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Charts of the metrics that ``TRAINING`` does not know, such as those of a user's callback, under their names."""
    known = {name for _, _, parts in TRAINING for name, _ in parts}
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return [(name, "", ((name, ""),)) for name in names if name not in known and not name.startswith(OF_ESTIMATES)]


def chain_energy(run: Run) -> Series | None:
    """The mean energy of the chains: that of the data and the gap."""
    data, gap = run.metrics.get("train/energy_data"), run.metrics.get("train/energy_gap")
    if data is None or gap is None or data.iterations != gap.iterations:
        return None
    return Series(data.iterations, [a + b for a, b in zip(data.values, gap.values, strict=True)])


# -- points --------------------------------------------------------------------------------------------------------


def chain_tiles(run: Run) -> list[Tile]:
    """Pictures of the chains over training."""
    found = []
    for iteration, path in run.pictures:
        try:
            content = path.read_bytes()
            with Image.open(path) as image:
                image.verify()
        except (OSError, SyntaxError) as error:
            raise InputError(f"{path} is no picture: move it away to do without") from error
        if len(content) <= MAX_BYTES:
            found.append(Tile(uri(content), f"{iteration:,}"))
    return found


def tiles_and_words(loaded: LoadedRun | None, beside: Beside | None) -> tuple[list[Tile], list[Tile], dict[str, Table]]:
    """Samples with their nearest training points and data, as pictures, or else in words."""
    if loaded is None or beside is None:
        return [], [], {}
    space = loaded.module.space
    if is_image(space):
        samples = [
            Tile(uri(picture(sample, space)), f"{int(distance)}", uri(picture(nearest, space)))
            for sample, nearest, distance in zip(beside.samples, beside.nearest, beside.distances, strict=True)
        ]
        return samples, [Tile(uri(picture(point, space))) for point in beside.data], {}
    return [], [], words_of(loaded.data, beside)


def words_of(data: DiscreteData, beside: Beside) -> dict[str, Table]:
    """Samples, each above its nearest training point, and data, as lines or as rows of a table."""
    names = data.category_names()
    lines = data.has_lines or all(len(name) == 1 for site in names for name in site)
    titles = [f"sample {n + 1}" for n in range(len(beside.samples))]
    under = [f"nearest, {int(distance)} differ" for distance in beside.distances]

    def cells(codes: Tensor) -> list[list[str]]:
        if lines:
            return [[line] for line in data.lines(codes)]
        return [[names[site][k] for site, k in enumerate(row[:MAX_COLUMNS])] for row in codes.tolist()]

    columns = ["", "text"] if lines else ["", *data.site_names()[:MAX_COLUMNS]]
    rows: list[list[str]] = []
    for title, cell, below, nearest in zip(titles, cells(beside.samples), under, cells(beside.nearest), strict=True):
        rows += [[title, *cell], [below, *nearest]]
    train = [[f"data {n + 1}", *cell] for n, cell in enumerate(cells(beside.data))]
    return {
        "Samples, each above the training point nearest to it": Table(columns, rows),
        "Training points": Table(columns, train),
    }


def picture(codes: Tensor, space: Space) -> bytes:
    """One point as a grey PNG, its first channel, category 0 white and K - 1 black."""
    grey = codes.cpu().reshape(space.shape).numpy().astype(np.int64)
    grey = grey[0] if grey.ndim == 3 else grey
    content = io.BytesIO()
    Image.fromarray((255 - grey * 255 // (space.num_categories - 1)).astype(np.uint8)).save(content, format="PNG")
    return content.getvalue()


def uri(content: bytes) -> str:
    """A PNG as the source of an image."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def shared_charts(runs: list[Run]) -> tuple[list[Chart], list[Chart]]:
    """Curves of several runs in one chart each: of the likelihood, and of training."""
    return likelihood_charts(runs), training_charts(runs)
