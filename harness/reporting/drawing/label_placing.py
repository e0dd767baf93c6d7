"""Labels at the ends of lines that touch neither each other nor, if it can be helped, anything drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression
from scipy.spatial import KDTree

from harness.reporting.drawing.label_costs import GAP, Scene, costs, hair_start
from harness.reporting.drawing.method_styles import ink

Spot = tuple[float, float]

# candidate heights, in half label heights
STEPS = sorted(range(-16, 17), key=lambda step: (abs(step), -step))
FONT_SIZE = 7.5
LEADING = 1.08  # heights of a label from the middle of one to that of the next
HAIR_GAPS = 2, 4  # points between a hair line and its label, and the end of the line
SAMPLES = 60  # obstacles along each stretch of a line
EDGE = 0.12  # of the panel: a line that ends so near to its right edge has its label outside
MARGIN = 0.5  # of the panel at most becomes room for labels
ROUNDS = 2  # each label is placed again when the others have their places


@dataclass(frozen=True)
class Label:
    """A text and the two ends (x, y), in data units, that it may stand at; the same twice for a point."""

    text: str
    colour: str
    left: Spot
    right: Spot


@dataclass(frozen=True)
class _Candidate:
    """A place for a label: its box (x0, y0, x1, y1) in pixels, on which side of which end, and what speaks
    against it.
    """

    box: np.ndarray
    side: str
    end: Spot


def place_labels(
    axes: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple]], level: float | None
) -> None:
    """Write every label beside an end of its line, and the name of the float level on the level.

    Where lines reach the right edge of the panel, it gives up some of its width for a column of their labels.

    Args:
        lines: all that labels should not cover, as points in data units.
    """
    unit = axes.figure.dpi / 100
    sizes = [np.array(_size(axes, label.text)) for label in labels]
    column = _narrow(axes, labels, sizes, unit)
    frame = axes.get_window_extent()
    room = np.array([frame.x0, frame.y0, frame.x1, frame.y1])
    obstacles = [_sampled(axes, [point[:2] for point in line]) for line in lines if line]
    if level is not None:
        y = axes.transData.transform((0, level))[1]
        obstacles.append(np.array([(x, y) for x in np.linspace(frame.x0, frame.x1, 2 * SAMPLES)]))
    chosen = _beside(axes, {index: labels[index] for index in column}, sizes, room, unit)
    fixed = () if level is None else (_level_label(axes, level, unit),)
    scene = Scene(room, fixed, KDTree(np.concatenate([np.empty((0, 2)), *obstacles])), unit)
    order = sorted(
        range(len(labels)),
        key=lambda index: (labels[index].left[0], -labels[index].left[1], labels[index].text),
    )
    for _ in range(ROUNDS):
        for index in (index for index in order if index not in column):
            others = tuple(candidate.box for number, candidate in chosen.items() if number != index)
            chosen[index] = _best(axes, labels[index], sizes[index], replace(scene, taken=(*fixed, *others)))
    for index in order:
        _write(axes, labels[index], chosen[index])


def _beside(
    axes: Axes, labels: dict[int, Label], sizes: Sequence[np.ndarray], room: np.ndarray, unit: float
) -> dict[int, _Candidate]:
    """A column right of the panel, in the order of the lines' ends and each as near to its own as can be."""
    heights = {index: axes.transData.transform(label.right)[1] for index, label in labels.items()}
    order = sorted(labels, key=lambda index: (heights[index], labels[index].text))
    if not order:
        return {}
    distances = [LEADING * (sizes[lower][1] + sizes[upper][1]) / 2 for lower, upper in pairwise(order)]
    lowest, highest = room[1] + sizes[order[0]][1] / 2, room[3] - sizes[order[-1]][1] / 2
    spots = within(spread([heights[index] for index in order], distances), distances, lowest, highest)
    chosen = {}
    for index, spot in zip(order, spots, strict=True):
        corner = np.array([room[2] + GAP * unit, spot - sizes[index][1] / 2])
        chosen[index] = _Candidate(
            np.concatenate([corner, corner + sizes[index]]), "right", labels[index].right
        )
    return chosen


def spread(targets: Sequence[float], distances: Sequence[float]) -> list[float]:
    """Ascending positions, neighbours at least these distances apart and, in least squares, as near to the
    targets as can be.
    """
    offsets = np.array([0.0, *np.cumsum(distances)])
    # with the distances taken off they need only not descend
    return (isotonic_regression(np.asarray(targets) - offsets).x + offsets).tolist()


def within(spots: Sequence[float], distances: Sequence[float], lowest: float, highest: float) -> list[float]:
    """The positions pushed up from below the lowest and down from the highest, as far apart as before."""
    offsets = np.array([0.0, *np.cumsum(distances)])
    moved = np.maximum(spots, lowest + offsets)
    return np.minimum(moved, highest - offsets[-1] + offsets).tolist()


