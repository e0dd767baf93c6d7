"""Which tables a set of records makes: per model every metric under every protocol, then errors of layers and
blocks, then costs.
"""

from collections.abc import Iterator

import pandas as pd

from harness.foundation.text import visible
from harness.records.record import finite, number
from harness.reporting.cells import NOT_RUN, Cell, Row, Table
from harness.reporting.frames import entries_of
from harness.reporting.keys import ColumnKey, RowKey, row_keys, varying
from harness.reporting.labels import FLOAT, SEPARATOR, present, settings, value_text
from harness.reporting.measures import (
    BLOCK_ERROR,
    COST_UNITS,
    LAYER_ERROR,
    Measure,
    Measurement,
    mean,
    measure_of,
)
from harness.reporting.tables.grid import grid
from harness.reporting.tables.run_cells import Grid

# implied by the bytes
DESCRIPTIVE = ("model.name", "model.id", "model.revision", "model.source_bits", "model.family")
COST_COLUMNS = (
    *(
        "bits_per_weight",
        "outlier_share",
        "runtime_overhead.share",
        "seconds.quantize",
        "seconds.transform",
        "transform.cost.mean",
    ),
    *("seconds.total", "peak_memory_bytes.cpu", "peak_memory_bytes.gpu"),
)
ERRORS = ((LAYER_ERROR, "layer_error.mean"), (BLOCK_ERROR, "block_error.mean"))
COST_CAPTION = (
    "Bits per weight: everything that is stored for the quantized linears, weighed, over their number of "
    "weights. "
    "Run-time multiply-adds: those of matrices that folded into no weight, over those of the quantized "
    "linears. "
    "Per forward-backward: seconds of a learned transform over those of one forward-backward of the block "
    "per batch and epoch. "
    "Seconds are those of the machine that ran it; calibration statistics that a sweep shares count only "
    "where they were computed."
)


def build_tables(records: pd.DataFrame) -> list[Table]:
    """All tables of these records, in the order of a report."""
    tables: list[Table] = []
    for model, group in by_model(records):
        tables += metric_tables(model, group)
        quantized = group[group["method.name"] != FLOAT].reset_index(drop=True)
        if len(quantized):
            tables += [
                table for kind in ERRORS for table in error_tables(model, quantized, *kind)
            ] + cost_tables(model, quantized)
    return tables


