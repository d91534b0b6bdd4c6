"""Charts as SVG by matplotlib, whose colours are CSS variables of the page, so that they are light and dark with it."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gwg_dist.report.collect import Series
from gwg_dist.tools.errors import InputError

WIDTH, HEIGHT, WIDE_HEIGHT = 360, 236, 270  # units of an SVG, which a phone shows as pixels
TEXT = 14
POINTS_PER_INCH = 72
INK, FAINT, GRID = "#0a0b01", "#0a0b02", "#0a0b03"
COLOURS = tuple(f"#0a0c0{n}" for n in range(1, 8))  # of the runs, or of the parts of one
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--line)"} | {
    colour: f"var(--c{n})" for n, colour in enumerate(COLOURS, start=1)
}
MAX_KNOTS = 400  # of a curve
FEW = 5  # values, of which none is cut off
MAX_DOTS = 900
MAX_CELLS = 512  # of a side of a matrix
SCORES = (59, 126, 224)  # reads on light and on dark

_numbers = count(1)


class Curve(NamedTuple):
    """A line of a chart.

    Args:
        name: of it in the legend; "" leaves it out.
        series: of it.
        colour: its number among the page's colours, from 0.
        low: lower edge of a band around it, as values; empty for none.
        high: upper edge.
        dashed: whether it is dashed.
    """

    name: str
    series: Series
    colour: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False


def check_plotter() -> None:
    """Raise InputError where matplotlib is missing."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise InputError("a report needs matplotlib: pip install 'gwg_dist[plot]'") from error


