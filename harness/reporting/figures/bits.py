"""Perplexity against the bits that are really stored: every method as a line, and the front of what none
beats in both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records.naming import PLUS, TRANSFORMS, keeps_outliers
from harness.records.record import finite
from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import PANELS, panel_each, part_of, picture, plain_texts, titled
from harness.reporting.drawing.label_placing import Label, place_labels
from harness.reporting.drawing.marks import draw_behind, draw_front, draw_level, front, shown
from harness.reporting.drawing.method_styles import colour_and_marker, line_style
from harness.reporting.drawing.scales import LIMIT, held, scale_bits, scale_perplexity
from harness.reporting.drawing.texts import labelled
from harness.reporting.figures.points import (
    Point,
    float_level,
    joined,
    points_of,
    protocols,
    series_of,
)
from harness.reporting.keys import RowKey

CROWD = 10  # lines from which on a panel becomes one for each family of methods
LABELS = 15  # lines of text beside one panel: what has no name is grey
FAMILIES = ("rounding", "outliers", "codebooks", "transforms")
HOLLOW = "Hollow: the weights had no more bits before anyone quantized them."


@dataclass(frozen=True)
class Line:
    """Rows of a table that are one series, as points from few bits to many: (bits, value, spread, doubtful).
    `name` is that of the series without its `activations`; `row` is the key of one of its rows.
    """

    name: str
    row: RowKey
    points: tuple[tuple[float, float, float, bool], ...]
    activations: str = ""

    @property
    def label(self) -> str:
        return joined(self.name, self.activations)

    @property
    def method(self) -> str:
        return self.row.method

    @property
    def variant(self) -> str:
        """What the label says beside the method; the same variant of two methods is drawn with the same kind
        of line.
        """
        return self.label.removeprefix(RowKey(self.method).label)

    @property
    def family(self) -> str:
        """What kind of method it is, of `FAMILIES`."""
        if self.method.partition(PLUS)[0] in TRANSFORMS:
            return "transforms"
        if self.method.startswith(("gptvq", "vptq")):
            return "codebooks"
        return "outliers" if keeps_outliers(self.method) or any(self.row.outliers) else "rounding"

    @property
    def whole(self) -> list[tuple]:
        """The points of models that are not broken."""
        return [point for point in self.points if point[1] <= LIMIT]


@dataclass(frozen=True)
class Panel:
    """One panel: a table, the lines that are its subject, and those that stand behind them in grey."""

    table: Table
    lines: tuple[Line, ...]
    behind: tuple[Line, ...] = ()
    family: str = ""


def perplexity_tables(tables: Sequence[Table]) -> list[tuple[Table, list[Line]]]:
    """The tables with something to draw."""
    return [(table, lines) for table in tables if table.kind == "perplexity" and (lines := lines_of(table))]


def lines_of(table: Table) -> list[Line]:
    """The series that have a number and weighed bits somewhere, one line for each number of bits of
    activations.
    """
    names = series_of(row.key for row in table.rows if row.key)
    lines: dict[tuple[str, str, str], list[Point]] = {}
    for point in points_of(table):
        if point.bits is not None:
            key = point.row.method, names[point.row], point.column.activations
            lines.setdefault(key, []).append(point)
    return [
        Line(name, points[0].row, tuple(sorted(map(_on_line, points))), activations)
        for (_, name, activations), points in lines.items()
    ]


def _on_line(point: Point) -> tuple[float, float, float, bool]:
    return point.bits, point.value, max(0.0, finite(point.spread) or 0.0), point.doubtful


def build_figure(tables: Sequence[Table]) -> Figure | None:
    """One panel for each of the first tables that have a point to draw, or, where a panel would be crowded,
    one for each family.
    """
    wanted = [panel for found in perplexity_tables(tables) for panel in _split(*found)][:PANELS]
    if not wanted:
        return None
    variants = {line.variant: None for panel in wanted for line in (*panel.lines, *panel.behind)}
    styles = {variant: line_style(place) for place, variant in enumerate(variants)}
    hollow = any(point[3] for panel in wanted for line in panel.lines for point in line.points)
    notes = [*([HOLLOW] if hollow else []), *protocols([panel.table for panel in wanted])]
    return panel_each([(panel, styles) for panel in wanted], _panel, several=2.6, notes=notes)


def lines_picture(tables: Sequence[Table]) -> Picture | None:
    """Every method as a line from few bits to many."""
    with plain_texts():
        figure = build_figure(tables)
        if figure is None:
            return None
        wanted = [panel for found in perplexity_tables(tables) for panel in _split(*found)]
        caption = (
            "Perplexity (lower is better) against the bits stored per weight: codes, scales, offsets, "
            "codebooks, outliers with their "
            "places, and matrices that stay at run time, all weighed. One line per method, through all its "
            "shares of outliers; vertical "
            "strokes are ± one standard error (or the deviation over seeds), the dashed level is the float "
            "model, the grey stair the "
            "front: what is above and to the right of it is beaten in both. Hollow marks: the weights had "
            "no more bits before anyone "
            "quantized them."
        )
        if any(
            point[1] > LIMIT for panel in wanted[:PANELS] for line in panel.lines for point in line.points
        ):
            caption += (
                f" Beyond {LIMIT:,.0f} a model is broken: such points lie in the band at the top, all at one "
                "height."
            )
        if any(panel.family for panel in wanted):
            caption += (
                f" Tables with more than {CROWD} lines are split into families of methods; the other "
                "families stand behind in grey."
            )
        caption += part_of(PANELS, len(wanted), "panels")
        alt = f"Perplexity against stored bits per weight, {_models(tables)}; {winners(tables)}"
        return picture("perplexity-against-bits", "Perplexity against stored bits", caption, alt, figure)


def _split(table: Table, lines: Sequence[Line]) -> list[Panel]:
    families = [(family, [line for line in lines if line.family == family]) for family in FAMILIES]
    families = [(family, found) for family, found in families if found]
    if len(lines) <= CROWD or len(families) == 1:
        return [Panel(table, tuple(lines))]
    return [
        Panel(table, tuple(own), tuple(line for line in lines if line not in own), family)
        for family, own in families
    ]


def _panel(axes: Axes, panel: Panel, styles: dict) -> None:
    level = float_level(panel.table)
    everything = (*panel.lines, *panel.behind)
    scale_bits(axes, [point[0] for line in panel.lines for point in line.points])
    values = [point[1] for line in everything for point in line.points]
    ceiling = scale_perplexity(axes, values + ([] if level is None else [level]))
    named = _named(panel.lines)
    draw_behind(
        axes,
        [
            [(bits, held(value, ceiling)) for bits, value, *_ in line.points]
            for line in everything
            if line not in named
        ],
    )
    for line in named:
        _draw(axes, line, styles[line.variant], ceiling)
    draw_level(axes, level)
    draw_front(axes, front(candidates(everything)))
    titled(axes, joined(panel.table.model, panel.family))
    axes.set_xlabel("stored bits per weight")
    axes.set_ylabel(labelled(panel.table.title).lower())
    drawn = [[(bits, held(value, ceiling)) for bits, value, *_ in line.points] for line in named]
    place_labels(axes, [_label(line, ceiling) for line in named], drawn, level)


def _named(lines: Sequence[Line]) -> list[Line]:
    """As many of the best lines as there is room for names, in their order."""
    ranked = sorted(lines, key=lambda line: (min(point[1] for point in line.points), line.label))
    rows = accumulate(1 + labelled(line.label).count("\n") for line in ranked)
    kept = [line for line, row in zip(ranked, rows, strict=True) if row <= LABELS]
    return [line for line in lines if line in kept]


def candidates(lines: Sequence[Line]) -> list[tuple[float, float, Line]]:
    """The points that may be on the front: float activations, evidence, not broken."""
    weights_only = [line for line in lines if not line.activations]
    return [(bits, value, line) for line in weights_only for bits, value, _, doubt in line.whole if not doubt]


def _label(line: Line, ceiling: float) -> Label:
    """Beside the ends of what is not broken: there the values tell lines apart."""
    ends = [(bits, held(value, ceiling)) for bits, value, *_ in line.whole or line.points]
    return Label(labelled(line.label), colour_and_marker(line.method)[0], ends[0], ends[-1])


def _draw(axes: Axes, line: Line, style: str | tuple, ceiling: float) -> None:
    colour = colour_and_marker(line.method)[0]
    axes.plot(
        *zip(*((bits, held(value, ceiling)) for bits, value, *_ in line.points), strict=True),
        color=colour,
        linestyle=style,
        zorder=3,
    )
    if line.whole:
        bits, values, spreads, _ = zip(*line.whole, strict=True)
        lower = [max(0.0, min(spread, value * 0.99)) for spread, value in zip(spreads, values, strict=True)]
        axes.errorbar(
            bits,
            values,
            yerr=(lower, spreads),
            fmt="none",
            ecolor=colour,
            elinewidth=0.9,
            alpha=0.45,
            zorder=2,
        )
    for hollow in sorted({point[3] for point in line.points}):
        points = [(x, held(y, ceiling)) for x, y, _, mark in line.points if mark is hollow]
        axes.plot(*zip(*points, strict=True), **shown(line.method, hollow), zorder=4)


def _models(tables: Sequence[Table]) -> str:
    names = list(dict.fromkeys(table.model for table, _ in perplexity_tables(tables)))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def winners(tables: Sequence[Table], least: float = 0.0, most: float = math.inf) -> str:
    """In words, what the front of the first table is between these numbers of bits."""
    for table, lines in perplexity_tables(tables):
        points = [point for point in candidates(lines) if least <= point[0] <= most]
        names = {(bits, value): line.label for bits, value, line in points}
        steps = [f"{names[spot]} with {spot[0]:.2f} bits and {spot[1]:.4g}" for spot in front(points)][:6]
        if steps:
            return f"on the front of {table.title} on {table.model}: " + "; ".join(steps)
    return "no front"
