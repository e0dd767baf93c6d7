"""What outliers buy: perplexity against the share of weights that stay in float16, a line per method and
column.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import PANELS, panel_each, part_of, picture, plain_texts, titled
from harness.reporting.drawing.label_placing import Label, place_labels
from harness.reporting.drawing.marks import GREY, draw_level, shown
from harness.reporting.drawing.method_styles import colour_and_marker, line_style
from harness.reporting.drawing.scales import LIMIT, held, scale_along, scale_perplexity
from harness.reporting.drawing.texts import labelled
from harness.reporting.figures.points import (
    STRUCTURES,
    Point,
    by_run,
    float_level,
    joined,
    mean_over,
    points_of,
    protocols,
)
from harness.reporting.keys import ColumnKey, RowKey

LINES = 12  # in one panel
NUMBERS = 4  # lines up to which the points of a panel have their bits beside them
NEAR = 0.08  # of the panel, along both axes: so near are neighbours

Spot = tuple[float, Point]  # percent of the weights that are outliers, and the cell
Lines = dict[str, list[Spot]]


def outliers_picture(frame: pd.DataFrame, tables: Sequence[Table]) -> Picture | None:
    """One panel for each column of a table in which a share varies."""
    shares = by_run(frame, "outlier_share")
    wanted = [table for table in tables if table.kind == "perplexity"]
    found = [(table, *entry) for table in wanted for entry in outlier_lines(table, shares).items()]
    if not found:
        return None
    drawn = found[:PANELS]
    with plain_texts():
        numbers = any(len(lines) <= NUMBERS for *_, lines in drawn)
        notes = [
            *(["Small numbers: stored bits per weight."] if numbers else []),
            *protocols([table for table, *_ in drawn]),
        ]
        figure = panel_each(found, _panel, notes=notes)
        caption = (
            "Perplexity (lower is better) against the share of weights that are kept in float16, where a "
            "share varies. A line starts at 0 "
            "where the same setting was run without outliers."
        )
        if numbers:
            caption += (
                " Small numbers at the points are the stored bits per weight, outliers and their places "
                "included: read along a line, "
                "what the bits buy."
            )
        if any(point.value > LIMIT for *_, lines in drawn for spots in lines.values() for _, point in spots):
            caption += (
                f" Beyond {LIMIT:,.0f} a model is broken: such points lie in the band at the top, all at one "
                "height."
            )
        caption += (
            f" A panel has at most {LINES} lines." if any(len(lines) > LINES for *_, lines in drawn) else ""
        )
        caption += part_of(PANELS, len(found), "panels")
        alt = "; ".join(_in_words(*entry) for entry in found[:3])
        return picture("perplexity-against-outliers", "What outliers buy", caption, alt, figure)


def outlier_lines(table: Table, shares: dict[str, float]) -> dict[ColumnKey, Lines]:
    """By column the settings with two shares or more: points by growing share, under what the setting is
    called.
    """
    plain: dict[tuple[ColumnKey, RowKey], Spot] = {}
    lines: dict[tuple[ColumnKey, RowKey], dict[str, list[Spot]]] = {}
    for point in points_of(table):
        share = mean_over(point.run_keys, shares)
        if share is None:
            continue
        (structure, ratio), setting = point.row.outliers, (point.column, point.row.without_outliers)
        if ratio or share > 0:
            lines.setdefault(setting, {}).setdefault(structure, []).append((100 * share, point))
        else:
            plain[setting] = (0.0, point)
    found: dict[ColumnKey, Lines] = {}
    for (column, row), structures in lines.items():
        for structure, spots in sorted(structures.items()):
            spots = [plain[column, row], *spots] if (column, row) in plain else spots
            if len({round(share, 3) for share, _ in spots}) > 1:
                name = joined(row.label, STRUCTURES.get(structure, "") if len(structures) > 1 else "")
                spots = sorted(spots, key=lambda spot: (spot[0], spot[1].row.label))
                found.setdefault(column, {})[name] = spots
    return {point.column: found[point.column] for point in points_of(table) if point.column in found}


def _panel(axes: Axes, table: Table, column: ColumnKey, lines: Lines) -> None:
    level = float_level(table)
    lines = dict(list(lines.items())[:LINES])
    every = [spot for spots in lines.values() for spot in spots]
    scale_along(axes, "x", [share for share, _ in every], log=False)
    ceiling = scale_perplexity(axes, [point.value for _, point in every] + ([] if level is None else [level]))
    draw_level(axes, level)
    labels, drawn, numbers = [], [], {}
    for place, (name, spots) in enumerate(lines.items()):
        method, line = (
            spots[-1][1].row.method,
            [(share, held(point.value, ceiling)) for share, point in spots],
        )
        colour = colour_and_marker(method)[0]
        axes.plot(
            *zip(*line, strict=True), color=colour, linewidth=1.2, linestyle=line_style(place), zorder=3
        )
        for spot, (_, point) in zip(line, spots, strict=True):
            axes.plot(*([number] for number in spot), **shown(method, point.doubtful), zorder=4)
            numbers[spot] = point.bits
        labels.append(Label(labelled(name), colour, line[0], line[-1]))
        drawn.append(line)
    if len(lines) <= NUMBERS:
        for spot, bits in numbers.items():
            _write_bits(axes, spot, bits, list(numbers))
    titled(axes, joined(table.model, column.in_words()))
    axes.set_xlabel("weights kept as outliers, %")
    axes.set_ylabel(labelled(table.title).lower())
    place_labels(axes, labels, drawn, level)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]])


def _write_bits(
    axes: Axes, spot: tuple[float, float], bits: float | None, every: Sequence[tuple[float, float]]
) -> None:
    """Small beside the point: to the upper right of the highest of its neighbours, to the lower left of the
    others, where lines fall.
    """
    panel = axes.transScale + axes.transLimits
    near = [other[1] for other in every if abs(panel.transform(other) - panel.transform(spot)).max() <= NEAR]
    if spot[1] >= max(near):
        look = {"xytext": (3, 2), "ha": "left", "va": "bottom"}
    else:
        look = {"xytext": (-3, -2), "ha": "right", "va": "top"}
    axes.annotate(
        "" if bits is None else f"{bits:.2f}",
        spot,
        textcoords="offset points",
        fontsize=6,
        color=GREY,
        **look,
    )


def _in_words(table: Table, column: ColumnKey, lines: Lines) -> str:
    steps = [
        f"{name}: " + ", ".join(f"{share:.2g} % {point.value:.4g}" for share, point in spots)
        for name, spots in list(lines.items())[:4]
    ]
    return f"{table.title} on {table.model} at {column.label} by share of outliers: " + "; ".join(steps)
