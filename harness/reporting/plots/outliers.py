"""What outliers buy: perplexity against the share of weights that stay in float16, a line per method and column."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.labels import SEPARATOR
from harness.reporting.placement import Label, place_labels
from harness.reporting.plots.canvas import PANELS, panel_each, part_of, picture, plain_texts, titled
from harness.reporting.plots.marks import GREY, draw_level, shown
from harness.reporting.plots.points import (
    STRUCTURES,
    Point,
    apart,
    bits_in_words,
    by_run,
    float_level,
    joined,
    mean_over,
    points_of,
    protocols,
)
from harness.reporting.plots.scales import LIMIT, held, scale_along, scale_perplexity
from harness.reporting.plots.texts import labelled
from harness.reporting.styles import colour_and_marker, line_style

LINES = 12  # in one panel
NEAR = 0.08  # of the panel, along both axes: so near are neighbours

Spot = tuple[float, Point]  # percent of the weights that are outliers, and the cell
Lines = list[tuple[str, list[Spot]]]


def outliers_picture(frame: pd.DataFrame, tables: Sequence[Table]) -> Picture | None:
    """One panel for each table in which a ratio varies."""
    shares = by_run(frame, "outlier_share")
    found = [(table, lines) for table in tables if table.kind == "perplexity" and (lines := outlier_lines(table, shares))]
    if not found:
        return None
    with plain_texts():
        notes = ["Small numbers: stored bits per weight.", *protocols([table for table, _ in found[:PANELS]])]
        figure = panel_each(found, _panel, notes=notes)
        caption = (
            "Perplexity (lower is better) against the share of weights that are kept in float16, where a share varies. Small numbers at "
            "the points are the stored bits per weight, outliers and their places included: read along a line, what the bits buy. A line "
            "starts at 0 where the same setting was run without outliers."
        )
        caption += part_of(PANELS, len(found), "tables")
        caption += f" A panel has at most {LINES} lines." if any(len(lines) > LINES for _, lines in found) else ""
        if any(point.value > LIMIT for _, lines in found for _, spots in lines for _, point in spots):
            caption += f" Beyond {LIMIT:,.0f} a model is broken: such points lie in the band at the top, all at one height."
        alt = "; ".join(_in_words(*entry) for entry in found[:3])
        return picture("perplexity-against-outliers", "What outliers buy", caption, alt, figure)


def outlier_lines(table: Table, shares: dict[str, float]) -> Lines:
    """(label, points by growing share) of every setting with two shares or more."""
    plain: dict[tuple[str, str], Spot] = {}
    lines: dict[tuple[str, str, str], list[Spot]] = {}
    for point in points_of(table):
        share = mean_over(point.run_keys, shares)
        if share is None:
            continue
        rest, structure, ratio = apart(point.label)
        if ratio or share > 0:
            lines.setdefault((rest, point.head, structure), []).append((100 * share, point))
        else:
            plain[rest, point.head] = (0.0, point)
    found = []
    for (rest, head, structure), spots in sorted(lines.items(), key=lambda item: item[0]):
        spots = sorted([*spots, *([plain[rest, head]] if (rest, head) in plain else [])], key=lambda spot: (spot[0], spot[1].label))
        if len({round(share, 3) for share, _ in spots}) > 1:
            several = sum((rest, head) == other[:2] for other in lines) > 1
            found.append((joined(rest, STRUCTURES.get(structure, "") if several else "", bits_in_words(head)), spots))
    return found


def _panel(axes: Axes, table: Table, lines: Lines) -> None:
    level = float_level(table)
    lines = lines[:LINES]
    every = [spot for _, spots in lines for spot in spots]
    scale_along(axes, "x", [share for share, _ in every], log=False)
    ceiling = scale_perplexity(axes, [point.value for _, point in every] + ([] if level is None else [level]))
    heads = list(dict.fromkeys(spots[-1][1].head for _, spots in lines))
    said = SEPARATOR + bits_in_words(heads[0]) if len(heads) == 1 else ""
    draw_level(axes, level)
    drawn = [[(share, held(point.value, ceiling)) for share, point in spots] for _, spots in lines]
    for place, (line, (_, spots)) in enumerate(zip(drawn, lines, strict=True)):
        method = spots[-1][1].method
        axes.plot(*zip(*line, strict=True), color=colour_and_marker(method)[0], linewidth=1.2, linestyle=line_style(place), zorder=3)
        for spot, (_, point) in zip(line, spots, strict=True):
            axes.plot(*([number] for number in spot), **shown(method, point.doubtful), zorder=4)
    numbers = {
        (spot, point.bits) for line, (_, spots) in zip(drawn, lines, strict=True) for spot, (_, point) in zip(line, spots, strict=True)
    }
    for spot, bits in sorted((spot, bits) for spot, bits in numbers if bits is not None):
        _write_bits(axes, spot, bits, [spot for spot, _ in numbers])
    titled(axes, table.model + said)
    axes.set_xlabel("weights kept as outliers, %")
    axes.set_ylabel(labelled(table.title).lower())
    labels = [
        Label(labelled(label.removesuffix(said)), colour_and_marker(spots[-1][1].method)[0], line[0], line[-1])
        for line, (label, spots) in zip(drawn, lines, strict=True)
    ]
    place_labels(axes, labels, drawn, level)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]])


def _write_bits(axes: Axes, spot: tuple[float, float], bits: float, every: Sequence[tuple[float, float]]) -> None:
    """Small beside the point: to the upper right of the highest of its neighbours, to the lower left of the others, where lines fall."""
    panel = axes.transScale + axes.transLimits
    near = [other[1] for other in every if abs(panel.transform(other) - panel.transform(spot)).max() <= NEAR]
    if spot[1] >= max(near):
        look = {"xytext": (3, 2), "ha": "left", "va": "bottom"}
    else:
        look = {"xytext": (-3, -2), "ha": "right", "va": "top"}
    axes.annotate(f"{bits:.2f}", spot, textcoords="offset points", fontsize=6, color=GREY, **look)


def _in_words(table: Table, lines: Lines) -> str:
    steps = [f"{label}: " + ", ".join(f"{share:.2g} % {point.value:.4g}" for share, point in spots) for label, spots in lines[:4]]
    return f"{table.title} on {table.model} by share of outliers: " + "; ".join(steps)
