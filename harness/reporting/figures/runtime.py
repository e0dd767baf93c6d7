"""Where the time goes: seconds of every stage for each row of the tables."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.records.record import finite
from harness.reporting.document import Picture
from harness.reporting.drawing.canvas import panels, part_of, picture, plain_texts, titled
from harness.reporting.drawing.scales import scale_along
from harness.reporting.drawing.texts import shortened
from harness.reporting.figures.series import Models
from harness.reporting.frames import entries_of
from harness.reporting.keys import RowKey

STAGES = (  # column, name, marker, colour, filled: from light to dark in the order of a run
    ("seconds.calibrate", "calibrate", "o", "#8FB8DA", False),
    ("seconds.transform", "transform", "s", "#D58A3C", True),
    ("seconds.quantize", "quantize", "D", "#14406B", True),
    ("seconds.evaluate", "evaluate", "|", "#555555", True),
)
ROWS = 40  # in one picture
MODELS = 4
ROW, LETTER = 0.165, 0.062  # inches from row to row, and of a letter of their labels

Stages = dict[str, tuple[float, float, float]]  # least, median, most seconds by column


def runtime_picture(models: Models) -> Picture | None:
    """One panel per model, one line per row of its tables."""
    found = [(model, rows) for model, records in models if (rows := _rows(records))]
    if not found:
        return None
    shares = shared([len(rows) for _, rows in found[:MODELS]], ROWS)
    drawn = [
        (model, _most_expensive(rows, share)) for (model, rows), share in zip(found, shares, strict=False)
    ]
    with plain_texts():
        longest = max(len(shortened(label)) for _, rows in drawn for label, *_ in rows)
        heights = [ROW * (len(rows) + 0.4) for _, rows in drawn]
        figure, axes = panels(
            len(drawn), 1, heights, left=0.25 + LETTER * longest, bottom=0.68, high=0.42, top=0.3
        )
        seconds = [
            second for _, rows in drawn for _, stages in rows for found in stages.values() for second in found
        ]
        for panel, (model, rows) in zip(axes, drawn, strict=True):
            scale_along(panel, "x", seconds, log=True)
            _panel(panel, model, rows)
        axes[-1].set_xlabel("seconds")
        known = [
            stage for stage in STAGES if any(stage[0] in stages for _, rows in drawn for *_, stages in rows)
        ]
        handles = [_handle(marker, colour, filled) for *_, marker, colour, filled in known]
        figure.legend(handles, [name for _, name, *_ in known], loc="lower center", ncols=len(known))
        caption = (
            "Seconds by stage on a log scale, a line per row of the tables: the mark is the median over its "
            "runs (bit widths and seeds), "
            "the stroke runs from the least to the most. Calibrate: forward passes, Hessians, scoring; "
            "statistics that a sweep shares "
            "count only where they were computed. Transform and quantize: inside the method. Seconds are "
            "those of the machine that ran it."
        )
        if any(len(rows) > share for (_, rows), share in zip(found, shares, strict=False)):
            caption += f" At most {ROWS} rows are shown, of each model those that take longest."
        caption += part_of(MODELS, len(found), "models")
        return picture(
            "seconds-by-stage",
            "Where the time goes",
            caption,
            "; ".join(_in_words(*entry) for entry in drawn),
            figure,
        )


def shared(wanted: list[int], room: int) -> list[int]:
    """How many each gets of what there is room for: those that want little all of it, the others equal shares
    of the rest.
    """
    shares = [0] * len(wanted)
    for rank, place in enumerate(sorted(range(len(wanted)), key=lambda place: wanted[place])):
        shares[place] = min(wanted[place], (room - sum(shares)) // (len(wanted) - rank))
    return shares


def _rows(records: pd.DataFrame) -> list[tuple[str, Stages]]:
    """(label, stages) in the order of a table."""
    grouped: dict[RowKey, list[dict]] = {}
    used = ["key", *(column for column, *_ in STAGES if column in records)]
    for record in entries_of(records[used]):
        grouped.setdefault(record["key"], []).append(record)
    rows = []
    for key in sorted(grouped, key=lambda key: key.rank):
        stages = {}
        for column, *_ in STAGES:
            seconds = sorted(
                value
                for value in (finite(record.get(column)) for record in grouped[key])
                if value and value > 0
            )
            if seconds:
                stages[column] = seconds[0], seconds[len(seconds) // 2], seconds[-1]
        rows += [(key.label, stages)] if stages else []
    return rows


def _most_expensive(rows: list[tuple[str, Stages]], count: int) -> list[tuple[str, Stages]]:
    """At most `count`, in their order."""
    ranked = sorted(
        range(len(rows)), key=lambda place: (-sum(median for _, median, _ in rows[place][1].values()), place)
    )[:count]
    return [rows[place] for place in sorted(ranked)]


def _panel(axes: Axes, model: str, rows: list[tuple[str, Stages]]) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.8)
    for place, (_, stages) in enumerate(rows):
        axes.axhline(place, color="#EEEEEE", linewidth=0.7, zorder=1)
        for column, _, marker, colour, filled in STAGES:
            if column in stages:
                low, middle, high = stages[column]
                axes.plot([low, high], [place, place], color=colour, linewidth=1.3, alpha=0.55, zorder=2)
                axes.plot([middle], [place], **_look(marker, colour, filled), zorder=3)
    axes.set_yticks(range(len(rows)), [shortened(label) for label, *_ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    titled(axes, model)


def _look(marker: str, colour: str, filled: bool) -> dict:
    return {
        "marker": marker,
        "color": colour,
        "markerfacecolor": colour if filled else "white",
        "markersize": 4.6,
        "markeredgewidth": 1.1,
    }


def _handle(marker: str, colour: str, filled: bool) -> Line2D:
    return Line2D([], [], linestyle="none", **_look(marker, colour, filled))


def _in_words(model: str, rows: list[tuple[str, Stages]]) -> str:
    said = [
        f"{label} {stages['seconds.quantize'][1]:.3g}"
        for label, stages in rows
        if "seconds.quantize" in stages
    ][:8]
    return f"{model}, median seconds of quantize: " + (", ".join(said) or "none")
