"""Which records of a model may share a table, and which models: those that were measured under the same
protocols.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import pandas as pd

from harness.foundation.text import visible
from harness.records.protocol import parse
from harness.records.record import finite
from harness.reporting.cells import Cell, Notes
from harness.reporting.frames import entries_of
from harness.reporting.keys import LETTERS
from harness.reporting.labels import FLOAT, present, value_text
from harness.reporting.measures import Measure, Measurement, measure_of
from harness.reporting.papers.conditions import Masks
from harness.reporting.papers.run_command import shared_settings
from harness.reporting.papers.specs import Columns, Spec, Value, head_of
from harness.reporting.tables.values import COSTS, JOIN, parts

WINDOWS, ANY = "eval.windows", "*"
EACH = 6  # values of a field that get columns of their own; where there are more, they stay lines
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    group: Columns
    value: Value


@dataclass(frozen=True)
class Part:
    """One model in a table: its records that were measured under one set of protocols."""

    model: str
    records: pd.DataFrame
    everything: pd.DataFrame  # of this model, whatever the protocols
    columns: tuple[Column, ...]
    protocols: Mapping[str, str]  # of each metric
    cut: frozenset[
        str
    ]  # corpora that were not read to their ends; of the others the tokenizer decides how many
    # windows there are

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The records, one mapping each."""
        return entries_of(self.records)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What all of them have in common."""
        return shared_settings(self.entries)

    @cached_property
    def masks(self) -> Masks:
        return Masks(self.records)

    @cached_property
    def all_masks(self) -> Masks:
        return Masks(self.everything)


class Source(Protocol):
    """Where the numbers of a table come from: runs, or a paper."""

    def measured(self, record: Record, metric: str) -> Measurement | None: ...

    def cell(self, entries: list[dict], column: Column, part: Part, notes: Notes, place: str) -> Cell: ...

    def float_cell(
        self, entries: list[dict], others: list[dict], column: Column, part: Part, notes: Notes
    ) -> Cell: ...

    def caption(self, parts: Sequence[Part]) -> list[str]: ...

    def measure(self, metric: str) -> Measure: ...

    def missing(self, why: str, notes: Notes) -> Cell: ...

    def left_out(self, text: str, notes: Notes) -> None: ...


def parts_of(model: str, records: pd.DataFrame, spec: Spec, source: Source) -> list[Part]:
    """One part for every set of protocols that this model was measured under."""
    if records["method.name"].eq(FLOAT).all():
        return []
    columns = tuple(_expanded(records, spec.columns))
    metrics = list(dict.fromkeys(column.value.metric for column in columns))
    entries = entries_of(records)
    signatures = [_signature(entry, metrics, source) for entry in entries]
    sets = _protocol_sets(signatures)
    homes = [
        next((place for place, known in enumerate(sets) if one and compatible(known, one)), None)
        for one in signatures
    ]
    evaluations = [
        repr([(name, entry[name]) for name in sorted(entry) if name.startswith("eval.")]) for entry in entries
    ]
    known = set(zip(evaluations, homes, strict=True))
    measured = {evaluation for evaluation, home in known if home is not None}
    found = []
    for place, protocols in enumerate(sets):
        chosen = [  # what has no number stands where its evaluation was measured, else in the first table
            home == place
            or (
                home is None and ((evaluation, place) in known or (place == 0 and evaluation not in measured))
            )
            for evaluation, home in zip(evaluations, homes, strict=True)
        ]
        mine = records[chosen].reset_index(drop=True)
        if len(sets) == 1 or not mine["method.name"].eq(FLOAT).all():
            found.append(Part(model, mine, records, columns, protocols, _cut(mine)))
    return found


def _protocol_sets(signatures: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The fewest, greedily, sets of protocols with one for each metric that all signatures fit into; {} where
    there is none.
    """
    sets: list[dict[str, str]] = []
    for signature in sorted(
        {tuple(sorted(one.items())) for one in signatures if one}, key=lambda one: (-len(one), one)
    ):
        home = next((known for known in sets if compatible(known, dict(signature))), None)
        if home is None:
            sets.append(dict(signature))
        else:
            home.update(signature)
    return sets or [{}]


