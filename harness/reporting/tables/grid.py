"""One table: methods as rows, bits as columns, the float model on top. It belongs to one model, one metric,
one protocol.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from harness.foundation.text import visible
from harness.reporting.cells import (
    CONFLICT_MARK,
    FALLBACK_MARK,
    NOT_RUN,
    SOURCE_MARK,
    Cell,
    Notes,
    Row,
    Table,
)
from harness.reporting.frames import entries_of, finite
from harness.reporting.keys import ColumnKey, RowKey, row_keys
from harness.reporting.labels import FLOAT, signed
from harness.reporting.measures import Measure, Measurement, mean, summary

Record = Mapping[str, Any]  # one row of the frame, with its label and its measurement
BITS_ROW = "bits per weight"
FALLBACK_NOTE = f"{FALLBACK_MARK} a run behind it did not go entirely as asked: its record says where, reports list it under “Not as asked”"
COSTS = ("bits", "share", "cost")  # kinds of numbers that nobody is ranked by
SOURCE_NOTE = (
    f"{SOURCE_MARK} the weights of this model were already quantized to {{bits}} bits when we got them: "
    "rankings in these cells are not evidence, so none of them is set in bold"
)
LIMIT_NOTE = (
    "Beyond {limit:,.0f} nothing is ranked: such a model is broken, and the number does not say how much"
)


@dataclass(frozen=True)
class Grid:
    """What a table is about; `reference` is the float model's number, used where no record of it is among the
    rows.
    """

    measure: Measure
    title: str
    model: str
    protocol: str
    reference: Measurement | None
    metric: str = ""
    notes: Notes = field(default_factory=Notes)


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
    """The rows with the best cells of every column marked, all that look the same as the best one included."""

    def marked(column: Sequence[Cell], measure: Measure) -> list[Cell]:
        ranked = [
            cell.value is not None and cell.value <= measure.limit and not cell.doubtful for cell in column
        ]
        values = [cell.value for cell, counts in zip(column, ranked, strict=True) if counts]
        if not values or not measure.better:
            return list(column)
        best = measure.text(max(values, key=lambda value: measure.better * value))
        return [
            replace(cell, best=counts and measure.text(cell.value) == best)
            for cell, counts in zip(column, ranked, strict=True)
        ]

    cells = zip(*(row.cells for row in rows), strict=True)
    columns = [marked(column, measure) for column, measure in zip(cells, measures, strict=True)]
    return [replace(row, cells=cells) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]


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


def method_cell(entries: list[Record], reference: Measurement | None, spec: Grid, place: str) -> Cell:
    """All runs of one configuration: their mean over the seeds, or why there is no number."""
    runs = _one_per_seed(entries)
    good = [entry for entry in runs if has_number(entry)]
    lost = "".join(dict.fromkeys(_reason(entry, spec.notes) for entry in runs if not has_number(entry)))
    keys = tuple(entry["run_key"] for entry in entries)
    if not good:
        why = "; ".join(dict.fromkeys(ending(entry) for entry in runs))
        return Cell(
            _state(runs[0], spec.measure),
            lost,
            run_keys=keys,
            metric=spec.metric,
            protocol=spec.protocol,
            why=why,
        )
    scale, text = spec.measure.scale, spec.measure.text
    values = [entry["measurement"].value * scale for entry in good]
    value, spread = summary(values)
    if len(values) == 1 and good[0]["measurement"].spread is not None:
        spread = good[0]["measurement"].spread * scale
    # stored bits of seeds differ only beyond the digits
    steady = spec.measure.kind == "bits" and len({text(one) for one in values}) == 1
    detail = [] if spread is None or steady else [f"± {text(spread, value)}"]
    if len(runs) > 1 and not steady:
        detail.append(
            f"(n={len(good)})" if len(good) == len(runs) else f"(n={len(good)} of {len(runs)}){lost}"
        )
    if reference is not None and finite(reference.value) is not None:
        detail.append(f"({signed(text(value - reference.value * scale, value))})")
    bits = [
        weighed for weighed in (finite(entry.get("bits_per_weight")) for entry in good) if weighed is not None
    ]
    if value > spec.measure.limit:
        spec.notes.mark(LIMIT_NOTE.format(limit=spec.measure.limit))
    doubtful = spec.measure.kind not in COSTS and _doubtful(good[0])
    if doubtful:
        spec.notes.mark(SOURCE_NOTE.format(bits=good[0]["model.source_bits"]))
    marks = (
        (SOURCE_MARK if doubtful else "") + _fallbacks(good, spec.notes) + _conflicts(entries, spec, place)
    )
    stored = mean(bits) if bits else None
    return Cell(
        text(value),
        " ".join(detail),
        marks,
        value,
        spread,
        stored,
        False,
        doubtful,
        keys,
        spec.metric,
        spec.protocol,
    )


def float_cell(reference: Measurement | None, floats: list[Record], spec: Grid) -> Cell:
    keys = tuple(entry["run_key"] for entry in floats)
    if reference is None:
        return Cell(
            _state(floats[0], spec.measure),
            _reason(floats[0], spec.notes),
            run_keys=keys,
            why=ending(floats[0]),
        )
    scale, text = spec.measure.scale, spec.measure.text
    value, spread = reference.value * scale, None if reference.spread is None else reference.spread * scale
    known = finite(value) is not None
    shown, detail = text(value), f"± {text(spread, value)}" if known and spread is not None else ""
    value = value if known else None
    return Cell(
        shown, detail, value=value, spread=spread, run_keys=keys, metric=spec.metric, protocol=spec.protocol
    )


def _one_per_seed(entries: list[Record]) -> list[Record]:
    """For every seed the first run that gave a number, or the first one."""
    if len(entries) == 1:
        return entries
    chosen: dict[str, Record] = {}
    for entry in sorted(entries, key=lambda entry: (not has_number(entry), entry["run_key"])):
        chosen.setdefault(repr(entry.get("seed")), entry)
    return [chosen[seed] for seed in sorted(chosen)]


def has_number(entry: Record) -> bool:
    """Whether a run ended well, with a finite number."""
    measurement = entry["measurement"]
    return entry["status"] == "done" and measurement is not None and finite(measurement.value) is not None


def _state(entry: Record, measure: Measure) -> str:
    """What stands in place of a number."""
    measurement = entry["measurement"]
    if entry["status"] != "done":
        return entry["status"]
    return "not measured" if measurement is None else measure.text(measurement.value)


def _reason(entry: Record, notes: Notes) -> str:
    """The superscript of the footnote that says why a run gave no number."""
    if entry["status"] == "done":
        return ""
    return notes.number(ending(entry))


def ending(entry: Record) -> str:
    """In words how a run ended, and how far it got."""
    reason = entry.get("reason")
    measurement = entry["measurement"]
    if entry["status"] == "done":
        return "not measured" if measurement is None else "the number is not finite"
    reached = f" (reached {measurement.value:.3g})" if measurement is not None else ""
    return f"{entry['status']}: {reason if isinstance(reason, str) and reason else 'no reason recorded'}{reached}"


def _doubtful(entry: Record) -> bool:
    bits, source = finite(entry.get("scheme.bits")), finite(entry.get("model.source_bits"))
    return bits is not None and source is not None and bits >= source


def _fallbacks(entries: list[Record], notes: Notes) -> str:
    if not any(entry["fallbacks"] for entry in entries):
        return ""
    notes.mark(FALLBACK_NOTE)
    return FALLBACK_MARK


def _conflicts(entries: list[Record], spec: Grid, place: str) -> str:
    """The mark of a cell whose runs disagree although configuration and seed are the same."""
    if len(entries) == 1:
        return ""
    texts: dict[str, set[str]] = {}
    for entry in filter(has_number, entries):
        texts.setdefault(repr(entry.get("seed")), set()).add(
            spec.measure.text(entry["measurement"].value * spec.measure.scale)
        )
    different = sorted({text for found in texts.values() if len(found) > 1 for text in found})
    if not different:
        return ""
    notes = "; the first run by key is shown"
    spec.notes.mark(
        f"{CONFLICT_MARK} {place}: runs of the same configuration and seed gave {', '.join(different)}{notes}"
    )
    return CONFLICT_MARK


def _at_bits(cell: Cell) -> Cell:
    return replace(cell, detail=f"{cell.detail} @{cell.bits:.2f}".lstrip())
