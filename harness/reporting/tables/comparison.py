"""Two runs side by side, as tables: configuration, metrics with intervals, costs. Layers and blocks are in
`comparison_layers`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.foundation.text import visible
from harness.records.measurements import Items
from harness.records.protocol import parse
from harness.records.record import finite, number
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.keys import ColumnKey
from harness.reporting.labels import SEPARATOR, present, signed, value_text
from harness.reporting.measures import COST_UNITS, Measure, measure_of
from harness.reporting.tables.bootstrap import Paired, holm, paired
from harness.reporting.tables.comparison_layers import layer_tables

GROUPS = ("model", "data", "scheme", "method", "eval", "seed")
ABSENT = "–"
COST_COLUMNS = (
    *(
        "bits_per_weight",
        "layer_error.mean",
        "seconds.calibrate",
        "seconds.quantize",
        "seconds.evaluate",
        "seconds.total",
    ),
    *("peak_memory_bytes.cpu", "peak_memory_bytes.gpu"),
)
INTERVAL = (
    "paired bootstrap over the same windows or items, 95 % intervals; p corrected after Holm for the number "
    "of metrics"
)


@dataclass(frozen=True)
class Run:
    """A record, as a row of the frame, and the directory that it lies in."""

    record: Mapping[str, Any]
    directory: Path


def compare(a: Run, b: Run) -> list[Table]:
    """All that differs between two runs; how B stands to A."""
    return [
        _runs(a, b),
        _configuration(a, b),
        *_metrics(a, b),
        _costs(a, b),
        *layer_tables(a.directory, b.directory, _caution(a, b)),
    ]


def _caution(a: Run, b: Run) -> str:
    """What makes errors of layers less than comparable."""
    groups = [group for group in ("model", "data") if _differing(a, b, (group,))]
    return (
        f"The {' and the '.join(groups)} settings differ: the errors were not measured on the same "
        "activations. "
        if groups
        else ""
    )


def _runs(a: Run, b: Run) -> Table:
    rows = [
        Row(name, "", tuple(Cell(text) for text in _words(run.record))) for name, run in (("A", a), ("B", b))
    ]
    head = ("", "run", "model", "method", "bits", "seed", "status")
    told = [
        f"{name} fell back: {'; '.join(run.record['fallbacks'])}"
        for name, run in (("A", a), ("B", b))
        if run.record["fallbacks"]
    ]
    caption = (
        "It is the same run twice"
        if a.directory.resolve() == b.directory.resolve()
        else "Differences say how B stands to A"
    )
    return Table("comparison", "Two runs", "", caption, head, tuple(rows), tuple(told), textual=True)


def _words(record: Mapping[str, Any]) -> list[str]:
    reason = record.get("reason")
    status = f"{record['status']}: {reason}" if isinstance(reason, str) and reason else record["status"]
    columns = ColumnKey.of(record).label if present(record.get("scheme.bits")) else ABSENT
    return [
        record["run_key"],
        record["model.name"],
        record["method.name"],
        columns,
        value_text(record.get("seed")),
        status,
    ]


def _configuration(a: Run, b: Run) -> Table:
    differing = _differing(a, b, (*GROUPS, "versions"))
    rows = [
        Row(name, "", (Cell(_value(a, name)), Cell(_value(b, name))))
        for name in differing
        if not name.startswith("versions.")
    ]
    groups = {name.partition(".")[0] for name in differing}
    same = ", ".join(group for group in GROUPS if group not in groups)
    caption = SEPARATOR.join(
        filter(None, [f"Same {same}" if same else "", "" if rows else "nothing differs"])
    )
    versions = [
        f"{name}: {_value(a, name)} | {_value(b, name)}" for name in differing if name.startswith("versions.")
    ]
    head = ("field", "A", "B")
    return Table("comparison", "Configuration", "", caption, head, tuple(rows), tuple(versions), textual=True)


def _differing(a: Run, b: Run, groups: Collection[str]) -> list[str]:
    names = sorted({name for run in (a, b) for name in run.record if name.partition(".")[0] in groups})
    return [name for name in names if _value(a, name) != _value(b, name)]


def _value(run: Run, name: str) -> str:
    value = run.record.get(name)
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return ABSENT if missing else visible(str(value)) if isinstance(value, float) else value_text(value)


def _metrics(a: Run, b: Run) -> list[Table]:
    ours, theirs = a.record["metrics"], b.record["metrics"]
    names = sorted({*ours, *theirs}, key=lambda name: (measure_of(name)[0].order, name))
    if not names:
        return [Table("comparison", "Metrics", "", "Neither run measured anything", ("metric", "A", "B"), ())]
    same_model = all(_value(a, name) == _value(b, name) for name in ("model.fingerprint", "model.id"))
    obstacles = {name: _incomparable(name, ours.get(name), theirs.get(name), same_model) for name in names}
    pairs = {name: _pair(a, b, name) for name in names if not obstacles[name]}
    found = {name: pair for name, pair in pairs.items() if isinstance(pair, Paired)}
    p_values = dict(zip(found, holm([pair.p for pair in found.values()]), strict=True))
    rows = []
    for name in names:
        measure, values = measure_of(name)[0], [metrics.get(name) for metrics in (ours, theirs)]
        values = [number(value["value"]) * measure.scale if value else None for value in values]
        shown = [ABSENT if value is None else measure.text(value) for value in values]
        change = ABSENT if obstacles[name] else _change(measure, *values)
        tested = _tested(measure, pairs.get(name, obstacles[name]), p_values.get(name))
        rows.append(Row(visible(name), "metric", (*map(Cell, (*shown, change)), *tested)))
    notes = [
        f"{visible(name)}: {_protocols(ours[name], theirs[name])}"
        for name in names
        if name in ours and name in theirs
    ]
    notes = [*dict.fromkeys(note for note in notes if not note.endswith(": same"))]
    caption = INTERVAL + ("" if same_model else ". The models differ: a difference is not one of methods")
    return [
        Table(
            "comparison",
            "Metrics",
            "",
            caption,
            ("metric", "A", "B", "B to A", "95 %", "p", ""),
            tuple(rows),
            tuple(notes),
        )
    ]


def _incomparable(name: str, one: Mapping | None, other: Mapping | None, same_model: bool) -> str:
    if one is None or other is None:
        return "not measured in " + ("A" if one is None else "B")
    if one["protocol"] != other["protocol"]:
        return "protocols differ: not compared"
    return (
        "models differ: perhaps other tokens, not compared"
        if measure_of(name)[0].kind == "perplexity" and not same_model
        else ""
    )


def _protocols(one: Mapping, other: Mapping) -> str:
    first, second = (parse(metric["protocol"]).phrases() for metric in (one, other))
    if first == second:
        return "same"
    return f"A has {_beyond(first, second)}; B has {_beyond(second, first)}"


def _beyond(phrases: Sequence[str], others: Sequence[str]) -> str:
    return ", ".join(phrase for phrase in phrases if phrase not in others) or "nothing else"


def _pair(a: Run, b: Run, metric: str) -> Paired | str:
    """The comparison item by item, or why there is none."""
    first, second = (Items(run.directory.parent.parent).of(run.directory.name, metric) for run in (a, b))
    if first is None or second is None:
        return "no items kept: no interval"
    return paired(second, first) or f"no interval: {len(first)} and {len(second)} items, or some not finite"


def _tested(measure: Measure, pair: Paired | str, p: float | None) -> list[Cell]:
    """Interval, p-value and verdict; or why there are none."""
    if isinstance(pair, str):
        return [Cell(ABSENT), Cell(ABSENT), Cell(pair)]
    interval = " to ".join(_bound(measure, bound) for bound in (pair.low, pair.high))
    verdict, tone = _verdict(measure, pair, p)
    return [Cell(interval), Cell("<0.001" if p < 0.001 else f"{p:.3f}"), Cell(verdict, tone=tone)]


def _change(measure: Measure, a: float, b: float) -> str:
    if not (math.isfinite(a) and math.isfinite(b)):
        return ABSENT
    if measure.kind == "perplexity":
        return _ratio(b / a) if a > 0 else ABSENT
    return signed(measure.text(b - a, a))


def _bound(measure: Measure, value: float) -> str:
    if measure.kind == "perplexity":
        return _ratio(math.exp(min(value, 700)))
    return signed(measure.text(value * measure.scale, 1))


def _verdict(measure: Measure, pair: Paired, p: float) -> tuple[str, str]:
    if p >= 0.05:
        return "the same" if pair.low == pair.high == 0 else "no difference shown", "open"
    if not measure.better:
        return "different", "open"
    better = measure.better * pair.difference > 0
    return ("B is better", "good") if better else ("B is worse", "bad")


def _ratio(value: float) -> str:
    return f"×{value:.3f}" if value < 100 else f"×{value:.3g}"


def _costs(a: Run, b: Run) -> Table:
    rows = []
    for name in COST_COLUMNS:
        label, unit, decimals = COST_UNITS[name]
        values = [finite(run.record.get(name)) for run in (a, b)]
        if all(value is None or value == 0 for value in values):
            continue
        shown = [Cell(ABSENT if value is None else f"{value / unit:.{decimals}f}") for value in values]
        ratio = _ratio(values[1] / values[0]) if values[0] and values[1] is not None else ABSENT
        rows.append(Row(label, "cost", (*shown, Cell(ratio))))
    caption = (
        "Seconds and memory are those of the machine that ran each" if rows else "Neither run recorded any"
    )
    return Table("comparison", "Costs", "", caption, ("", "A", "B", "B / A"), tuple(rows))
