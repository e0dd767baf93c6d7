"""Labels at the ends of lines that touch neither each other nor, if it can be helped, anything drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

GAP = 9  # pixels at 100 dpi between a line's end and its label
STEPS = sorted(range(-16, 17), key=lambda step: (abs(step), -step))  # candidate heights, in half label heights
FONT_SIZE = 8.5
HAIR_GAPS = 2, 4  # points between a hair line and its label, and the end of the line
SAMPLES = 60  # obstacles along each stretch of a line


@dataclass(frozen=True)
class Label:
    """A text and the two ends (x, y), in data units, that it may stand at."""

    text: str
    colour: str
    left: tuple[float, float]
    right: tuple[float, float]


def place_labels(axes: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple]], level: float | None) -> None:
    """Write every label beside the left or the right end of its line, and the name of the float level on the level.

    The horizontal limits are widened to the left so that the labels of lines that end there have room.
    """
    unit = axes.figure.dpi / 100
    sizes = [_size(axes, label.text) for label in labels]
    _make_room(axes, max(width for width, _ in sizes) + 2 * GAP * unit)
    frame = axes.get_window_extent()
    taken = [] if level is None else [_level_label(axes, level, unit)]
    obstacles = np.concatenate([_sampled(axes, [point[:2] for point in line]) for line in lines])
    if level is not None:
        frame_y = axes.transData.transform((0, level))[1]
        obstacles = np.concatenate([obstacles, [(x, frame_y) for x in np.linspace(frame.x0, frame.x1, 2 * SAMPLES)]])
    order = sorted(range(len(labels)), key=lambda place: (labels[place].left[0], -labels[place].left[1], labels[place].text))
    heights = _heights(axes, [label.left for label in labels], 1.08 * max(height for _, height in sizes), unit)
    for place in order:
        box, side, end = _best_box(axes, labels[place], sizes[place], heights[place], frame, taken, obstacles, unit)
        taken.append(box)
        _write(axes, labels[place], box, side, end)


def _heights(axes: Axes, ends: Sequence[tuple[float, float]], distance: float, unit: float) -> list[float]:
    """The height in pixels of each label left of its line: lines that end at about the same bits get theirs in order, apart."""
    pixels = axes.transData.transform(ends)
    heights, columns = [0.0] * len(ends), {}
    for place in sorted(range(len(ends)), key=lambda place: (pixels[place][1], place)):
        columns.setdefault(round(pixels[place][0] / (15 * unit)), []).append(place)
    for column in columns.values():
        for place, height in zip(column, spread([pixels[place][1] for place in column], distance), strict=True):
            heights[place] = height
    return heights


def spread(targets: Sequence[float], distance: float) -> list[float]:
    """Ascending positions at least `distance` apart and, in least squares, as near to the ascending targets as can be."""
    groups: list[tuple[float, int]] = []  # (mean, members) of what the targets become once the distances are taken off
    for place, target in enumerate(targets):
        mean, members = target - place * distance, 1
        while groups and groups[-1][0] >= mean:
            other, count = groups.pop()
            mean, members = (mean * members + other * count) / (members + count), members + count
        groups.append((mean, members))
    flat = [mean for mean, members in groups for _ in range(members)]
    return [mean + place * distance for place, mean in enumerate(flat)]


def _best_box(axes, label, size, height_left, frame, taken, obstacles, unit) -> tuple[np.ndarray, str, tuple[float, float]]:
    """The cheapest candidate: its box (x0, y0, x1, y1) in pixels, the side of the end it stands on, and that end."""
    width, height = size
    places = ((label.left, "left"), (label.left, "right"), (label.right, "right"), (label.right, "left"))
    corners, costs = [], []
    for preference, (end, side) in enumerate(places):
        x, y = axes.transData.transform(end)
        start = x - GAP * unit - width if side == "left" else x + GAP * unit
        y = height_left if preference == 0 else y
        corners += [(start, y + (step - 1) * height / 2) for step in STEPS]
        costs += [0.6 * rank + preference for rank in range(len(STEPS))]
    lower = np.array(corners)
    boxes = np.hstack([lower, lower + size])
    best = int(np.argmin(np.array(costs) + _costs(boxes, frame, taken, obstacles, unit)))
    end, side = places[best // len(STEPS)]
    return boxes[best], side, end


def _costs(boxes: np.ndarray, frame, taken, obstacles: np.ndarray, unit: float) -> np.ndarray:
    """What is wrong with each box, (n, 4): pixels outside the panel, pixels over other labels, lines crossed."""
    lower, upper = boxes[:, :2], boxes[:, 2:]
    outside = np.maximum(frame.min - lower, 0).sum(axis=1) + np.maximum(upper - frame.max, 0).sum(axis=1)
    shared = [np.minimum(upper, other[2:]) - np.maximum(lower, other[:2]) for other in taken]
    overlap = sum((np.maximum(sides.min(axis=1), 0) for sides in shared), np.zeros(len(boxes)))
    crossed = _crossed(boxes, obstacles, 3 * unit)
    return 4 * outside + 10 * overlap + 3 * crossed


def _crossed(boxes: np.ndarray, obstacles: np.ndarray, margin: float) -> np.ndarray:
    """How many obstacles lie in each box or nearer to it than the margin; boxes above one another share the work."""
    counts = np.zeros(len(boxes))
    for start in np.unique(boxes[:, 0]):
        column = boxes[:, 0] == start
        near = (obstacles[:, 0] > start - margin) & (obstacles[:, 0] < boxes[column][0, 2] + margin)
        heights = np.sort(obstacles[near, 1])
        above = np.searchsorted(heights, boxes[column, 1] - margin, "right")
        counts[column] = np.searchsorted(heights, boxes[column, 3] + margin, "left") - above
    return counts


def _write(axes: Axes, label: Label, box: np.ndarray, side: str, end: tuple[float, float]) -> None:
    """Put the text into its box, with a hair line to the end of its line where it stands off."""
    x, y = axes.transData.transform(end)
    middle, near = (box[1] + box[3]) / 2, box[2] if side == "left" else box[0]
    points = 72 / axes.figure.dpi  # the same place at any resolution
    axes.annotate(
        label.text,
        end,
        ((near - x) * points, (middle - y) * points),
        textcoords="offset points",
        ha="right" if side == "left" else "left",
        va="center",
        annotation_clip=False,
        color=label.colour,
        fontsize=FONT_SIZE,
        parse_math=False,
        zorder=5,
    )
    if abs(middle - y) > (box[3] - box[1]) / 2:
        _hair_line(axes, np.array([near, middle]), np.array([x, y]), label.colour)


def _hair_line(axes: Axes, start: np.ndarray, stop: np.ndarray, colour: str) -> None:
    """From one place in pixels almost to another; an arrow of matplotlib's would take longer than all else in its panel."""
    direction = (stop - start) / np.hypot(*(stop - start)) * axes.figure.dpi / 72
    ends = axes.transData.inverted().transform([start + HAIR_GAPS[0] * direction, stop - HAIR_GAPS[1] * direction])
    axes.plot(*ends.T, color=colour, linewidth=0.6, alpha=0.7, scalex=False, scaley=False, clip_on=False, zorder=4.9)


