"""One table: methods as rows, bits as columns, the float model on top. It belongs to one model, one metric,
one protocol.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.foundation.text import visible
from harness.reporting.cells import FALLBACK_MARK, NOT_RUN, Cell, Row, Table
from harness.reporting.frames import entries_of
from harness.reporting.keys import ColumnKey, RowKey, row_keys
from harness.reporting.labels import FLOAT
from harness.reporting.measures import SHARES, Measure, Measurement
from harness.reporting.tables.run_cells import Grid, Record, float_cell, method_cell
from harness.reporting.tables.values import chance

BITS_ROW = "bits per weight"


def grid(records: pd.DataFrame, measurements: Sequence[Measurement | None], spec: Grid) -> Table:
    """The table of these records; `measurements` holds the number of each one, or None.

    Raises:
        ValueError: a measurement was taken under another protocol than the table's.
    """
    for measurement in [*measurements, spec.reference]:
        if measurement is not None and measurement.protocol != spec.protocol:
            raise ValueError(f"two protocols in one table: {spec.protocol!r} and {measurement.protocol!r}")
    names = row_keys(records)
    entries = records.assign(
        measurement=pd.Series(measurements, records.index, dtype=object),
        key=pd.Series(names.keys, records.index, dtype=object),
    )
    entries = entries_of(entries.sort_values("run_key"))
    floats = [entry for entry in entries if entry["method.name"] == FLOAT]
    quantized = [entry for entry in entries if entry["method.name"] != FLOAT]
    reference = next((entry["measurement"] for entry in floats if entry["measurement"]), spec.reference)
    columns = sorted({ColumnKey.of(entry) for entry in quantized}, key=lambda column: column.rank)
    rows = with_bits(
        with_best(_method_rows(quantized, columns, reference, spec), [spec.measure] * len(columns))
    )
    if reference is not None or floats:
        rows = [Row(FLOAT, FLOAT, (float_cell(reference, floats, spec),) * max(1, len(columns))), *rows]
    head = [column.label for column in columns] or [spec.measure.title.lower()]
    usual = f"Where a row does not say: {names.usual}" if names.usual else ""
    protocol = visible(spec.protocol)
    caption = [spec.measure.hint, f"Protocol: {protocol}", usual]
    caption = ". ".join(filter(None, caption))
    return Table(
        spec.measure.kind,
        spec.title,
        spec.model,
        caption,
        ("method", *head),
        tuple(rows),
        spec.notes.lines(),
        columns=tuple(columns),
        protocol=protocol,
    )


def with_best(rows: list[Row], measures: Sequence[Measure]) -> list[Row]:
    """The rows with the best cells of every column marked, all that look the same as the best one
    included; none where the column says nothing, see `says_nothing`.
    """

    def marked(column: Sequence[Cell], measure: Measure) -> list[Cell]:
        ranked = [
            cell.value is not None and cell.value <= measure.limit and not cell.doubtful for cell in column
        ]
        competing = [cell for cell, counts in zip(column, ranked, strict=True) if counts]
        if not competing or not measure.better or says_nothing(competing, measure):
            return list(column)
        best = measure.text(max((cell.value for cell in competing), key=lambda value: measure.better * value))
        return [
            replace(cell, best=counts and measure.text(cell.value) == best)
            for cell, counts in zip(column, ranked, strict=True)
        ]

    cells = zip(*(row.cells for row in rows), strict=True)
    columns = [marked(column, measure) for column, measure in zip(cells, measures, strict=True)]
    return [replace(row, cells=cells) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]


def says_nothing(cells: Sequence[Cell], measure: Measure) -> bool:
    """Has a column no winner: do all that compete show the same number, or shares of right answers none of
    which is two standard errors above guessing?
    """
    if len(cells) > 1 and len({measure.text(cell.value) for cell in cells}) == 1:
        return True
    if measure.kind not in SHARES:
        return False
    return all(cell.value - 2 * (cell.spread or 0) <= measure.scale * chance(cell.metric) for cell in cells)


def with_bits(rows: list[Row]) -> list[Row]:
    """The rows and a last one with the weighed bits that most methods of a column have; a cell with others
    says its own.
    """
    columns, last = [], []
    for column in zip(*(row.cells for row in rows), strict=True):
        counts = Counter(f"{cell.bits:.2f}" for cell in column if cell.bits is not None)
        usual = min(counts, key=lambda bits: (-counts[bits], float(bits)), default=NOT_RUN)
        columns.append(
            [cell if cell.bits is None or f"{cell.bits:.2f}" == usual else _at_bits(cell) for cell in column]
        )
        last.append(Cell(usual, "or @" if len(counts) > 1 else ""))
    if all(cell.text == NOT_RUN for cell in last):
        return rows
    filled = [replace(row, cells=cells) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]
    return [*filled, Row(BITS_ROW, "", tuple(last))]


def _method_rows(
    entries: list[Record], columns: list[ColumnKey], reference: Measurement | None, spec: Grid
) -> list[Row]:
    runs: dict[RowKey, dict[ColumnKey, list[Record]]] = {}
    for entry in entries:
        runs.setdefault(entry["key"], {}).setdefault(ColumnKey.of(entry), []).append(entry)
    rows = []
    for key in sorted(runs, key=lambda key: key.rank):
        cells = tuple(
            method_cell(runs[key][column], reference, spec, f"{key.label} at {column.label}")
            if column in runs[key]
            else Cell(NOT_RUN)
            for column in columns
        )
        marks = FALLBACK_MARK if any(FALLBACK_MARK in cell.marks for cell in cells) else ""
        rows.append(Row(key.label, key.method, cells, marks, key))
    return rows


def _at_bits(cell: Cell) -> Cell:
    return replace(cell, detail=f"{cell.detail} @{cell.bits:.2f}".lstrip())
