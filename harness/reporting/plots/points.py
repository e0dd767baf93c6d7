"""Cells of perplexity tables joined with what their runs cost, for the pictures that have something else than bits on their axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.reporting.cells import Table
from harness.reporting.frames import finite
from harness.reporting.labels import FLOAT, SEPARATOR


@dataclass(frozen=True)
class Point:
    """One cell of a table."""

    label: str  # of its row
    method: str
    head: str  # of its column
    bits: float | None
    value: float
    doubtful: bool
    run_keys: tuple[str, ...]


def points_of(table: Table) -> list[Point]:
    """All cells of a table that hold a number of a quantized model."""
    return [
        Point(row.label, row.method, head, cell.bits, cell.value, cell.doubtful, cell.run_keys)
        for row in table.rows
        if row.method and row.method != FLOAT
        for head, cell in zip(table.head[1:], row.cells, strict=False)
        if cell.value is not None and math.isfinite(cell.value)
    ]


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


def bits_in_words(head: str) -> str:
    """The head of a column as people say it: "2 g64" becomes "2 bits, g64"."""
    number, _, rest = head.partition(" ")
    return (f"{number} bits" + (f", {rest}" if rest else "")) if number.replace(".", "").isdigit() else head


def joined(*parts: str) -> str:
    return SEPARATOR.join(filter(None, parts))
