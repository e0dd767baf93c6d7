"""What pictures draw alike: the marks of methods, the float level, what stands behind in grey, the front."""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from harness.reporting.drawing.method_styles import colour_and_marker, is_pair
from harness.reporting.labels import FLOAT

GREY, PALE, STAIR = "#777777", "#A6A6A6", "#D4D4D4"


def shown(method: str, hollow: bool = False) -> dict:
    """How the points of a method look: two methods together are half filled, and hollow ones are open to
    doubt.
    """
    colour, marker = colour_and_marker(method)
    style = "none" if hollow else "bottom" if is_pair(method) else "full"
    face = "none" if hollow else colour
    look = {
        "color": colour,
        "marker": marker,
        "markerfacecolor": face,
        "markeredgewidth": 1.1,
        "markersize": 5,
    }
    return look | {"fillstyle": style, "markerfacecoloralt": "white", "linestyle": "none"}


def draw_level(axes: Axes, level: float | None, width: float = 0.9) -> None:
    """What others are compared with, the float model's number or a ratio of one, as a dashed line."""
    if level is not None:
        axes.axhline(
            level, color=colour_and_marker(FLOAT)[0], linewidth=width, linestyle=(0, (6, 3)), zorder=1.5
        )


def draw_behind(axes: Axes, lines: Sequence[Sequence[tuple]]) -> None:
    """Lines or points that are no subject of the panel, all in one pale grey."""
    xs = [x for line in lines for x in (*(point[0] for point in line), math.nan)]
    ys = [y for line in lines for y in (*(point[1] for point in line), math.nan)]
    axes.plot(xs, ys, color=PALE, linewidth=0.5, marker=".", markersize=4, markeredgewidth=0, zorder=1.4)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, value) that no other one beats in both, from little cost to much; less is better in
    both.
    """
    chosen: list[tuple[float, float]] = []
    for point in sorted({point[:2] for point in points}):
        if not chosen or point[1] < chosen[-1][1]:
            chosen.append(point)
    return chosen


def stair(axes: Axes, best: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the front within the panel: what is above and to the right of it is beaten."""
    if not best:
        return []
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    xs, ys = [best[0][0], *(x for x, _ in best), right], [top, *(y for _, y in best), best[-1][1]]
    corners = list(zip(xs, ys, strict=True))
    doubled = [spot for (x, y), (following, _) in pairwise(corners) for spot in ((x, y), (following, y))]
    return list(dict.fromkeys([*doubled, corners[-1]]))


def draw_front(axes: Axes, best: Sequence[tuple[float, float]]) -> None:
    """The front as a grey stair."""
    if best:
        axes.plot(
            *zip(*stair(axes, best), strict=True),
            color=STAIR,
            linewidth=1.8,
            solid_joinstyle="round",
            zorder=1.2,
        )