def _level_label(axes: Axes, level: float, unit: float) -> np.ndarray:
    """Write the name of the float level above its line, at the left end; return its box."""
    text = f"float {level:,.4g}"
    width, height = _size(axes, text)
    x, y = axes.get_window_extent().x0, axes.transData.transform((0, level))[1]
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "left", "va": "bottom"}
    axes.annotate(text, (0, level), (4, 3), **place, color="#222222", fontsize=FONT_SIZE)
    return np.array([x, y, x + width + 6 * unit, y + height + 5 * unit])


def _size(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    artist = axes.text(0, 0, text, fontsize=FONT_SIZE, parse_math=False)
    extent = artist.get_window_extent()
    artist.remove()
    return extent.width, extent.height


def _make_room(axes: Axes, pixels: float) -> None:
    """Widen the horizontal limits by this much on the left, at most to half of the panel."""
    scale = axes.xaxis.get_transform()  # the axis may be logarithmic
    low, high = scale.transform(axes.get_xlim())
    share = min(0.5, pixels / axes.get_window_extent().width)
    low -= (high - low) * share / (1 - share)
    axes.set_xlim(*scale.inverted().transform([low, high]))


def _sampled(axes: Axes, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Pixels along the line through these points, (n, 2)."""
    corners = axes.transData.transform(points)
    stretches = [np.linspace(start, stop, SAMPLES) for start, stop in pairwise(corners)]
    return np.concatenate([corners, *stretches])
