"""Perplexity against the bits that are really stored: every method as a line, and the front of what none beats in both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.naming import PLUS, TRANSFORMS
from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.frames import finite
from harness.reporting.labels import FLOAT, SEPARATOR, activations_in
from harness.reporting.placement import Label, place_labels
from harness.reporting.plots.canvas import (
    PANELS,
    draw_behind,
    draw_front,
    front,
    panel_each,
    part_of,
    picture,
    plain_texts,
    scale,
    shortened,
    shown,
    titled,
)
from harness.reporting.styles import colour_and_marker, line_style

LONGEST_LABEL = 52
CROWD = 10  # lines from which on a panel becomes one for each family of methods
LABELS = 24  # lines that get a name and a colour in one panel; the others are grey
RANGE = (1.9, 5.1)  # bits of the picture of the front: where anybody compares
FAMILIES = ("rounding", "outliers", "codebooks", "transforms")


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

    @property
    def family(self) -> str:
        """What kind of method it is, of `FAMILIES`."""
        if self.method.partition(PLUS)[0] in TRANSFORMS:
            return "transforms"
        if self.method.startswith(("gptvq", "vptq")):
            return "codebooks"
        return "outliers" if "spqr" in self.method or "% outliers" in self.label else "rounding"


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
    """The rows that have a number and weighed bits somewhere, one line for each number of bits of activations."""
    lines = []
    for row in table.rows:
        found: dict[str, list[tuple]] = {}
        for head, cell in zip(table.head[1:], row.cells, strict=False):
            if cell.bits is not None and cell.value is not None and math.isfinite(cell.value):
                point = (cell.bits, cell.value, max(0.0, finite(cell.spread) or 0.0), cell.doubtful)
                found.setdefault(activations_in(head), []).append(point)
        if row.method and row.method != FLOAT:
            labels = [SEPARATOR.join(filter(None, (row.label, words))) for words in found]
            lines += [Line(label, row.method, tuple(sorted(points))) for label, points in zip(labels, found.values(), strict=True)]
    return lines


def build_figure(tables: Sequence[Table]) -> Figure | None:
    """One panel for each of the first tables that have a point to draw, or, where a panel would be crowded, one for each family."""
    wanted = [panel for found in perplexity_tables(tables) for panel in _split(*found)][:PANELS]
    if not wanted:
        return None
    variants = {line.variant: None for panel in wanted for line in (*panel.lines, *panel.behind)}
    styles = {variant: line_style(place) for place, variant in enumerate(variants)}
    return panel_each([(panel, styles) for panel in wanted], _panel)


def lines_picture(tables: Sequence[Table]) -> Picture | None:
    """Every method as a line from few bits to many."""
    with plain_texts():
        figure = build_figure(tables)
        if figure is None:
            return None
        wanted = [panel for found in perplexity_tables(tables) for panel in _split(*found)]
        caption = (
            "Perplexity (lower is better) against the bits stored per weight: codes, scales, offsets, codebooks, outliers with their "
            "places, and matrices that stay at run time, all weighed. One line per method; vertical strokes are ± one standard error (or "
            "the deviation over seeds), the dashed level is the float model, the grey stair the front: what is above and to the right of "
            "it is beaten in both. Hollow marks: the weights had no more bits before anyone quantized them."
        )
        if any(panel.family for panel in wanted):
            caption += f" Tables with more than {CROWD} lines are split into families of methods; the other families stand behind in grey."
        caption += part_of(PANELS, len(wanted), "panels")
        alt = f"Perplexity against stored bits per weight, {_models(tables)}; {_winners(tables)}"
        return picture("perplexity-against-bits", "Perplexity against stored bits", caption, alt, figure)


def front_picture(tables: Sequence[Table]) -> Picture | None:
    """Which methods are on the front between 2 and 5 bits."""
    found = [(table, lines) for table, lines in perplexity_tables(tables) if len(_candidates(lines)) > 1]
    if not found:
        return None
    with plain_texts():
        figure = panel_each(found, _front_panel)
        caption = (
            "Perplexity against weighed bits per weight from 2 to 5 bits. The stair joins the points on the front, for which no other one "
            "has both fewer bits and a lower perplexity; they are named and coloured, all others are grey. Runs with quantized activations "
            "are left out, for they pay for something else; so are hollow points of weights that were already quantized."
        )
        caption += part_of(PANELS, len(found), "tables")
        alt = f"Fronts of perplexity against bits; {_winners(tables)}"
        return picture("pareto-front", "The front of perplexity and size", caption, alt, figure)


def _split(table: Table, lines: Sequence[Line]) -> list[Panel]:
    families = [(family, [line for line in lines if line.family == family]) for family in FAMILIES]
    families = [(family, found) for family, found in families if found]
    if len(lines) <= CROWD or len(families) == 1:
        return [Panel(table, tuple(lines))]
    return [Panel(table, tuple(own), tuple(line for line in lines if line not in own), family) for family, own in families]


def _panel(axes: Axes, panel: Panel, styles: dict) -> None:
    level = float_level(panel.table)
    everything = (*panel.lines, *panel.behind)
    points = [point[:2] for line in everything for point in line.points]
    scale(axes, [bits for bits, _ in points], [value for _, value in points] + ([] if level is None else [level]))
    named = sorted(panel.lines, key=lambda line: (min(point[1] for point in line.points), line.label))[:LABELS]
    named = [line for line in panel.lines if line in named]
    draw_behind(axes, [line.points for line in everything if line not in named])
    for line in named:
        _draw(axes, line, styles[line.variant])
    if level is not None:
        axes.axhline(level, color=colour_and_marker(FLOAT)[0], linewidth=1.1, linestyle=(0, (6, 3)), zorder=1.5)
    titled(axes, " · ".join(filter(None, (panel.table.title, panel.table.model, panel.family))), _facts(panel.table, everything))
    axes.set_xlabel("stored bits per weight")
    place_labels(axes, [_label(line) for line in named], [line.points for line in named], level)
    draw_front(axes, front(_candidates(everything)))


def _front_panel(axes: Axes, table: Table, lines: list[Line]) -> None:
    level, points = float_level(table), _candidates(lines)
    scale(axes, [bits for bits, *_ in points], [value for _, value, _ in points] + ([] if level is None else [level]))
    best = front(points)
    named: dict[tuple[float, float], list[Line]] = {}
    for bits, value, line in points:
        if (bits, value) in best:
            named.setdefault((bits, value), []).append(line)
    draw_behind(axes, [[(bits, value)] for bits, value, _ in points if (bits, value) not in best])
    for spot, found in named.items():
        axes.plot(*([number] for number in spot), **shown(found[0].method), zorder=4)
    if level is not None:
        axes.axhline(level, color=colour_and_marker(FLOAT)[0], linewidth=1.1, linestyle=(0, (6, 3)), zorder=1.5)
    titled(axes, f"{table.title} · {table.model}", _facts(table, ()))
    axes.set_xlabel("stored bits per weight")
    labels = [
        Label(shortened(" = ".join(line.label for line in found), LONGEST_LABEL), colour_and_marker(found[0].method)[0], spot, spot)
        for spot, found in named.items()
    ]
    place_labels(axes, labels, [[spot] for spot in named], level)
    draw_front(axes, best)


def _candidates(lines: Sequence[Line]) -> list[tuple[float, float, Line]]:
    """The points that may be on the front: float activations, evidence, and within the range of bits."""
    weights_only = [line for line in lines if not activations_in(line.label)]
    return [
        (bits, value, line) for line in weights_only for bits, value, _, doubt in line.points if not doubt and RANGE[0] <= bits <= RANGE[1]
    ]


def float_level(table: Table) -> float | None:
    """The float model's number."""
    return next((row.cells[0].value for row in table.rows if row.method == FLOAT and row.cells), None)


