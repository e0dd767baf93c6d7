"""How training went: what is left of the loss after every epoch, a line per block, a panel per run of a
learned transform.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.records.measurements import Profiles
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import PANELS, panel_each, part_of, picture, plain_texts, titled
from harness.reporting.drawing.marks import draw_level
from harness.reporting.drawing.scales import scale_along
from harness.reporting.figures.points import joined
from harness.reporting.figures.series import Group, Models, Run, first, groups_of, positive

READ = 48  # tables looked into for curves; those of runs without epochs hold none
# light to dark, in greyscale too
DEPTH = LinearSegmentedColormap.from_list("depth", ["#A9CBE6", "#5E9CCB", "#1F5F9E", "#08244A"])
MOST = 1.4  # of the loss of the first epoch: the end of the axis
BAR = 0.62  # inches at the right for the bar of depths

Found = list[tuple[Group, Run, np.ndarray]]


def loss_picture(models: Models, profiles: Profiles) -> Picture | None:
    """One panel for each of the first `PANELS` runs whose epochs were kept."""
    groups = groups_of(models, "method.transform.epochs")
    curves: Found = []
    for group, run in first(groups, READ):
        losses = profiles.losses(run.place)
        if losses is not None and np.isfinite(positive(losses)).any():
            curves.append((group, run, losses))
    if not curves:
        return None
    with plain_texts():
        left = [relative(losses) for *_, losses in curves[:PANELS]]
        highest = max([1.0, *(float(np.nanmax(part)) for part in left if np.isfinite(part).any())])
        drawn = [(*entry, min(highest, MOST)) for entry in curves]
        figure = panel_each(
            drawn,
            _panel,
            across=3,
            alone=2.9,
            several=1.75,
            top=0.6,
            high=0.9,
            wide=0.42,
            left=0.55,
            right=0.12 + BAR,
        )
        _bar(figure)
        caption = (
            "Mean training loss of each epoch over that of the first one, the same scale in all panels: "
            "what is left of it. A line per "
            "block, from light (the first) to dark (the last). Each sample counts with the parameters of "
            "its own step, so that an epoch's "
            "loss lies between those before and after it; it includes the auxiliary part where the "
            "transform has one."
        )
        if highest > MOST:
            caption += f" Where a loss rose above {MOST:g} its line leaves the panel."
        runs = sum(len(group.runs) for group in groups)
        caption += part_of(min(len(curves), PANELS), runs, "runs that trained")
        alt = "; ".join(
            f"{joined(run.label, group.column.label)}: mean over blocks {_ends(losses)}"
            for group, run, losses in curves[:PANELS]
        )
        return picture("loss-curves", "Loss of learned transforms by epoch", caption, alt, figure)


def relative(losses: np.ndarray) -> np.ndarray:
    """Losses (blocks, epochs) over those of the first epoch; NaN where there is none."""
    return positive(losses) / positive(losses)[:, :1]


def _panel(axes: Axes, group: Group, run: Run, losses: np.ndarray, highest: float) -> None:
    left = relative(losses)
    blocks, epochs = left.shape
    steps = np.arange(1, epochs + 1)
    scale_along(axes, "x", [1, max(epochs, 2)], log=False)
    axes.set_ylim(0, 1.06 * highest)
    for block in range(blocks):
        look = {"marker": "o", "markersize": 1.8 if epochs > 1 else 4, "linewidth": 0.8}
        axes.plot(
            steps, left[block], color=DEPTH(block / max(1, blocks - 1)), **look, zorder=2 + block / blocks
        )
    draw_level(axes, 1.0, 0.8)
    titled(axes, run.label, joined(group.column.in_words(), group.model))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss / that of epoch 1" if axes.get_subplotspec().is_first_col() else "")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xticks([tick for tick in axes.get_xticks() if 1 <= tick <= epochs])


def _bar(figure: Figure) -> None:
    """What light and dark mean, beside the panels."""
    boxes = [axes.get_position() for axes in figure.axes]
    low, high, width = min(box.y0 for box in boxes), max(box.y1 for box in boxes), figure.get_figwidth()
    place = figure.add_axes(
        (1 - BAR / width, (low + high) / 2 - 0.25 * (high - low), 0.1 / width, 0.5 * (high - low))
    )
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), DEPTH), cax=place, ticks=[])
    bar.outline.set_visible(False)
    place.set_title("last\nblock", fontsize=7, fontweight="normal", loc="center", pad=3)
    place.set_xlabel("first\nblock", fontsize=7)


def _ends(losses: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        means = np.nanmean(positive(losses), axis=0)
    return f"{means[0]:.3g} in the first epoch, {means[-1]:.3g} in the last"
