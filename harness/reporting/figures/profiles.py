"""Errors along the depth of a model: of every kind of linear, of QuantEase relative to GPTQ, of whole blocks;
what training took off.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records.measurements import Profiles
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import panels, part_of, picture, plain_texts, titled
from harness.reporting.drawing.marks import GREY, draw_level
from harness.reporting.drawing.method_styles import colour_and_marker
from harness.reporting.drawing.scales import scale_along
from harness.reporting.figures.depth import along_blocks, draw_depth, draw_legend, legend_height, looks_of
from harness.reporting.figures.points import joined
from harness.reporting.figures.series import (
    Group,
    Models,
    Run,
    chosen,
    fullest,
    groups_of,
    plainest,
    positive,
)

PICTURES = 4  # of linears
ROWS = 4  # of blocks, two panels each
LINES = 8  # in one panel
KINDS = 7  # of linears in one picture

Rows = list[tuple[Group, list[tuple[Run, pd.DataFrame]]]]  # the tables of the blocks of runs


def layer_pictures(models: Models, profiles: Profiles) -> list[Picture]:
    """One picture for each bit width, one panel for each kind of linear."""
    groups = [group for group in groups_of(models, "layer_error.mean") if len(group.runs) > 1]
    with plain_texts():
        drawn = [_layers(group, profiles) for group in fullest(groups, PICTURES)]
    more = part_of(PICTURES, len(groups), "bit widths, models and calibrations, those with the most runs")
    return [
        picture(slug, title, caption + more, alt, figure)
        for slug, title, caption, alt, figure in filter(None, drawn)
    ]


def _layers(group: Group, profiles: Profiles) -> tuple[str, str, str, str, Figure] | None:
    runs = chosen(group.runs, LINES)
    errors = [(run, by_kind) for run in runs if (by_kind := profiles.layer_errors(run.place))]
    kinds = list(dict.fromkeys(kind for _, by_kind in errors for kind in by_kind))[:KINDS]
    if not kinds:
        return None
    ratio, looks = _ratio(errors), looks_of([run for run, _ in errors])
    count = len(kinds) + (ratio is not None)
    figure, axes = panels(count, 4, 1.5, bottom=0.45 + legend_height(looks), left=0.66, wide=0.48, high=0.7)
    for index, kind in enumerate(kinds):
        lines = [(run, *by_kind[kind]) for run, by_kind in errors if kind in by_kind]
        draw_depth(axes[index], kind, lines, looks)
    if ratio is not None:
        _ratios(axes[-1], *ratio)
    draw_legend(figure, looks)
    title = f"Layer errors at {group.column.in_words()}: {group.model}"
    caption = (
        "Relative error tr((W−Q) H (W−Q)ᵀ) / tr(W H Wᵀ) of every linear on the calibration text, block "
        "by block, log scale; lower is better. "
        f"Calibrated on {group.calibration}. Behind a transform W and H are those of the rewritten block."
    )
    if ratio is not None:
        caption += (
            " Last panel: the error of QuantEase over that of GPTQ in the same linear, a grey line per kind "
            "of linear and their geometric mean in colour; below 1 QuantEase is better."
        )
    if len(group.runs) > len(errors):
        caption += (
            f" {len(errors)} of {len(group.runs)} runs are drawn, every method once before any twice and "
            "with "
            "its least error."
        )
    alt = f"{title}; medians over the linears: " + ", ".join(
        f"{run.label} {_median(by_kind):.3g}" for run, by_kind in errors
    )
    return f"layer-errors-{group.model}-{group.column.label}", title, caption, alt, figure


def _ratio(errors: Sequence[tuple[Run, dict]]) -> tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]] | None:
    """What is compared, and by kind the blocks with the ratio there; of the plainest runs of both methods
    under one scheme.
    """
    ranked = sorted(errors, key=lambda entry: plainest(entry[0]))
    for run, ours in ranked:
        others = [
            (other, found) for other, found in ranked if other.method == "gptq" and other.scheme == run.scheme
        ]
        if run.method != "quantease" or not others:
            continue
        other, theirs = others[0]
        ratios = {}
        for kind in ours:
            if kind in theirs and np.array_equal(ours[kind][0], theirs[kind][0]):
                ratios[kind] = ours[kind][0], positive(ours[kind][1]) / positive(theirs[kind][1])
        if any(np.isfinite(ratio).any() for _, ratio in ratios.values()):
            return f"{run.label} ÷ {other.label}", ratios
    return None


def _ratios(axes: Axes, title: str, ratios: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    every = np.concatenate([ratio for _, ratio in ratios.values()])
    scale_along(axes, "y", [*every[np.isfinite(every)], 1.0])
    for blocks, ratio in ratios.values():
        axes.plot(blocks, ratio, color="#B9B9B9", linewidth=0.6, zorder=2)
    table = pd.DataFrame(
        {kind: pd.Series(np.log(ratio), index=blocks) for kind, (blocks, ratio) in ratios.items()}
    ).mean(axis=1)
    colour, marker = colour_and_marker("quantease")
    every_nth = max(1, len(table) // 8)
    axes.plot(
        table.index,
        np.exp(table),
        color=colour,
        marker=marker,
        markersize=3.5,
        linewidth=1.4,
        markevery=every_nth,
        zorder=3,
    )
    draw_level(axes, 1.0, 0.8)
    titled(axes, title)
    along_blocks(axes)


def _median(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    return float(np.nanmedian(np.concatenate([errors for _, errors in found.values()])))


def blocks_picture(models: Models, profiles: Profiles) -> Picture | None:
    """Output errors of blocks on the left; on the right the loss before and after training, where a transform
    trained.
    """
    groups = groups_of(models, "block_error.mean")
    rows: Rows = []
    for group in fullest(groups, ROWS):
        tables = [(run, profiles.blocks(run.place)) for run in chosen(group.runs, LINES)]
        tables = [(run, table) for run, table in tables if table is not None]
        rows += [(group, tables)] if tables else []
    if not rows:
        return None
    with plain_texts():
        figure = _blocks(rows)
        caption = (
            "Left: squared error of each block's output on the calibration text over the squared size of the "
            "float model's output; errors of earlier blocks are in it where calibration follows the "
            "quantized "
            "model. Right: what a transform minimises in each block, before (thin, without marks) and after "
            "its search or training. Log scales; lower is better."
        )
        caption += part_of(len(rows), len(groups), "bit widths, models and calibrations")
        if sum(len(group.runs) for group, _ in rows) > sum(len(tables) for _, tables in rows):
            caption += f" A panel has at most {LINES} lines."
        alt = "; ".join(
            f"{group.model} at {group.column.label}, mean output error: "
            + ", ".join(f"{run.label} {table['error'].mean():.3g}" for run, table in tables)
            for group, tables in rows
        )
        return picture("block-errors", "Errors of blocks along the depth", caption, alt, figure)


def _blocks(rows: Rows) -> Figure:
    """A line of panels for each group of runs, with a second panel each where any of them trained."""
    trained = any("stats.loss_after" in table for _, tables in rows for _, table in tables)
    looks = looks_of({run.label: run for _, tables in rows for run, _ in tables}.values())
    legend = looks | ({"thin: before training": {"color": GREY, "linewidth": 0.7}} if trained else {})
    across, bottom = 2 if trained else 1, 0.45 + legend_height(legend)
    margins = {"left": 0.66, "wide": 0.55, "high": 0.82, "top": 0.45}
    figure, axes = panels(across * len(rows), across, 1.4, bottom=bottom, **margins)
    for index, (group, tables) in enumerate(rows):
        name = joined(group.column.in_words(), group.model)
        lines = [
            (run, *(table[of].to_numpy(dtype=float) for of in ("block", "error"))) for run, table in tables
        ]
        draw_depth(axes[across * index], "Output error", lines, looks, name)
        if trained:
            _training(axes[2 * index + 1], name, tables, looks)
    draw_legend(figure, legend)
    return figure


def _training(
    axes: Axes, name: str, found: Sequence[tuple[Run, pd.DataFrame]], looks: dict[str, dict]
) -> None:
    names = ("stats.loss_before", "stats.loss_after")
    lines = [(run, table) for run, table in found if set(names) <= set(table.columns)]
    titled(axes, "Training loss", name)
    along_blocks(axes)
    values = np.concatenate(
        [positive(table[name].to_numpy(dtype=float)) for _, table in lines for name in names]
        or [np.array([])]
    )
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "nothing was trained", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    scale_along(axes, "y", values[np.isfinite(values)].tolist(), log=True)
    for place, (run, table) in enumerate(lines):
        blocks, every = table["block"].to_numpy(dtype=float), max(1, len(table) // 6)
        before, after = (positive(table[name].to_numpy(dtype=float)) for name in names)
        axes.plot(blocks, before, color=colour_and_marker(run.method)[0], linewidth=0.5, alpha=0.8, zorder=2)
        axes.plot(blocks, after, **looks[run.label], markevery=(place * every // len(lines), every), zorder=3)
