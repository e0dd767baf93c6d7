"""Perplexity against what a method costs: seconds of its own work, and peak memory; a row of panels for each bit width."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.placement import Label, place_labels
from harness.reporting.plots.bits import float_level, protocol_of
from harness.reporting.plots.canvas import (
    GREY,
    draw_behind,
    draw_front,
    front,
    panels,
    part_of,
    picture,
    plain_texts,
    scale_along,
    shortened,
    shown,
    titled,
)
from harness.reporting.plots.points import Point, bits_in_words, by_run, joined, mean_over, points_of
from harness.reporting.styles import colour_and_marker

ROWS = 6  # two panels each
NAMED = 14  # points that get a name in one panel: the front first, then by perplexity
LONGEST_LABEL = 34

Costs = list[tuple[float, Point]]


def costs_picture(frame: pd.DataFrame, tables: Sequence[Table]) -> Picture | None:
    """Time on the left, memory on the right."""
    seconds = by_run(frame, "seconds.quantize", "seconds.transform")
    memory = _peaks(frame)
    rows = [
        (table, head, points)
        for table in tables
        if table.kind == "perplexity"
        for head, points in _by_head(table)
        if len({point.method for point in points if mean_over(point.run_keys, seconds) is not None}) > 1
    ]
    if not rows:
        return None
    with plain_texts():
        figure, drawn = panels(2 * min(len(rows), ROWS), 2, (5.6, 3.2), high=1.2)
        for place, (table, head, points) in enumerate(rows[:ROWS]):
            title = joined(table.title, table.model, bits_in_words(head))
            _panel(drawn[2 * place], table, title, "seconds of the method's own work", _with(points, seconds))
            _panel(drawn[2 * place + 1], table, title, "peak memory, GiB", _with(points, memory))
        caption = (
            "Perplexity (lower is better) against the cost of quantization, one row for each bit width. Left: seconds in the solver and in "
            "the transform. The forward passes of calibration are not in it, because a sweep shares them and only the first run pays; the "
            "last picture has them. Right: the peak memory of the whole run, of the GPU where one was used. The stair is the front: what "
            "is above and to the right of it is beaten in both. Seconds are those of the machine that ran it. Hollow: the weights had no "
            "more bits before."
        )
        if any(len(points) > NAMED for *_, points in rows[:ROWS]):
            caption += f" At most {NAMED} points of a panel are named, the others grey."
        caption += part_of(ROWS, len(rows), "bit widths and tables")
        alt = "; ".join(_in_words(table, head, _with(points, seconds)) for table, head, points in rows[:ROWS])
        return picture("perplexity-against-cost", "Perplexity against time and memory", caption, alt, figure)


def _by_head(table: Table) -> list[tuple[str, list[Point]]]:
    """The points of each column, where a column has two or more."""
    heads: dict[str, list[Point]] = {}
    for point in points_of(table):
        heads.setdefault(point.head, []).append(point)
    return [(head, points) for head, points in heads.items() if len(points) > 1]


def _peaks(frame: pd.DataFrame) -> dict[str, float]:
    """Peak memory in GiB: of the GPU if the run used one."""
    gpu = {key: value for key, value in by_run(frame, "peak_memory_bytes.gpu").items() if value > 0}
    return {key: value / 2**30 for key, value in (by_run(frame, "peak_memory_bytes.cpu") | gpu).items()}


def _with(points: Sequence[Point], costs: Mapping[str, float]) -> Costs:
    found = [(mean_over(point.run_keys, costs), point) for point in points]
    return [(cost, point) for cost, point in found if cost is not None and cost > 0]


def _panel(axes: Axes, table: Table, title: str, label: str, points: Costs) -> None:
    axes.set_xlabel(label)
    titled(axes, title, [protocol_of(table)])
    if not points:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    level = float_level(table)
    level = level if level is not None and level > 0 else None
    scale_along(axes, "x", [cost for cost, _ in points])
    scale_along(axes, "y", [point.value for _, point in points] + ([] if level is None else [level]))
    best = front([(cost, point.value) for cost, point in points if not point.doubtful])
    ranked = sorted(points, key=lambda entry: ((entry[0], entry[1].value) not in best, entry[1].value, entry[1].label))
    named = ranked[:NAMED]
    draw_behind(axes, [[(cost, point.value)] for cost, point in ranked[NAMED:]])
    for cost, point in named:
        axes.plot([cost], [point.value], **shown(point.method, point.doubtful), zorder=4)
    if level is not None:
        axes.axhline(level, color="#222222", linewidth=1.1, linestyle=(0, (6, 3)), zorder=1.5)
    named.sort(key=lambda entry: (entry[1].label, entry[0]))
    labels = [
        Label(shortened(point.label, LONGEST_LABEL), colour_and_marker(point.method)[0], (cost, point.value), (cost, point.value))
        for cost, point in named
    ]
    place_labels(axes, labels, [[(cost, point.value)] for cost, point in named], level)
    draw_front(axes, best)


def _in_words(table: Table, head: str, points: Costs) -> str:
    best = front([(cost, point.value) for cost, point in points if not point.doubtful])
    names = {(cost, point.value): point.label for cost, point in points}
    steps = [f"{names[spot]} {spot[1]:.4g} in {spot[0]:.3g} s" for spot in best[:5]]
    return f"{table.model} at {head}: front of perplexity and time: " + (", ".join(steps) or "none")
