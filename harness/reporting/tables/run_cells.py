"""What stands in a cell of a table of runs: the mean of its seeds, or why there is no number, and the
footnotes that go with either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.records.record import finite
from harness.reporting.cells import CONFLICT_MARK, FALLBACK_MARK, SOURCE_MARK, Cell, Notes
from harness.reporting.labels import signed
from harness.reporting.measures import Measure, Measurement, mean, summary

Record = Mapping[str, Any]  # one row of the frame, with its label and its measurement
FALLBACK_NOTE = (
    f"{FALLBACK_MARK} a run behind it did not go entirely as asked: its record says where, reports list it "
    "under “Not as asked”"
)
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


def method_cell(entries: list[Record], reference: Measurement | None, spec: Grid, name: str) -> Cell:
    """All runs of one configuration: their mean over the seeds, or why there is no number.

    Args:
        name: of the cell, for a footnote about it.
    """
    runs = _one_per_seed(entries)
    good = [entry for entry in runs if has_number(entry)]
    failed = [entry for entry in runs if not has_number(entry)]
    lost = "".join(dict.fromkeys(_reason(entry, spec.notes) for entry in failed))
    about = {
        "run_keys": tuple(entry["run_key"] for entry in entries),
        "metric": spec.metric,
        "protocol": spec.protocol,
    }
    if not good:
        why = "; ".join(dict.fromkeys(map(ending, runs)))
        return Cell(_state(runs[0], spec.measure), lost, why=why, **about)
    value, spread, steady = _over_seeds(good, spec.measure)
    text, seeds = spec.measure.text, ""
    detail = [] if spread is None or steady else [f"± {text(spread, value)}"]
    if len(runs) > 1 and not steady:
        seeds = f"(n={len(good)} of {len(runs)})" if failed else f"(n={len(good)})"
        detail.append(seeds + lost)
    if reference is not None and finite(reference.value) is not None:
        detail.append(f"({signed(text(value - reference.value * spec.measure.scale, value))})")
    if value > spec.measure.limit:
        spec.notes.mark(LIMIT_NOTE.format(limit=spec.measure.limit))
    doubtful = spec.measure.kind not in COSTS and _doubtful(good[0])
    if doubtful:
        spec.notes.mark(SOURCE_NOTE.format(bits=good[0]["model.source_bits"]))
    marks = (SOURCE_MARK if doubtful else "") + _fallbacks(good, spec.notes)
    marks += _conflicts(entries, spec, name)
    bits = [size for entry in good if (size := finite(entry.get("bits_per_weight"))) is not None]
    stored = mean(bits) if bits else None
    return Cell(
        text(value), " ".join(detail), marks, value, spread, stored, doubtful=doubtful, seeds=seeds, **about
    )


def _over_seeds(runs: list[Record], measure: Measure) -> tuple[float, float | None, bool]:
    """Mean and spread in the unit of the table, and whether the spread is not worth showing: stored bits of
    seeds differ only beyond the digits.
    """
    values = [entry["measurement"].value * measure.scale for entry in runs]
    value, spread = summary(values)
    if len(values) == 1 and runs[0]["measurement"].spread is not None:
        spread = runs[0]["measurement"].spread * measure.scale
    return value, spread, measure.kind == "bits" and len(set(map(measure.text, values))) == 1


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
    reason = reason if isinstance(reason, str) and reason else "no reason recorded"
    return f"{entry['status']}: {reason}{reached}"


def _doubtful(entry: Record) -> bool:
    bits, source = finite(entry.get("scheme.bits")), finite(entry.get("model.source_bits"))
    return bits is not None and source is not None and bits >= source


def _fallbacks(entries: list[Record], notes: Notes) -> str:
    if not any(entry["fallbacks"] for entry in entries):
        return ""
    notes.mark(FALLBACK_NOTE)
    return FALLBACK_MARK


def _conflicts(entries: list[Record], spec: Grid, name: str) -> str:
    """The mark of a cell whose runs disagree although configuration and seed are the same."""
    if len(entries) == 1:
        return ""
    texts: dict[str, set[str]] = {}
    for entry in filter(has_number, entries):
        text = spec.measure.text(entry["measurement"].value * spec.measure.scale)
        texts.setdefault(repr(entry.get("seed")), set()).add(text)
    different = sorted({text for same in texts.values() if len(same) > 1 for text in same})
    if not different:
        return ""
    said = f"runs of the same configuration and seed gave {', '.join(different)}"
    spec.notes.mark(f"{CONFLICT_MARK} {name}: {said}; the first run by key is shown")
    return CONFLICT_MARK
