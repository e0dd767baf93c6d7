"""The figure of a report: perplexity against weighed bits per weight, one panel for each model, corpus and protocol."""

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from harness.reporting.cells import Table
from harness.reporting.frames import finite
from harness.reporting.labels import FLOAT, SEPARATOR, activations_in
from harness.reporting.placement import Label, place_labels
from harness.reporting.styles import FIGURE, colour_and_marker, line_style

PANELS = 12  # more would be a poster
LONGEST_LABEL = 44
LOG_FROM = 4.0  # largest over smallest value from which the scale is logarithmic


@dataclass(frozen=True)
class Line:
    """One row of a table as points, from few bits to many: (bits, value, spread, doubtful)."""

    label: str
    method: str
    points: tuple[tuple[float, float, float, bool], ...]

    @property
    def variant(self) -> str:
        """What the label says beside the method; the same variant of two methods is drawn with the same kind of line."""
        return self.label.partition(SEPARATOR)[2]


def draw_figure(tables: Sequence[Table]) -> bytes | None:
    """The figure of these tables as a PNG file; None where nothing can be drawn."""
    with house_style():
        figure, file = build_figure(tables), io.BytesIO()
        if figure is None:
            return None
        figure.savefig(file, format="png", metadata={"Software": None})  # nothing that says when or with what it was made
        return file.getvalue()


def build_figure(tables: Sequence[Table]) -> Figure | None:
    """One panel for each of the first `PANELS` perplexity tables that have a point to draw."""
    panels = [(table, lines) for table in tables if table.kind == "perplexity" and (lines := lines_of(table))][:PANELS]
    return _figure(panels) if panels else None


@contextmanager
def house_style() -> Iterator[None]:
    """The same look everywhere: a user's matplotlibrc must not change a report."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may hold any character
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(FIGURE)
        yield


def lines_of(table: Table) -> list[Line]:
    """The rows that have a number and weighed bits somewhere, one line for each number of bits of activations."""
    lines = []
    for row in table.rows:
        found: dict[str, list[tuple]] = {}
        for head, cell in zip(table.head[1:], row.cells, strict=True):
            if cell.bits is not None and cell.value is not None and math.isfinite(cell.value):
                point = (cell.bits, cell.value, max(0.0, finite(cell.spread) or 0.0), cell.doubtful)
                found.setdefault(activations_in(head), []).append(point)
        if row.method and row.method != FLOAT:
            labels = [SEPARATOR.join(filter(None, (row.label, words))) for words in found]
            lines += [Line(label, row.method, tuple(sorted(points))) for label, points in zip(labels, found.values(), strict=True)]
    return lines


def _figure(panels: list[tuple[Table, list[Line]]]) -> Figure:
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    width, height = (8.6, 5.2) if across == 1 else (7.4 * across, 4.9 * down)
    figure = Figure(figsize=(width, height), dpi=160)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        down, across, left=0.72 / width, right=1 - 0.25 / width, bottom=0.62 / height, top=1 - 0.78 / height, hspace=0.42, wspace=0.14
    )
    drawn = [(figure.add_subplot(grid[divmod(place, across)]), *panel) for place, panel in enumerate(panels)]
    variants = {line.variant: None for _, lines in panels for line in lines}
    styles = {variant: line_style(place) for place, variant in enumerate(variants)}
    for axes, table, lines in drawn:
        _panel(axes, table, lines, styles)
    return figure


def _panel(axes: Axes, table: Table, lines: list[Line], styles: dict) -> None:
    level = next((row.cells[0].value for row in table.rows if row.method == FLOAT), None)
    points = [point[:2] for line in lines for point in line.points]
    scale(axes, [bits for bits, _ in points], [value for _, value in points] + ([] if level is None else [level]))
    for line in lines:
        _draw(axes, line, styles[line.variant])
    if level is not None:
        axes.axhline(level, color=colour_and_marker(FLOAT)[0], linewidth=1.1, linestyle=(0, (6, 3)), zorder=1.5)
    axes.set_title(_shortened(f"{table.title} · {table.model}", 70), parse_math=False, pad=22)
    facts = [_shortened(table.caption.partition("Protocol: ")[2].partition(". ")[0], 100)]
    facts += ["log scale"] if axes.get_yscale() == "log" else []
    facts += ["hollow: †"] if any(point[3] for line in lines for point in line.points) else []
    axes.text(0, 1.025, " · ".join(facts), transform=axes.transAxes, fontsize=7.5, color="#777777", parse_math=False)
    axes.set_xlabel("stored bits per weight")
    place_labels(axes, [_label(line) for line in lines], [line.points for line in lines], level)


def _label(line: Line) -> Label:
    return Label(_shortened(line.label, LONGEST_LABEL), colour_and_marker(line.method)[0], line.points[0][:2], line.points[-1][:2])


def _draw(axes: Axes, line: Line, style: str | tuple) -> None:
    colour, marker = colour_and_marker(line.method)
    bits, values, spreads, doubtful = zip(*line.points, strict=True)
    axes.plot(bits, values, color=colour, linewidth=1.7, linestyle=style, zorder=3)
    lower = [max(0.0, min(spread, value * 0.99)) for spread, value in zip(spreads, values, strict=True)]
    axes.errorbar(bits, values, yerr=(lower, spreads), fmt="none", ecolor=colour, elinewidth=1, alpha=0.45, zorder=2)
    for hollow in sorted(set(doubtful)):
        points = [(x, y) for x, y, *_, mark in line.points if mark is hollow]
        face = "white" if hollow else colour
        axes.plot(*zip(*points, strict=True), marker, markersize=6, color=colour, markerfacecolor=face, markeredgewidth=1.3, zorder=4)


def scale(axes: Axes, bits: Sequence[float], values: Sequence[float]) -> None:
    """Limits and ticks of values against bits, set before anything is drawn because labels are placed in the pixels they give."""
    low, high = min(values), max(values)
    margin = 0.06 * (max(bits) - min(bits)) or 0.5
    axes.set_xlim(min(bits) - margin, max(bits) + margin)
    ticks = range(math.floor(min(bits)), math.ceil(max(bits)) + 1)
    near = [tick for tick in ticks if min(bits) - 0.3 <= tick <= max(bits) + 0.3] if len(ticks) < 20 else []
    axes.set_xticks(near or MaxNLocator(8).tick_values(min(bits), max(bits)))
    if low > 0 and high / low >= LOG_FROM:
        axes.set_yscale("log")
        stretch = (high / low) ** 0.07
        axes.set_ylim(low / stretch, high * stretch)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    else:
        margin = 0.09 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)


def _tick(value: float, _: int | None = None) -> str:
    """Plain below a hundred thousand, a power of ten from there on."""
    if 1 <= value < 1e5:
        return f"{value:,.0f}"
    power = round(math.log10(value)) if value > 0 else 0
    exact = value > 0 and math.isclose(value, 10.0**power)
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")) if exact else f"{value:.3g}"


def _shortened(text: str, length: int) -> str:
    return textwrap.shorten(text, length, placeholder=" …") if " " in text[:length] else text[:length]