def by_model(records: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(label, its records) of each model. The bytes, dtype and bos policy make a model, whatever it is
    called.
    """
    known = zip(_column(records, "model.fingerprint"), _column(records, "model.id"), strict=True)
    content = [fingerprint if present(fingerprint) else origin for fingerprint, origin in known]
    records = records.assign(**{"model.fingerprint": pd.Series(content, records.index, dtype=object)})
    identity = [name for name in records if name.startswith("model.") and name not in DESCRIPTIVE]
    models = [
        (min(group["model.name"]), key, group) for key, group in records.groupby(_joined(records, identity))
    ]
    for name, _, group in sorted(models, key=lambda model: model[:2]):
        namesakes = pd.concat([other for called, _, other in models if called == name])
        fields = [
            (field.removeprefix("model."), value_text(group[field].iloc[0])[:20])
            for field in varying(namesakes, identity)
        ]
        yield (
            SEPARATOR.join([visible(name), *(f"{visible(field)}={text}" for field, text in fields)]),
            group.reset_index(drop=True),
        )


def metric_tables(model: str, records: pd.DataFrame) -> list[Table]:
    """One table for every metric and protocol under which any record, or its baseline, was measured.

    A run that ended without numbers appears in the tables of its evaluation.
    """
    evaluations = _joined(records, [name for name in records if name.startswith("eval.")])
    without_numbers = (records["status"] != "done") & ~records["metrics"].map(bool)
    tables = []
    for metric, protocol in _measured(records):
        own = records["metrics"].map(lambda found: _measurement(found, metric, protocol))  # noqa: B023 (called at once)
        references = records["baseline"].map(lambda found: _measurement(found, metric, protocol))  # noqa: B023
        concerned = set(evaluations[own.notna() | references.notna()])
        members = own.notna() | (without_numbers & evaluations.isin(concerned))
        reference = next((found for found in references.dropna()), None)
        measure, subject = measure_of(metric)
        title = f"{measure.title} on {subject}" if subject else measure.title
        tables.append(
            grid(
                records[members],
                own[members].to_list(),
                Grid(measure, title, model, protocol, reference, metric),
            )
        )
    return tables


def error_tables(model: str, records: pd.DataFrame, measure: Measure, column: str) -> list[Table]:
    """One table for every calibration under which this was measured: errors are comparable on the same
    activations.
    """
    if column != "layer_error.mean":
        records = records[[finite(value) is not None for value in _column(records, column)]]
    calibrations = pd.Series([settings(record, "data") for record in entries_of(records)], dtype=object)
    tables = []
    for calibration, group in records.groupby(calibrations):
        protocol = f"calibrated on {calibration}"
        errors = [number(value) for value in _column(group, column)]
        missing = group["status"].ne("done").to_list()
        measurements = [
            None if error is None or (error != error and gone) else Measurement(error, None, protocol)
            for error, gone in zip(errors, missing, strict=True)
        ]
        tables.append(grid(group, measurements, Grid(measure, measure.title, model, protocol, None, column)))
    return tables


def cost_tables(model: str, records: pd.DataFrame) -> list[Table]:
    """What each row of the other tables costs in bits, seconds and memory; means over seeds."""
    names = row_keys(records)
    entries = records.assign(key=pd.Series(names.keys, records.index, dtype=object))
    entries = entries[entries["status"].isin(("done", "diverged"))]
    costs = [
        name for name in COST_COLUMNS if name in entries and any(finite(value) for value in entries[name])
    ]
    if not costs:
        return []
    groups: dict[tuple[RowKey, ColumnKey], list[dict]] = {}
    for entry in entries_of(entries):
        groups.setdefault((entry["key"], ColumnKey.of(entry)), []).append(entry)
    rows = []
    for key, column in sorted(groups, key=lambda keys: (keys[0].rank, keys[1].rank)):
        group = groups[key, column]
        run_keys = tuple(sorted(entry["run_key"] for entry in group))
        cells = [_cost([entry[name] for entry in group], *COST_UNITS[name][1:], run_keys) for name in costs]
        rows.append(Row(key.label, key.method, (Cell(column.label, run_keys=run_keys), *cells)))
    head = ("method", "bits", *[COST_UNITS[name][0] for name in costs])
    caption = COST_CAPTION + (f" Where a row does not say: {names.usual}" if names.usual else "")
    return [Table("cost", "Size, time and memory", model, caption, head, tuple(rows))]


def _cost(values: list, unit: float, decimals: int, run_keys: tuple[str, ...]) -> Cell:
    known = sorted(value for value in map(finite, values) if value is not None)
    if not known:
        return Cell(NOT_RUN, run_keys=run_keys, why="the records do not hold it")
    value = mean(known) / unit
    return Cell(f"{value:.{decimals}f}", value=value, run_keys=run_keys)


def _measured(records: pd.DataFrame) -> list[tuple[str, str]]:
    """(metric, protocol) of everything that was measured, in the order of a report."""
    found = {
        (name, metric["protocol"])
        for column in ("metrics", "baseline")
        for metrics in records[column]
        for name, metric in metrics.items()
    }
    return sorted(found, key=lambda pair: (measure_of(pair[0])[0].order, pair))


def _measurement(metrics: dict, metric: str, protocol: str) -> Measurement | None:
    found = metrics.get(metric)
    if found is None or found["protocol"] != protocol:
        return None
    return Measurement(number(found["value"]), finite(found.get("stderr")), protocol)


def _joined(records: pd.DataFrame, columns: list[str]) -> pd.Series:
    """One string per record that is equal exactly where all these columns are."""
    texts = (
        map(repr, zip(*(records[name] for name in columns), strict=True)) if columns else [""] * len(records)
    )
    return pd.Series(list(texts), index=records.index, dtype=object)


def _column(records: pd.DataFrame, name: str) -> list:
    return records[name].to_list() if name in records else [None] * len(records)
