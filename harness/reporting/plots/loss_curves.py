"""How training went: the loss of every epoch, a line per block, a panel per run of a learned transform."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.ticker import MaxNLocator

from harness.reporting.document import Picture
from harness.reporting.placement import Label, place_labels
from harness.reporting.plots.canvas import PANELS, panel_each, part_of, picture, plain_texts, scale_along, titled
from harness.reporting.plots.points import bits_in_words, joined
from harness.reporting.profiles_data import Group, Models, Profiles, Run, first, groups_of, positive

READ = 48  # tables looked into for curves; those of runs without epochs hold none
DEPTH = LinearSegmentedColormap.from_list("depth", ["#B7D3EA", "#5E9CCB", "#1F5F9E", "#08244A"])  # light to dark, in greyscale too


def loss_picture(models: Models, profiles: Profiles) -> Picture | None:
    """One panel for each of the first `PANELS` runs whose epochs were kept."""
    groups = groups_of(models, "method.transform.epochs")
    found: list[tuple[Group, Run, np.ndarray]] = []
    for group, run in first(groups, READ):
        losses = profiles.losses(run.place)
        if losses is not None and np.isfinite(positive(losses)).any():
            found.append((group, run, losses))
    if not found:
        return None
    with plain_texts():
        figure = panel_each(found, _panel, across=3, alone=(7.4, 4.6), several=(3.9, 3.2), high=1.1, top=0.7)
        caption = (
            "Mean training loss of each epoch, relative to the mean square of the block's target, log scale; a line per block, from light "
            "(the first) to dark (the last). Each sample counts with the parameters of its own step, so that an epoch's loss lies between "
            "those before and after it; it includes the auxiliary part where the transform has one."
        )
        runs = sum(len(group.runs) for group in groups)
        caption += part_of(min(len(found), PANELS), runs, "runs that trained")
        alt = "; ".join(f"{joined(run.label, group.head)}: mean over blocks {_ends(losses)}" for group, run, losses in found[:PANELS])
        return picture("loss-curves", "Loss of learned transforms by epoch", caption, alt, figure)


def _panel(axes: Axes, group: Group, run: Run, losses: np.ndarray) -> None:
    losses = positive(losses)
    blocks, epochs = losses.shape
    steps = np.arange(1, epochs + 1)
    scale_along(axes, "x", [1, max(epochs, 2)], log=False)
    scale_along(axes, "y", losses[np.isfinite(losses)].tolist(), log=True)
    colours = [to_hex(DEPTH(block / max(1, blocks - 1))) for block in range(blocks)]
    for block, colour in enumerate(colours):
        axes.plot(
            steps, losses[block], color=colour, linewidth=1.2, marker="o", markersize=2.5 if epochs > 1 else 4, zorder=2 + block / blocks
        )
    titled(axes, joined(run.label, bits_in_words(group.head)), [group.model], length=46)
    axes.set_xlabel("epoch", labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ends = [block for block in dict.fromkeys((0, blocks - 1)) if np.isfinite(losses[block]).all()]
    if ends:
        names = ["first block", "last block"] if blocks > 1 else ["the block"]
        lines = [list(zip(steps, losses[block], strict=True)) for block in ends]
        labels = [
            Label(names[min(block, 1)], "#4A87B8" if block == 0 else colours[block], line[0], line[-1])
            for block, line in zip(ends, lines, strict=True)
        ]
        place_labels(axes, labels, lines, None)
        axes.set_xticks([tick for tick in axes.get_xticks() if 1 <= tick <= epochs])


def _ends(losses: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        means = np.nanmean(positive(losses), axis=0)
    return f"{means[0]:.3g} in the first epoch, {means[-1]:.3g} in the last"
