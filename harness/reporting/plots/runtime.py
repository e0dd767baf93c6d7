"""Where the time goes: seconds of every stage for each row of the tables."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.reporting.document import Picture
from harness.reporting.frames import entries_of, finite
from harness.reporting.labels import row_rank
from harness.reporting.plots.canvas import panels, part_of, picture, plain_texts, scale_along, shortened, titled
from harness.reporting.profiles_data import Models

STAGES = (  # column, name, marker, colour, filled: from light to dark in the order of a run
    ("seconds.calibrate", "calibrate", "o", "#8FB8DA", False),
    ("seconds.transform", "transform", "s", "#D58A3C", True),
    ("seconds.quantize", "quantize", "D", "#14406B", True),
    ("seconds.evaluate", "evaluate", "|", "#555555", True),
)
ROWS = 26  # in one panel
MODELS = 4
LONGEST_LABEL = 40

Stages = dict[str, tuple[float, float, float]]  # least, median, most seconds by column


def runtime_picture(models: Models) -> Picture | None:
    """One panel per model, one line per row of its tables."""
    found = [(model, rows) for model, records in models if (rows := _rows(records))]
    if not found:
        return None
    drawn = [(model, _most_expensive(rows)) for model, rows in found[:MODELS]]
    with plain_texts():
        tallest = max(len(rows) for _, rows in drawn)
        across = min(2, len(drawn))
        size = (7.6 if across == 1 else 6.4, 1.75 + 0.26 * tallest)
        figure, axes = panels(len(drawn), across, size, left=2.9, wide=3.1, top=0.55, bottom=0.95, high=0.95)
        for place, (model, rows) in zip(axes, drawn, strict=True):
            _panel(place, model, rows, tallest)
        handles = [_handle(marker, colour, filled) for *_, marker, colour, filled in STAGES]
        figure.legend(handles, [name for _, name, *_ in STAGES], loc="lower center", ncols=len(STAGES), frameon=False, fontsize=8.5)
        caption = (
            "Seconds by stage on a log scale, a line per row of the tables: the mark is the median over its runs (bit widths and seeds), "
            "the stroke runs from the least to the most. Calibrate: forward passes, Hessians, scoring; statistics that a sweep shares "
            "count only where they were computed. Transform and quantize: inside the method. Seconds are those of the machine that ran it."
        )
        if any(len(rows) > ROWS for _, rows in found[:MODELS]):
            caption += f" Of each model the {ROWS} rows that take longest are shown."
        caption += part_of(MODELS, len(found), "models")
        return picture("seconds-by-stage", "Where the time goes", caption, "; ".join(_in_words(*entry) for entry in drawn), figure)


def _rows(records: pd.DataFrame) -> list[tuple[str, str, Stages]]:
    """(label, method, stages) in the order of a table."""
    grouped: dict[tuple[str, str], list[dict]] = {}
    used = ["label", "method.name", *(column for column, *_ in STAGES if column in records)]
    for record in entries_of(records[used]):
        grouped.setdefault((record["method.name"], record["label"]), []).append(record)
    rows = []
    for method, label in sorted(grouped, key=lambda key: row_rank(*key)):
        stages = {}
        for column, *_ in STAGES:
            seconds = sorted(value for value in (finite(record.get(column)) for record in grouped[method, label]) if value and value > 0)
            if seconds:
                stages[column] = seconds[0], seconds[len(seconds) // 2], seconds[-1]
        rows += [(label, method, stages)] if stages else []
    return rows


def _most_expensive(rows: list[tuple[str, str, Stages]]) -> list[tuple[str, str, Stages]]:
    """At most `ROWS`, in their order."""
    ranked = sorted(range(len(rows)), key=lambda place: (-sum(median for _, median, _ in rows[place][2].values()), place))[:ROWS]
    return [rows[place] for place in sorted(ranked)]


def _panel(axes: Axes, model: str, rows: list[tuple[str, str, Stages]], tallest: int) -> None:
    scale_along(axes, "x", [second for _, _, stages in rows for found in stages.values() for second in found], log=True)
    axes.set_ylim(tallest - 0.4, -0.6)
    for place, (_, _, stages) in enumerate(rows):
        axes.axhline(place, color="#EEEEEE", linewidth=0.8, zorder=1)
        for column, _, marker, colour, filled in STAGES:
            if column in stages:
                low, middle, high = stages[column]
                axes.plot([low, high], [place, place], color=colour, linewidth=1.6, alpha=0.55, zorder=2)
                axes.plot([middle], [place], **_look(marker, colour, filled), zorder=3)
    axes.set_yticks(range(len(rows)), [shortened(label, LONGEST_LABEL) for label, *_ in rows], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.set_xlabel("seconds", labelpad=2)
    titled(axes, model)


def _look(marker: str, colour: str, filled: bool) -> dict:
    return {"marker": marker, "color": colour, "markerfacecolor": colour if filled else "white", "markersize": 6, "markeredgewidth": 1.4}


def _handle(marker: str, colour: str, filled: bool) -> Line2D:
    return Line2D([], [], linestyle="none", **_look(marker, colour, filled))


def _in_words(model: str, rows: list[tuple[str, str, Stages]]) -> str:
    said = [f"{label} {stages['seconds.quantize'][1]:.3g}" for label, _, stages in rows if "seconds.quantize" in stages][:8]
    return f"{model}, median seconds of quantize: " + (", ".join(said) or "none")
