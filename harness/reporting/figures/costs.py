"""Perplexity against what a method costs: seconds of its own work, and peak memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import PANELS, panels, part_of, picture, plain_texts, titled
from harness.reporting.drawing.label_placing import Label, place_labels
from harness.reporting.drawing.marks import draw_behind, draw_front, draw_level, front, shown, stair
from harness.reporting.drawing.method_styles import colour_and_marker
from harness.reporting.drawing.scales import LIMIT, scale_along, scale_perplexity
from harness.reporting.drawing.texts import labelled
from harness.reporting.figures.points import (
    Point,
    by_run,
    float_level,
    joined,
    mean_over,
    points_of,
    protocols,
    series_of,
)
from harness.reporting.keys import ColumnKey

METHODS = 3  # from which on a column deserves a panel; the fullest column of a table gets one from two on
NAMED = 16  # series that get a name in one panel: those on the front first, then by perplexity
CROWD = 9  # names from which on half of the page's width is too narrow

Costs = list[tuple[float, Point]]


@dataclass(frozen=True)
class _Panel:
    """One column of a table against one cost."""

    table: Table
    column: ColumnKey
    axis: str
    points: tuple[tuple[float, Point], ...]


def time_picture(frame: pd.DataFrame, tables: Sequence[Table]) -> Picture | None:
    """Seconds of the columns in which methods can be compared."""
    said = (
        "Seconds are those in the solver and in the transform, on the machine that ran it. The forward "
        "passes of calibration are not in "
        "it, because a sweep shares them and only the first run pays; the last picture has them."
    )
    return _picture(
        "time",
        "seconds of the method's own work",
        said,
        by_run(frame, "seconds.quantize", "seconds.transform"),
        tables,
    )


def memory_picture(frame: pd.DataFrame, tables: Sequence[Table]) -> Picture | None:
    """Peak memory of the same."""
    said = (
        "Memory is the peak of a whole run, on the GPU where one was used; runs that went on after an "
        "interruption have none."
    )
    return _picture("memory", "peak memory, GiB", said, _peaks(frame), tables)


def _picture(
    cost: str, axis: str, said: str, costs: Mapping[str, float], tables: Sequence[Table]
) -> Picture | None:
    columns = [
        (table, *found) for table in tables if table.kind == "perplexity" for found in _compared(table, costs)
    ]
    wanted = [_Panel(table, column, axis, tuple(_with(points, costs))) for table, column, points in columns]
    if not wanted:
        return None
    crowded = any(len(_series(panel)) > CROWD for panel in wanted[:PANELS])
    drawn = wanted[: PANELS // 2 if crowded else PANELS]
    with plain_texts():
        figure = _figure(drawn, crowded)
        caption = (
            f"Perplexity (lower is better) against the {cost} that quantization takes, where two methods or "
            "more can be compared; models "
            f"that are broken (beyond {LIMIT:,.0f}) are left out. {said} Dots join the shares of outliers "
            "of one method. The stair is the "
            "front: what is above and to the right of it is beaten in both."
        )
        if any(point.doubtful for panel in drawn for _, point in panel.points):
            caption += " Hollow: the weights had no more bits before anyone quantized them."
        if any(len(_series(panel)) > NAMED for panel in drawn):
            caption += f" At most {NAMED} methods of a panel are named, the others grey."
        caption += part_of(len(drawn), len(wanted), "panels")
        alt = "; ".join(_in_words(panel, cost) for panel in drawn)
        return picture(f"perplexity-against-{cost}", f"Perplexity against {cost}", caption, alt, figure)


def _compared(table: Table, costs: Mapping[str, float]) -> list[tuple[ColumnKey, list[Point]]]:
    """The columns with enough methods of which the cost is known, no matter how many of them are hollow or
    broken beside those.
    """
    columns: dict[ColumnKey, list[Point]] = {}
    for point in points_of(table):
        if point.value <= LIMIT and mean_over(point.run_keys, costs):
            columns.setdefault(point.column, []).append(point)
    evidence, methods = {}, {}
    for column, points in columns.items():
        evidence[column] = len({point.row.method for point in points if not point.doubtful})
        methods[column] = len({point.row.method for point in points})
    fullest = max(columns, key=lambda column: (evidence[column], methods[column]), default=None)
    return [
        (column, points)
        for column, points in columns.items()
        if evidence[column] >= METHODS or (column == fullest and methods[column] > 1)
    ]


def _peaks(frame: pd.DataFrame) -> dict[str, float]:
    """Peak memory in GiB, of the GPU if the run used one. The peak of an attempt that took over what another
    had done is not the run's.
    """
    reused = by_run(frame, "reused.blocks", "reused.evaluations")
    gpu = {key: value for key, value in by_run(frame, "peak_memory_bytes.gpu").items() if value > 0}
    peaks = by_run(frame, "peak_memory_bytes.cpu") | gpu
    return {key: value / 2**30 for key, value in peaks.items() if not reused.get(key)}


def _with(points: Sequence[Point], costs: Mapping[str, float]) -> Costs:
    found = [(mean_over(point.run_keys, costs), point) for point in points]
    return [(cost, point) for cost, point in found if cost is not None and cost > 0]


def _series(panel: _Panel) -> dict[str, Costs]:
    """The points by what they are called, those of a series by perplexity, the best first."""
    names, series = series_of(row.key for row in panel.table.rows if row.key), {}
    for cost, point in sorted(panel.points, key=lambda entry: (entry[1].value, entry[0], entry[1].row.label)):
        series.setdefault(names[point.row], []).append((cost, point))
    return series


def _best(panel: _Panel) -> list[tuple[float, float]]:
    return front([(cost, point.value) for cost, point in panel.points if not point.doubtful])


def _figure(drawn: Sequence[_Panel], crowded: bool) -> Figure:
    """Panels with many names are as wide as the page, and so are then the others."""
    heights = [2.7 if len(_series(panel)) > CROWD else 1.6 for panel in drawn] if crowded else 2.3
    figure, axes = panels(
        len(drawn), 1 if crowded else 2, heights, protocols([panel.table for panel in drawn])
    )
    for place, panel in zip(axes, drawn, strict=True):
        _draw(place, panel)
    return figure


def _draw(axes: Axes, panel: _Panel) -> None:
    level, best, series = float_level(panel.table), _best(panel), _series(panel)
    level = level if level is not None and level > 0 else None
    scale_along(axes, "x", [cost for cost, _ in panel.points])
    scale_perplexity(axes, [point.value for _, point in panel.points] + ([] if level is None else [level]))
    ranked = sorted(
        series,
        key=lambda name: (
            not any((cost, point.value) in best for cost, point in series[name]),
            series[name][0][1].value,
            name,
        ),
    )
    draw_behind(axes, [[(cost, point.value)] for name in ranked[NAMED:] for cost, point in series[name]])
    labels, lines = [], [stair(axes, best)]
    for name in ranked[:NAMED]:
        spots = [(cost, point.value) for cost, point in series[name]]
        colour = colour_and_marker(series[name][0][1].row.method)[0]
        axes.plot(*zip(*spots, strict=True), color=colour, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=3)
        for spot, (_, point) in zip(spots, series[name], strict=True):
            axes.plot(*([number] for number in spot), **shown(point.row.method, point.doubtful), zorder=4)
        labels.append(Label(labelled(name), colour, spots[0], spots[0]))
        lines.append(spots)
    draw_level(axes, level)
    draw_front(axes, best)
    titled(axes, joined(panel.table.model, panel.column.in_words()))
    axes.set_xlabel(panel.axis)
    axes.set_ylabel(labelled(panel.table.title).lower())
    place_labels(axes, labels, lines, level)


def _in_words(panel: _Panel, what: str) -> str:
    names = {(cost, point.value): point.row.label for cost, point in panel.points}
    unit = "s" if what == "time" else "GiB"
    steps = [f"{names[spot]} {spot[1]:.4g} at {spot[0]:.3g} {unit}" for spot in _best(panel)[:5]]
    return f"{panel.table.model} at {panel.column.label}: front of perplexity and {what}: " + (
        ", ".join(steps) or "none"
    )