def _facts(table: Table, lines: Sequence[Line]) -> list[str]:
    hollow = any(point[3] for line in lines for point in line.points)
    return [*(["hollow: †"] if hollow else []), protocol_of(table)]


def protocol_of(table: Table) -> str:
    """What the caption of a table says of it."""
    return table.caption.partition("Protocol: ")[2].partition(". ")[0]


def _label(line: Line) -> Label:
    return Label(shortened(line.label, LONGEST_LABEL), colour_and_marker(line.method)[0], line.points[0][:2], line.points[-1][:2])


def _draw(axes: Axes, line: Line, style: str | tuple) -> None:
    bits, values, spreads, doubtful = zip(*line.points, strict=True)
    colour = colour_and_marker(line.method)[0]
    axes.plot(bits, values, color=colour, linewidth=1.5, linestyle=style, zorder=3)
    lower = [max(0.0, min(spread, value * 0.99)) for spread, value in zip(spreads, values, strict=True)]
    axes.errorbar(bits, values, yerr=(lower, spreads), fmt="none", ecolor=colour, elinewidth=1, alpha=0.45, zorder=2)
    for hollow in sorted(set(doubtful)):
        points = [(x, y) for x, y, *_, mark in line.points if mark is hollow]
        axes.plot(*zip(*points, strict=True), **shown(line.method, hollow), zorder=4)


def _models(tables: Sequence[Table]) -> str:
    names = list(dict.fromkeys(table.model for table, _ in perplexity_tables(tables)))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _winners(tables: Sequence[Table]) -> str:
    """In words, what the front of the first table is."""
    for table, lines in perplexity_tables(tables):
        points = _candidates(lines)
        names = {(bits, value): line.label for bits, value, line in points}
        steps = [f"{names[spot]} with {spot[0]:.2f} bits and {spot[1]:.4g}" for spot in front(points)][:6]
        if steps:
            return f"on the front of {table.title} on {table.model}: " + "; ".join(steps)
    return "no front"
