"""What happened inside the runs: the tables of their linears and blocks, read only where something is drawn
of them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.records.naming import method_rank
from harness.reporting.frames import entries_of
from harness.reporting.labels import (
    FLOAT,
    SEPARATOR,
    column_label,
    column_of,
    column_rank,
    row_labels,
    row_rank,
    settings,
)
from harness.reporting.tables.all_numbers import by_model

Models = list[tuple[str, pd.DataFrame]]  # what `labelled` gives


@dataclass(frozen=True)
class Run:
    """One run that is done: how it is called, and where it lies below `runs`."""

    label: str
    method: str
    place: str
    error: float = math.inf  # what its group is about, e.g. its mean over the linears
    scheme: str = ""


@dataclass(frozen=True)
class Group:
    """Runs whose errors may be compared: one model, one calibration, one column of the tables."""

    model: str
    calibration: str
    head: str
    runs: tuple[Run, ...]  # in the order of a table


def labelled(frame: pd.DataFrame) -> Models:
    """(model, its quantized runs that are done, by key) in the order of a report, with the column `label`:
    what tables call their rows.
    """
    done = frame[(frame["status"] == "done") & (frame["method.name"] != FLOAT)]
    models = by_model(done) if len(done) else ()
    return [
        (model, records.assign(label=row_labels(records).labels).sort_values("run_key", kind="stable"))
        for model, records in models
    ]


def groups_of(models: Models, column: str) -> list[Group]:
    """All groups, in the order of a report.

    Args:
        models: as `labelled` gives them.
        column: of the records; only runs that have a number there are meant. Of several seeds the first run
            by key stands for all.
    """
    found = []
    for model, records in models:
        if column not in records:
            continue
        used = [
            name
            for name in records
            if name in ("label", "method.name", "place", column) or name.startswith(("data.", "scheme."))
        ]
        cells: dict[tuple, dict[str, Run]] = {}
        for record in entries_of(records.loc[pd.to_numeric(records[column], errors="coerce").notna(), used]):
            head = column_of(record)
            runs = cells.setdefault((settings(record, "data"), head), {})
            if (label := record["label"]) not in runs:
                runs[label] = Run(
                    label,
                    record["method.name"],
                    record["place"],
                    float(record[column]),
                    settings(record, "scheme"),
                )
        ranked = sorted(
            (calibration, column_rank(*head), column_label(*head), runs)
            for (calibration, head), runs in cells.items()
        )
        for calibration, _, head, runs in ranked:
            ordered = tuple(sorted(runs.values(), key=lambda run: row_rank(run.method, run.label)))
            found.append(Group(model, calibration, head, ordered))
    return found


def fullest(groups: list[Group], count: int) -> list[Group]:
    """The `count` groups with the most runs, in their own order."""
    ranked = sorted(range(len(groups)), key=lambda place: (-len(groups[place].runs), place))[:count]
    return [groups[place] for place in sorted(ranked)]


def plainest(run: Run) -> tuple:
    """Least for the run that stands for a method: few settings of its own, then little error."""
    return run.label.count(SEPARATOR), run.error, row_rank(run.method, run.label)


def chosen(runs: tuple[Run, ...], count: int) -> list[Run]:
    """At most `count` runs, every method once before any twice: the plainest label first, the least error; in
    the order of a table.
    """
    ranks: dict[str, int] = {}
    order = []
    for run in sorted(runs, key=plainest):
        ranks[run.method] = ranks.get(run.method, 0) + 1
        order.append(((ranks[run.method], method_rank(run.method), run.label), run))
    kept = {run.label for _, run in sorted(order, key=lambda entry: entry[0])[:count]}
    return [run for run in runs if run.label in kept]


def positive(values: np.ndarray) -> np.ndarray:
    """The values with NaN for what a logarithmic scale cannot show."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def first(groups: list[Group], count: int) -> Iterator[tuple[Group, Run]]:
    """The first runs of these groups."""
    runs = ((group, run) for group in groups for run in group.runs)
    yield from (entry for entry, _ in zip(runs, range(count), strict=False))
