"""What outliers buy: perplexity against the share of weights that stay in float16, a line per method and column."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from harness.reporting.cells import Table
from harness.reporting.document import Picture
from harness.reporting.labels import SEPARATOR
from harness.reporting.placement import Label, place_labels
from harness.reporting.plots.bits import float_level, protocol_of
from harness.reporting.plots.canvas import GREY, PANELS, panel_each, part_of, picture, plain_texts, scale_along, shortened, shown, titled
from harness.reporting.plots.points import Point, bits_in_words, by_run, joined, mean_over, points_of
from harness.reporting.styles import colour_and_marker, line_style

OUTLIERS = "% outliers"
STRUCTURES = ("columns", "unstructured")  # how labels call whole columns of outliers, and single ones
LONGEST_LABEL = 40
LINES = 12  # in one panel
NEAR = 0.08  # of the panel, along both axes: so near are neighbours

Spot = tuple[float, Point]  # percent of the weights that are outliers, and the cell


def outliers_picture(frame: pd.DataFrame, tables: Sequence[Table]) -> Picture | None:
    """One panel for each table in which a ratio varies."""
    shares = by_run(frame, "outlier_share")
    found = [(table, lines) for table in tables if table.kind == "perplexity" and (lines := outlier_lines(table, shares))]
    if not found:
        return None
    with plain_texts():
        figure = panel_each(found, _panel, alone=(7.6, 4.4))
        caption = (
            "Perplexity (lower is better) against the share of weights that are kept in float16, where a share varies. Small numbers at "
            "the points are the stored bits per weight, outliers and their places included: read along a line, what the bits buy. A line "
            "starts at 0 where the same setting was run without outliers."
        )
        caption += part_of(PANELS, len(found), "tables")
        caption += f" A panel has at most {LINES} lines." if any(len(lines) > LINES for _, lines in found) else ""
        alt = "; ".join(_in_words(*entry) for entry in found[:3])
        return picture("perplexity-against-outliers", "What outliers buy", caption, alt, figure)


def outlier_lines(table: Table, shares: dict[str, float]) -> list[tuple[str, list[Spot]]]:
    """(label, points by growing share) of every setting with two shares or more."""
    plain: dict[tuple[str, str], Spot] = {}
    lines: dict[tuple[str, str, str], list[Spot]] = {}
    for point in points_of(table):
        share = mean_over(point.run_keys, shares)
        if share is None:
            continue
        words = point.label.split(SEPARATOR)
        rest = SEPARATOR.join(word for word in words if not word.endswith(OUTLIERS) and word not in STRUCTURES)
        if any(word.endswith(OUTLIERS) for word in words) or share > 0:
            structure = next((word for word in words if word in STRUCTURES), "")
            lines.setdefault((rest, point.head, structure), []).append((100 * share, point))
        else:
            plain[rest, point.head] = (0.0, point)
    found = []
    for (rest, head, structure), spots in sorted(lines.items(), key=lambda item: item[0]):
        spots = sorted([*spots, *([plain[rest, head]] if (rest, head) in plain else [])], key=lambda spot: (spot[0], spot[1].label))
        if len({round(share, 3) for share, _ in spots}) > 1:
            found.append((joined(rest, structure, bits_in_words(head)), spots))
    return found


def _panel(axes: Axes, table: Table, lines: list[tuple[str, list[Spot]]]) -> None:
    level = float_level(table)
    lines = lines[:LINES]
    every = [spot for _, spots in lines for spot in spots]
    scale_along(axes, "x", [share for share, _ in every], log=False)
    scale_along(axes, "y", [point.value for _, point in every] + ([] if level is None else [level]))
    if level is not None:
        axes.axhline(level, color="#222222", linewidth=1.1, linestyle=(0, (6, 3)), zorder=1.5)
    for place, (_, spots) in enumerate(lines):
        method = spots[-1][1].method
        xs, ys = [share for share, _ in spots], [point.value for _, point in spots]
        axes.plot(xs, ys, color=colour_and_marker(method)[0], linewidth=1.4, linestyle=line_style(place), zorder=3)
        for share, point in spots:
            axes.plot([share], [point.value], **shown(method, point.doubtful), zorder=4)
            if point.bits is not None:
                _write_bits(axes, share, point, every)
    titled(axes, joined(table.title, table.model), ["small numbers: bits per weight", protocol_of(table)])
    axes.set_xlabel("weights kept as outliers, %")
    labels = [
        Label(
            *(shortened(label, LONGEST_LABEL), colour_and_marker(spots[-1][1].method)[0]),
            *((spots[end][0], spots[end][1].value) for end in (0, -1)),
        )
        for label, spots in lines
    ]
    place_labels(axes, labels, [[(share, point.value) for share, point in spots] for _, spots in lines], level)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]])


def _write_bits(axes: Axes, share: float, point: Point, every: Sequence[Spot]) -> None:
    """Small beside the point: above the highest of its neighbours, below the others; to the right where the line's name stands left."""
    panel = axes.transScale + axes.transLimits
    here = panel.transform((share, point.value))
    near = [other.value for place, other in every if abs(panel.transform((place, other.value)) - here).max() <= NEAR]
    up, aside = point.value >= max(near), share == min(place for place, _ in every)
    where = (7 if aside else 0, 5 if up else -6)
    look = {"fontsize": 6.5, "color": GREY, "ha": "left" if aside else "center", "va": "bottom" if up else "top"}
    axes.annotate(f"{point.bits:.2f}", (share, point.value), where, textcoords="offset points", **look)


def _in_words(table: Table, lines: list[tuple[str, list[Spot]]]) -> str:
    steps = [f"{label}: " + ", ".join(f"{share:.2g} % {point.value:.4g}" for share, point in spots) for label, spots in lines[:4]]
    return f"{table.title} on {table.model} by share of outliers: " + "; ".join(steps)
