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
from harness.reporting.keys import ColumnKey, RowKey, row_keys
from harness.reporting.labels import FLOAT, settings
from harness.reporting.tables.all_numbers import by_model

Models = list[tuple[str, pd.DataFrame]]  # what `labelled` gives


@dataclass(frozen=True)
class Run:
    """One run that is done: how it is called, and where it lies below `runs`."""

    key: RowKey
    place: str
    error: float = math.inf  # what its group is about, e.g. its mean over the linears
    scheme: str = ""

    @property
    def label(self) -> str:
        return self.key.label

    @property
    def method(self) -> str:
        return self.key.method


@dataclass(frozen=True)
class Group:
    """Runs whose errors may be compared: one model, one calibration, one column of the tables."""

    model: str
    calibration: str
    column: ColumnKey
    runs: tuple[Run, ...]  # in the order of a table


def labelled(frame: pd.DataFrame) -> Models:
    """(model, its quantized runs that are done, by key) in the order of a report, with the column `key`:
    that of their row in a table.
    """
    done = frame[(frame["status"] == "done") & (frame["method.name"] != FLOAT)]
    models = by_model(done) if len(done) else ()
    found = []
    for model, records in models:
        keys = pd.Series(row_keys(records).keys, records.index, dtype=object)
        found.append((model, records.assign(key=keys).sort_values("run_key", kind="stable")))
    return found


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
            if name in ("key", "place", column) or name.startswith(("data.", "scheme."))
        ]
        cells: dict[tuple[str, ColumnKey], dict[RowKey, Run]] = {}
        for record in entries_of(records.loc[pd.to_numeric(records[column], errors="coerce").notna(), used]):
            runs = cells.setdefault((settings(record, "data"), ColumnKey.of(record)), {})
            run = Run(record["key"], record["place"], float(record[column]), settings(record, "scheme"))
            runs.setdefault(run.key, run)
        for calibration, scheme in sorted(cells, key=lambda cell: (cell[0], cell[1].rank)):
            runs = sorted(cells[calibration, scheme].values(), key=lambda run: run.key.rank)
            found.append(Group(model, calibration, scheme, tuple(runs)))
    return found


def fullest(groups: list[Group], count: int) -> list[Group]:
    """The `count` groups with the most runs, in their own order."""
    ranked = sorted(range(len(groups)), key=lambda place: (-len(groups[place].runs), place))[:count]
    return [groups[place] for place in sorted(ranked)]


def plainest(run: Run) -> tuple:
    """Least for the run that stands for a method: few settings of its own, then little error."""
    return len(run.key.settings), run.error, run.key.rank


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