def chart(draw: Callable[[Any], None], label: str, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """An SVG to stand in a page.

    Args:
        draw: draws on an axes of matplotlib.
        label: what it shows, for those who cannot see it.
        width: in units of the SVG.
        height: likewise.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "gwg_dist", "font.size": TEXT, "text.color": INK,
        "axes.edgecolor": GRID, "axes.labelcolor": FAINT, "xtick.color": GRID, "ytick.color": GRID,
        "xtick.labelcolor": FAINT, "ytick.labelcolor": FAINT, "axes.grid": True, "grid.color": GRID,
        "grid.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "xtick.major.size": 4, "ytick.major.size": 0, "legend.frameon": False, "lines.linewidth": 1.8,
        "axes.formatter.limits": (-3, 5), "axes.formatter.use_mathtext": False, "axes.unicode_minus": True,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
    return in_page(text.getvalue(), label)


def in_page(svg: str, label: str) -> str:
    """The SVG without what only a file needs, with names of its own, and with the page's colours and letters."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n *", "\n", svg)
    svg = svg.replace("xlink:href=", "href=")
    number = next(_numbers)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="f{number}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>f{number}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 inherit", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def line_chart(curves: Sequence[Curve], label: str, *, wide: bool = False, unit: str = "", log: bool = False) -> str:
    """Curves over iterations; "" where there is nothing to draw.

    What is far outside the values of the later half is cut off, so that the way there does not flatten the rest.
    """
    curves = [curve for curve in curves if sum(map(math.isfinite, curve.series.values)) > 1]
    if not curves:
        return ""

    def draw(axes: Any) -> None:
        for curve in curves:
            iterations, values = thinned(curve.series)
            colour = COLOURS[curve.colour % len(COLOURS)]
            few = len(iterations) <= 30
            axes.plot(
                iterations, values, color=colour, label=curve.name or None, linestyle="--" if curve.dashed else "-",
                marker="o" if few else None, markersize=4,
            )  # fmt: skip
            if len(curve.low):
                axes.fill_between(curve.series.iterations, curve.low, curve.high, color=colour, alpha=0.22, linewidth=0)
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(*limits(curves))
            axes.yaxis.get_major_locator().set_params(nbins=5)
        tidy_iterations(axes, wide=wide)
        axes.set_ylabel(unit)
        if len([curve for curve in curves if curve.name]) > 1:
            axes.legend(fontsize=TEXT, handlelength=1.2, borderaxespad=0.2, labelspacing=0.25)

    return chart(draw, label, width=2 * WIDTH if wide else WIDTH, height=WIDE_HEIGHT if wide else HEIGHT)


def tidy_iterations(axes: Any, *, wide: bool) -> None:
    """Few marks, as 2k, 4k."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(8 if wide else 4, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.grid(axis="x", visible=False)


def short(value: float) -> str:
    """A count in few letters."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def thinned(series: Series) -> tuple[list[int], list[float]]:
    """At most 400 knots, each the mean of its neighbourhood."""
    num = len(series.values)
    if num <= MAX_KNOTS:
        return series.iterations, series.values
    parts = np.array_split(np.arange(num), MAX_KNOTS)
    values = np.asarray(series.values)
    middle = [series.iterations[int(part[len(part) // 2])] for part in parts]
    return middle, [float(values[part].mean()) for part in parts]


def limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """The range of the values but for those of the first half that are far outside of the rest."""
    every, late = [], []
    for curve in curves:
        values = [value for value in (*curve.series.values, *curve.low, *curve.high) if math.isfinite(value)]
        every += values
        drawn = thinned(curve.series)[1]
        late += [value for value in drawn[len(drawn) // 2 :] if math.isfinite(value)]
    if len(late) < FEW:
        late = every
    room = 3 * (max(late) - min(late)) or max(every) - min(every)
    low, high = max(min(every), min(late) - room), min(max(every), max(late) + room)
    edge = 0.06 * (high - low) or max(abs(high) * 0.05, 0.05)
    return low - edge, high + edge


def scatter(data: Tensor, samples: Tensor, label: str) -> str:
    """Statistics of samples over those of data, with the diagonal; the largest of them, and others by chance."""
    x, y = data.double().flatten().numpy(), samples.double().flatten().numpy()
    if len(x) > MAX_DOTS:
        largest = np.argsort(-np.abs(x) - np.abs(y))[: MAX_DOTS // 2]
        others = np.random.default_rng(0).choice(len(x), MAX_DOTS // 2, replace=False)
        rows = np.union1d(largest, others)
        x, y = x[rows], y[rows]

    def draw(axes: Any) -> None:
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
        axes.plot(x, y, "o", color=COLOURS[0], markersize=2.6, alpha=0.45, markeredgewidth=0)
        axes.set(xlabel="data", ylabel="samples")
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(nbins=4)

    return chart(draw, label, height=300)


def histogram(sides: dict[str, Tensor], label: str) -> str:
    """Shares of sites that differ from the nearest training point."""
    sides = {name: values for name, values in sides.items() if len(values)}

    def draw(axes: Any) -> None:
        top = max(float(values.max()) for values in sides.values()) or 1.0
        for number, (name, values) in enumerate(sides.items()):
            axes.hist(
                values.numpy(), bins=24, range=(0, top), density=True, alpha=0.5, color=COLOURS[number], label=name
            )
        axes.set(xlabel="share of sites", yticks=[])
        axes.xaxis.get_major_locator().set_params(nbins=4)
        axes.legend(fontsize=TEXT, handlelength=1)

    return chart(draw, label, height=300)


def points_over_beta(betas: Sequence[float], sides: Mapping[str, Sequence[float]], label: str) -> str:
    """Numbers in nats at values of beta, one colour a side."""

    def draw(axes: Any) -> None:
        axes.axhline(0, color=FAINT, linewidth=1)
        for number, (name, values) in enumerate(sides.items()):
            axes.plot(betas, values, "o-", color=COLOURS[number], markersize=4, label=name)
        axes.set(xlabel="beta", ylabel="nats")
        axes.yaxis.get_major_locator().set_params(nbins=5)
        axes.legend(fontsize=TEXT, handlelength=1.2)
        axes.grid(axis="x", visible=False)

    return chart(draw, label, height=260)


def score_map(scores: Tensor, distances: Tensor | None, label: str, *, cutoff: float) -> str:
    """Scores above the diagonal; below it contacts, where distances are known, or the scores once more."""
    values = scores.double().numpy()
    num = len(values)
    values = np.where(np.eye(num, dtype=bool), 0.0, values).clip(min=0)
    if distances is not None:
        near = (distances.nan_to_num(math.inf) < cutoff).numpy()
        values = np.where(np.tri(num, dtype=bool), near * values.max(), values)
    while len(values) > MAX_CELLS:
        size = len(values) // 2 * 2
        values = values[:size, :size].reshape(size // 2, 2, size // 2, 2).max((1, 3))
    top = float(np.quantile(values, 0.999)) or float(values.max()) or 1.0
    picture = np.zeros((*values.shape, 4), dtype=np.uint8)
    picture[..., :3] = SCORES
    picture[..., 3] = (255 * (values / top).clip(0, 1)).astype(np.uint8)

    def draw(axes: Any) -> None:
        axes.imshow(picture, extent=(0.5, num + 0.5, num + 0.5, 0.5), interpolation="none")
        axes.grid(visible=False)
        axes.set(xlabel="site", ylabel="site")
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(nbins=4, integer=True)

    return chart(draw, label, height=360)