def _best(axes: Axes, label: Label, size: np.ndarray, scene: Scene) -> _Candidate:
    """The cheapest of all places beside the ends: higher and lower, and for a point farther off too."""
    width, gap = size[0], GAP * scene.unit
    point = label.left == label.right
    places = [(label.right, "right", 0.0, gap), (label.left, "left", 0.4 if point else 1.0, gap)]
    if point:
        places += [(label.right, "middle", 0.8, 0.0)]
        places += [
            (label.right, side, 3.0 * far, (1 + 5 * far) * gap)
            for far in (1, 2, 3)
            for side in ("right", "left")
        ]
    else:
        places += [(label.right, "left", 2.0, gap), (label.left, "right", 2.0, gap)]
    lower, ranks, ends = [], [], []
    for end, side, cost, away in places:
        x, y = axes.transData.transform(end)
        start = {"left": x - away - width, "right": x + away, "middle": x - width / 2}[side]
        lower += [(start, y + (step - 1) * size[1] / 2) for step in STEPS]
        ranks += [0.6 * rank + cost for rank in range(len(STEPS))]
        ends += [(x, y)] * len(STEPS)
    boxes = np.hstack([np.array(lower), np.array(lower) + size])
    best = int(np.argmin(np.array(ranks) + costs(boxes, np.array(ends), scene)))
    end, side, *_ = places[best // len(STEPS)]
    return _Candidate(boxes[best], side, end)


def _write(axes: Axes, label: Label, place: _Candidate) -> None:
    """Put the text into its box, with a hair line to the end of its line where it stands off."""
    end, box = axes.transData.transform(place.end), place.box
    anchor = np.array(
        [
            {"left": box[2], "right": box[0], "middle": (box[0] + box[2]) / 2}[place.side],
            (box[1] + box[3]) / 2,
        ]
    )
    points = 72 / axes.figure.dpi  # the same place at any resolution
    axes.annotate(
        label.text,
        place.end,
        tuple((anchor - end) * points),
        textcoords="offset points",
        ha={"left": "right", "right": "left", "middle": "center"}[place.side],
        va="center",
        annotation_clip=False,
        color=ink(label.colour),
        fontsize=FONT_SIZE,
        linespacing=1.05,
        parse_math=False,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.3},  # over what is grey
        zorder=5,
    )
    start = hair_start(box[None], end[None])[0]
    if np.hypot(*(start - end)) > 1.7 * GAP * axes.figure.dpi / 100:
        _hair_line(axes, start, end, label.colour)


def _hair_line(axes: Axes, start: np.ndarray, stop: np.ndarray, colour: str) -> None:
    """From one place in pixels almost to another; an arrow of matplotlib's would take longer than all else in
    its panel.
    """
    direction = (stop - start) / np.hypot(*(stop - start)) * axes.figure.dpi / 72
    ends = axes.transData.inverted().transform(
        [start + HAIR_GAPS[0] * direction, stop - HAIR_GAPS[1] * direction]
    )
    axes.plot(
        *ends.T, color=colour, linewidth=0.5, alpha=0.7, scalex=False, scaley=False, clip_on=False, zorder=4.9
    )


def _level_label(axes: Axes, level: float, unit: float) -> np.ndarray:
    """Write the name of the float level at its left end, below it where there is room; return its box."""
    text = f"float {level:,.4g}"
    width, height = _size(axes, text)
    frame, y = axes.get_window_extent(), axes.transData.transform((0, level))[1]
    below = y - height - 4 * unit > frame.y0
    place = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "ha": "left",
        "va": "top" if below else "bottom",
    }
    axes.annotate(text, (0, level), (4, -2 if below else 2), **place, color="#222222", fontsize=FONT_SIZE)
    low, high = (y - height - 5 * unit, y) if below else (y, y + height + 5 * unit)
    return np.array([frame.x0, low, frame.x0 + width + 6 * unit, high])


def _size(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    artist = axes.text(0, 0, text, fontsize=FONT_SIZE, linespacing=1.05, parse_math=False)
    extent = artist.get_window_extent()
    artist.remove()
    return extent.width, extent.height


def _narrow(axes: Axes, labels: Sequence[Label], sizes: Sequence[np.ndarray], unit: float) -> set[int]:
    """Take from the panel the width of the labels whose lines reach its right edge; return which."""
    frame = axes.get_window_extent()
    ends = axes.transData.transform([label.right for label in labels])[:, 0]
    column = {
        place
        for place, (end, label) in enumerate(zip(ends, labels, strict=True))
        if frame.x1 - end < EDGE * frame.width and label.left != label.right
    }
    margin = min(MARGIN, max([0.0, *((sizes[place][0] + GAP * unit) / frame.width for place in column)]))
    box = axes.get_position()
    axes.set_position([box.x0, box.y0, box.width * (1 - margin), box.height])
    return column


def _sampled(axes: Axes, points: Sequence[Spot]) -> np.ndarray:
    """Pixels along the line through these points, (n, 2); a point alone counts as much as its mark does."""
    corners = axes.transData.transform(points)
    stretches = [np.linspace(start, stop, SAMPLES) for start, stop in pairwise(corners)]
    return np.concatenate([corners, *stretches] if stretches else [corners] * 6)
