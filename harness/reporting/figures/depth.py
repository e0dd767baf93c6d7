"""Lines along the blocks of a model, one per run, and one legend for all panels of a picture."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.reporting.drawing.canvas import titled
from harness.reporting.drawing.marks import shown
from harness.reporting.drawing.method_styles import colour_and_marker, line_style
from harness.reporting.drawing.scales import scale_along
from harness.reporting.drawing.styles import WIDTH
from harness.reporting.drawing.texts import shortened
from harness.reporting.figures.series import Run, positive

LETTER = 0.06  # inches


def along_blocks(axes: Axes) -> None:
    axes.set_xlabel("block")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def draw_depth(
    axes: Axes,
    title: str,
    lines: Sequence[tuple[Run, np.ndarray, np.ndarray]],
    looks: dict[str, dict],
    facts: str = "",
) -> None:
    """Positive values against the index of the block, log scale, one line per run."""
    values = np.concatenate([positive(values) for _, _, values in lines])
    titled(axes, title, facts)
    along_blocks(axes)
    axes.set_ylabel("relative error" if axes.get_subplotspec().is_first_col() else "")
    if not np.isfinite(values).any():
        return
    scale_along(axes, "y", values[np.isfinite(values)].tolist(), log=True)
    for place, (run, blocks, errors) in enumerate(lines):
        every = max(1, len(blocks) // 6)
        axes.plot(
            blocks,
            positive(errors),
            **looks[run.label],
            markevery=(place * every // len(lines), every),
            zorder=3,
        )


def looks_of(runs: Iterable[Run]) -> dict[str, dict]:
    """How the line of each label looks in a picture: those of one colour are dashed in different ways."""
    looks, seen = {}, {}
    for run in runs:
        colour = colour_and_marker(run.method)[0]
        line = {
            "markersize": 3.5,
            "markeredgewidth": 0.9,
            "linestyle": line_style(seen.get(colour, 0)),
            "linewidth": 0.9,
        }
        looks[run.label] = shown(run.method) | line
        seen[colour] = seen.get(colour, 0) + 1
    return looks


def draw_legend(figure: Figure, looks: dict[str, dict]) -> None:
    """One for all panels, below them: direct labels have no room in so many."""
    handles = [Line2D([], [], **look) for look in looks.values()]
    labels = [shortened(label) for label in looks]
    legend = figure.legend(
        handles, ["x"] * len(labels), loc="lower center", ncols=_across(labels), handlelength=3
    )
    # a label that begins with _ would be left out
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


def legend_height(looks: Iterable[str]) -> float:
    """Inches that the legend takes."""
    labels = [shortened(label) for label in looks]
    return 0.15 + 0.16 * -(-len(labels) // _across(labels))


def _across(labels: Sequence[str]) -> int:
    """How many labels stand beside one another: as many as the page is wide, four at most."""
    return min(4, len(labels), max(1, int(WIDTH / (0.6 + LETTER * max(map(len, labels))))))
