"""The front of perplexity and size alone: what no other method beats in both."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import PANELS, panel_each, part_of, picture, plain_texts, titled
from harness.reporting.drawing.label_placing import Label, place_labels
from harness.reporting.drawing.marks import draw_behind, draw_front, draw_level, front, shown, stair
from harness.reporting.drawing.method_styles import colour_and_marker
from harness.reporting.drawing.scales import LIMIT, scale_bits, scale_perplexity
from harness.reporting.drawing.texts import labelled
from harness.reporting.figures.bits import Line, candidates, perplexity_tables, winners
from harness.reporting.figures.points import float_level, protocols

RANGE = (1.9, 5.1)  # bits: where anybody compares

Found = list[tuple[float, float, Line]]


def front_picture(tables: Sequence[Table]) -> Picture | None:
    """Which methods are on the front between 2 and 5 bits."""
    found = [
        (table, points) for table, lines in perplexity_tables(tables) if len(points := _compared(lines)) > 1
    ]
    if not found:
        return None
    with plain_texts():
        figure = panel_each(found, _panel, notes=protocols([table for table, _ in found[:PANELS]]))
        caption = (
            "Perplexity against weighed bits per weight from 2 to 5 bits. The stair joins the points on the "
            "front, for which no other one "
            "has both fewer bits and a lower perplexity; they are named and coloured, all others are grey. "
            "Runs with quantized activations "
            "are left out, for they pay for something else; so are weights that were already quantized, and "
            "models that are broken "
            f"(beyond {LIMIT:,.0f})."
        )
        caption += part_of(PANELS, len(found), "tables")
        alt = f"Fronts of perplexity against bits; {winners(tables, *RANGE)}"
        return picture("pareto-front", "The front of perplexity and size", caption, alt, figure)


def _compared(lines: Sequence[Line]) -> Found:
    return [point for point in candidates(lines) if RANGE[0] <= point[0] <= RANGE[1]]


def _panel(axes: Axes, table: Table, points: Found) -> None:
    level = float_level(table)
    scale_bits(axes, [bits for bits, *_ in points])
    scale_perplexity(axes, [value for _, value, _ in points] + ([] if level is None else [level]))
    best = front([point[:2] for point in points])
    named: dict[tuple[float, float], list[Line]] = {}
    for bits, value, line in points:
        if (bits, value) in best:
            named.setdefault((bits, value), []).append(line)
    draw_behind(axes, [[(bits, value)] for bits, value, _ in points if (bits, value) not in best])
    for spot, found in named.items():
        axes.plot(*([number] for number in spot), **shown(found[0].method), zorder=4)
    draw_level(axes, level)
    draw_front(axes, best)
    titled(axes, table.model)
    axes.set_xlabel("stored bits per weight")
    axes.set_ylabel(labelled(table.title).lower())
    labels = [
        Label(
            labelled(" = ".join(line.label for line in found)),
            colour_and_marker(found[0].method)[0],
            spot,
            spot,
        )
        for spot, found in named.items()
    ]
    place_labels(axes, labels, [stair(axes, best), *([point[:2]] for point in points)], level)
