"""What speaks against each place that a label may have."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

GAP = 7  # pixels at 100 dpi between a line's end and its label


@dataclass(frozen=True)
class Scene:
    """What labels must keep clear of, in pixels: the room there is (x0, y0, x1, y1), boxes of other labels,
    points of lines.
    """

    room: np.ndarray
    taken: tuple[np.ndarray, ...]
    obstacles: KDTree
    unit: float  # pixels for one at 100 dpi


def costs(boxes: np.ndarray, ends: np.ndarray, scene: Scene) -> np.ndarray:
    """What is wrong with each box: pixels outside the room or over other labels, lines covered, its hair line
    over labels or lines.
    """
    lower, upper = boxes[:, :2], boxes[:, 2:]
    outside = np.maximum(scene.room[:2] - lower, 0).sum(axis=1)
    outside += np.maximum(upper - scene.room[2:], 0).sum(axis=1)
    crossed = _crossed(boxes, scene.obstacles.data, 3 * scene.unit)
    overlap, struck = np.zeros(len(boxes)), np.zeros(len(boxes))
    starts = hair_start(boxes, ends)
    hairs = starts[:, None] + np.linspace(0, 1, 8)[None, :, None] * (ends - starts)[:, None]
    elsewhere = np.abs(hairs - ends[:, None]).max(axis=2) > 1.5 * GAP * scene.unit
    distances = scene.obstacles.query(hairs, p=np.inf, distance_upper_bound=3 * scene.unit)[0]
    passed = (elsewhere & np.isfinite(distances)).sum(axis=1)
    for other in scene.taken:
        overlap += np.maximum((np.minimum(upper, other[2:]) - np.maximum(lower, other[:2])).min(axis=1), 0)
        struck += ((hairs > other[:2]) & (hairs < other[2:])).all(axis=2).sum(axis=1)
    return 4 * outside + 10 * overlap + 3 * crossed + 4 * struck + 3 * passed


def hair_start(boxes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where a hair line meets each box, (n, 2): at the middle of the side that looks to the end, or above or
    below it.
    """
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    x = np.clip(ends[:, 0], boxes[:, 0], boxes[:, 2])
    edge = np.where(ends[:, 1] > middle, boxes[:, 3], boxes[:, 1])
    return np.column_stack([x, np.where(x == ends[:, 0], edge, middle)])


def _crossed(boxes: np.ndarray, obstacles: np.ndarray, margin: float) -> np.ndarray:
    """How many obstacles lie in each box or nearer to it than the margin; boxes above one another share the
    work.
    """
    counts = np.zeros(len(boxes))
    for start in np.unique(boxes[:, 0]):
        column = boxes[:, 0] == start
        near = (obstacles[:, 0] > start - margin) & (obstacles[:, 0] < boxes[column][0, 2] + margin)
        heights = np.sort(obstacles[near, 1])
        above = np.searchsorted(heights, boxes[column, 1] - margin, "right")
        counts[column] = np.searchsorted(heights, boxes[column, 3] + margin, "left") - above
    return counts
