"""Cells of perplexity tables joined with what their runs cost, for the pictures that have something else than
bits on their axis.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.reporting.cells import Row, Table
from harness.reporting.frames import finite
from harness.reporting.labels import FLOAT, SEPARATOR

RATIO = "% outliers"  # how labels end that say a share of outliers
# how labels call their structure, and how pictures do
STRUCTURES = {"columns": "column outliers", "unstructured": "unstructured outliers"}


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


def apart(label: str) -> tuple[str, str, str]:
    """A row's label without its outliers, their structure, and their share; the last two are "" where it says
    none.
    """
    words = label.split(SEPARATOR)
    rest = [word for word in words if not word.endswith(RATIO) and word not in STRUCTURES]
    structure = next((word for word in words if word in STRUCTURES), "")
    return SEPARATOR.join(rest), structure, next((word for word in words if word.endswith(RATIO)), "")


def series_of(rows: Iterable[Row]) -> dict[str, str]:
    """What pictures call each row, by its label: rows that differ in their share of outliers alone are one
    series.
    """
    parts = {row.label: (*apart(row.label), row.method) for row in rows if row.method}
    structures, ratios = {}, {}
    for rest, structure, ratio, _ in parts.values():
        if structure or ratio:
            structures.setdefault(rest, set()).add(structure)
            ratios.setdefault(rest, set()).add(ratio)
    names = {}
    for label, (rest, structure, ratio, method) in parts.items():
        # whose outliers go without saying
        several, always = len(structures.get(rest, ())) > 1, "spqr" in method
        words = (
            STRUCTURES.get(structure, ratio)
            if several
            else ratio
            if len(ratios.get(rest, ())) == 1
            else ""
            if always
            else "outliers"
        )
        names[label] = joined(rest, words) if structure or ratio else rest
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


def bits_in_words(head: str) -> str:
    """The head of a column as people say it: "2 g64" becomes "2 bits, g64"."""
    number, _, rest = head.partition(" ")
    return (f"{number} bits" + (f", {rest}" if rest else "")) if number.replace(".", "").isdigit() else head


def protocol_of(table: Table) -> str:
    """What the caption of a table says of it."""
    return table.caption.partition("Protocol: ")[2].partition(". ")[0]


def protocols(tables: Sequence[Table]) -> list[str]:
    """The protocol under which these tables were measured, after the names of its models where they differ."""
    found: dict[str, dict[str, None]] = {}
    for table in tables:
        found.setdefault(protocol_of(table), {})[table.model] = None
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
