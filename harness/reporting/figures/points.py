"""Cells of perplexity tables joined with what their runs cost, for the pictures that have something else than
bits on their axis.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.records.naming import keeps_outliers
from harness.records.record import finite
from harness.reporting.cells import Table
from harness.reporting.keys import ColumnKey, RowKey
from harness.reporting.labels import FLOAT, SEPARATOR

# how labels call their structure, and how pictures do
STRUCTURES = {"columns": "column outliers", "unstructured": "unstructured outliers"}


@dataclass(frozen=True)
class Point:
    """One cell of a table."""

    row: RowKey
    column: ColumnKey
    bits: float | None
    value: float
    spread: float | None
    doubtful: bool
    run_keys: tuple[str, ...]


def points_of(table: Table) -> list[Point]:
    """All cells of a table that hold a number of a quantized model."""
    return [
        Point(row.key, column, cell.bits, cell.value, cell.spread, cell.doubtful, cell.run_keys)
        for row in table.rows
        if row.key
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.value is not None and math.isfinite(cell.value)
    ]


def series_of(keys: Iterable[RowKey]) -> dict[RowKey, str]:
    """What pictures call each row: rows that differ in their share of outliers alone are one series."""
    structures: dict[RowKey, set[str]] = {}
    ratios: dict[RowKey, set[str]] = {}
    keys = list(keys)
    for key in keys:
        structure, ratio = key.outliers
        if structure or ratio:
            structures.setdefault(key.without_outliers, set()).add(structure)
            ratios.setdefault(key.without_outliers, set()).add(ratio)
    names = {}
    for key in keys:
        (structure, ratio), rest = key.outliers, key.without_outliers
        if not (structure or ratio):
            words = ""
        elif len(structures[rest]) > 1:
            words = STRUCTURES.get(structure, ratio)
        elif len(ratios[rest]) == 1:
            words = ratio
        else:
            words = "" if keeps_outliers(key.method) else "outliers"
        names[key] = joined(rest.label, words)
    return names


def by_run(frame: pd.DataFrame, *columns: str) -> dict[str, float]:
    """The sum of these columns of every run that has the first one; what else a run lacks counts as 0."""
    if columns[0] not in frame:
        return {}
    found = {}
    present = [frame[name].to_list() for name in columns if name in frame]
    for key, values in zip(frame["run_key"], zip(*present, strict=True), strict=True):
        numbers = [finite(value) for value in values]
        if numbers[0] is not None:
            found[key] = sum(number or 0.0 for number in numbers)
    return found


def mean_over(keys: Sequence[str], numbers: Mapping[str, float]) -> float | None:
    """The mean over the runs of a cell, None where no run has the number."""
    known = sorted(numbers[key] for key in keys if key in numbers)
    return sum(known) / len(known) if known else None


def protocols(tables: Sequence[Table]) -> list[str]:
    """The protocol under which these tables were measured, after the names of its models where they
    differ.
    """
    found: dict[str, dict[str, None]] = {}
    for table in tables:
        found.setdefault(table.protocol, {})[table.model] = None
    several = len({model for models in found.values() for model in models}) > 1 < len(found)
    return [
        f"{', '.join(models)}: {protocol}" if several else protocol
        for protocol, models in found.items()
        if protocol
    ]


def float_level(table: Table) -> float | None:
    """The float model's number."""
    return next((row.cells[0].value for row in table.rows if row.method == FLOAT and row.cells), None)


def joined(*parts: str) -> str:
    return SEPARATOR.join(filter(None, parts))
