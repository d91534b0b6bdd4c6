"""One page about runs: what they tell is put together and written as one HTML file."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gwg_dist.report.collect import Run, checkpoint_name, collect, differing
from gwg_dist.report.figures import check_plotter
from gwg_dist.report.outcome import outcome_of
from gwg_dist.report.points import Shown, show
from gwg_dist.report.shown import RunView, shared_charts, view_of
from gwg_dist.report.tables import Chart
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, write_text
from gwg_dist.tools.provenance import code_version
from gwg_dist.tools.terminal import console, say
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.sampling import usual_file

NAME = "report.html"
MARK = '<meta name="generator" content="gwg_dist report">'
WORDS = {"good": "Good", "doubtful": "Doubtful", "bad": "Bad", "open": "Not known yet"}
SPLITS = {"test": "test", "val": "validation", "train": "training"}


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Args:
        settings: those that are not the same in all runs, by key.
        likelihood: charts of the likelihood.
        training: charts of training.
    """

    settings: dict[str, list[Any]]
    likelihood: list[Chart]
    training: list[Chart]


def report(
    runs: list[str],
    *,
    out: str | None = None,
    checkpoint: str = "best",
    device: str | None = None,
    trust: str = "",
) -> Path:
    """Write one HTML file about runs: the verdict first, then likelihood, training, chains, samples, settings.

    Args:
        runs: folders of runs; several are shown side by side.
        out: path of the .html; RUN/report.html by default, report.html here of several runs, or where RUN cannot be
            written to. A report that is there is made anew; another file is not overwritten.
        checkpoint: "best", "last", or the path of a file; the last where there is no best one.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.

    Raises:
        InputError: no run there, a damaged file, a place that cannot be written to, matplotlib missing.
    """
    check_plotter()
    folders = [Path(run) for run in runs]
    found = [collect(folder) for folder in folders]
    path = place_of(folders, None if out is None else Path(out))
    views = []
    for run in found:
        with console.status(f"looking at {run.folder}"):
            views.append(look(run, checkpoint, device, trust))
    comparison = None
    if len(views) > 1:
        comparison = Comparison(differing(found), *shared_charts(found))
    write_text(path, render(views, comparison))
    for view in views:
        say(f"{view.run.name}: {WORDS[view.outcome.level].lower()}. {view.outcome.headline}")
    say(f"written to {path}")
    return path


def place_of(folders: list[Path], out: Path | None) -> Path:
    """The file to write.

    Raises:
        InputError: ``out`` is no .html, or cannot be written to, or another file is there.
    """
    path = out
    if path is None:
        path = usual_file(folders[0], NAME) if len(folders) == 1 else Path(NAME)
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"out must end in .html, got {path}")
    if path.is_dir() or (path.is_file() and MARK not in path.read_text(errors="replace")[:2000]):
        raise InputError(f"out: {path} is there already and is no report: choose another")
    make_folder(path.parent, name="out")
    return path


def look(run: Run, checkpoint: str, device: str | None, trust: str) -> RunView:
    """A run with its model, where it has one by now."""
    name = checkpoint_name(run.folder, checkpoint)
    if name is None:
        missing: dict[str, str] = dict.fromkeys(("samples", "statistics"), "the run has written no checkpoint yet")
        return view_of(run, outcome_of(run, None, ()), None, Shown(missing=missing))
    loaded = load_run(run.folder, name, device=device, trust=trust)
    run = replace(run, saved=loaded.checkpoint["global_step"])
    outcome = outcome_of(run, loaded, returns_of(loaded))
    return view_of(run, outcome, loaded, show(loaded))


def returns_of(loaded: LoadedRun) -> list[int]:
    """The iterations after which training went back to a healthy state, by the checkpoint."""
    states = loaded.checkpoint.get("callbacks", {})
    guards = [state for name, state in states.items() if name.startswith("DivergenceGuard")]
    return [back[0] for guard in guards for back in guard.get("returns", ())]


def render(views: list[RunView], comparison: Comparison | None) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("gwg_dist.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"nats": nats, "svg": Markup}
    template = environment.get_template("page.html.j2")
    title = views[0].run.name if len(views) == 1 else f"{len(views)} runs"
    return template.render(
        views=views, comparison=comparison, title=title, mark=Markup(MARK), words=WORDS, splits=SPLITS,
        made=f"{code_version()}, {time.strftime('%Y-%m-%d %H:%M')}",
    )  # fmt: skip


def nats(value: float | None, digits: int = 2) -> str:
    """A number for people, with a true minus; a dash where it is not known."""
    if value is None or value != value:
        return "–"
    return f"{value:,.{digits}f}".replace("-", "−")