def _signature(entry: Mapping[str, Any], metrics: Sequence[str], source: Source) -> dict[str, str]:
    """Metric -> protocol of what a record has of these metrics."""
    found = {
        metric: measurement.protocol
        for metric in metrics
        if (measurement := source.measured(entry, metric)) is not None
    }
    return {metric: protocol for metric, protocol in found.items() if protocol}


def compatible(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether no metric has another protocol in one than in the other."""
    return all(other.get(metric, protocol) == protocol for metric, protocol in one.items())


def _cut(records: pd.DataFrame) -> frozenset[str]:
    """Corpora of which a number of windows was asked for; ANY where it was for all at once."""
    names = [name for name in records if name == WINDOWS or name.startswith(f"{WINDOWS}.")]
    asked = [name for name in names if any(map(present, records[name]))]
    return frozenset(name.removeprefix(WINDOWS).removeprefix(".") or ANY for name in asked)


def comparable(protocol: str, cut: frozenset[str]) -> str:
    """A protocol without what the tokenizer decides: where whole texts are read, how many windows and tokens
    they are.

    Args:
        cut: corpora that were not read whole.
    """
    if ANY in cut:
        return protocol
    parsed = map(parse, protocol.split(JOIN))
    return JOIN.join(
        str(one if getattr(one, "corpus", None) in cut else one.without_counts()) for one in parsed
    )


def _expanded(records: pd.DataFrame, columns: Sequence[Columns]) -> list[Column]:
    """The columns with every "perplexity/*" replaced by what these records have."""
    names = sorted(
        {name for column in ("metrics", "baseline") for found in records[column] for name in found}
    )
    names = sorted(names, key=lambda name: (measure_of(name)[0].order, name))
    expanded = []
    for group in columns:
        needed = {part for value in group.values for part in parts(value.metric)}
        other = [] if needed & {*names, *COSTS} else _matching(group.instead, names)
        expanded += [Column(group, value) for value in other or _matching(group.values, names)]
    return expanded


def _matching(values: Sequence[Value], names: Sequence[str]) -> list[Value]:
    found = []
    for value in values:
        kind, _, subject = value.metric.partition("/")
        if subject == "*":
            found += [Value(name, head_of(name)) for name in names if name.startswith(f"{kind}/")]
        else:
            found.append(value)
    return found


def with_each(frame: pd.DataFrame, masks: Masks, spec: Spec) -> Spec:
    """The specification with a group of columns for every value of the fields that it wants some `each` of,
    wide groups first.
    """
    columns: list[Columns] = []
    for group in spec.columns:
        meant = frame[group.each][masks.union(spec, spec.rows, [group])] if group.each in frame else ()
        values = sorted({value if present(value) else None for value in meant}, key=_wide_first)
        if not 0 < len(values) <= EACH:
            columns.append(group)
            continue
        for value in values:
            head = ", ".join(filter(None, (group.head, _said(group.each, value))))
            columns.append(replace(group, head=head, where={**group.where, group.each: value}))
    return replace(spec, columns=tuple(columns))


def _wide_first(value: Any) -> tuple:
    size = finite(value)
    return (value is not None, 0.0 if size is None else -size, str(value))


def _said(field: str, value: Any) -> str:
    """A value as the head of a column says it, "g64"; what is not there needs no words."""
    if value is None:
        return ""
    return (
        f"{LETTERS[field]}{value_text(value)}"
        if field in LETTERS
        else visible(f"{field.rpartition('.')[2]}={value_text(value)}")
    )


def together(found: Sequence[Part]) -> list[list[Part]]:
    """Parts that may share a table: other models, the same columns, the same protocols."""
    groups: list[list[Part]] = []
    for part in found:
        home = next((group for group in groups if all(_may_share(part, other) for other in group)), None)
        if home is None:
            groups.append([part])
        else:
            home.append(part)
    return groups


def _may_share(one: Part, other: Part) -> bool:
    if one.model == other.model or one.columns != other.columns:
        return False
    return compatible(
        *(
            {metric: comparable(text, part.cut) for metric, text in part.protocols.items()}
            for part in (one, other)
        )
    )
