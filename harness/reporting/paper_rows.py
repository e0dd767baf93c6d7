"""The lines of a paper's table: which records stand in which cell, what the lines are called, and why a cell is empty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from harness.naming import method_rank
from harness.reporting.cells import FALLBACK_MARK, NOT_RUN, Cell, Notes, Row
from harness.reporting.commands import command, is_scheme
from harness.reporting.conditions import Masks
from harness.reporting.frames import entries_of
from harness.reporting.grid import with_best
from harness.reporting.labels import FLOAT, SEPARATOR, row_labels, row_rank, visible
from harness.reporting.measures import Measure, Measurement
from harness.reporting.table_specs import Columns, Lines, Spec, Value, Where

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
    whole: bool  # texts were read to their ends, so that the tokenizer decides how many windows there are

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The records, one mapping each."""
        return entries_of(self.records)

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

    def float_cell(self, entries: list[dict], others: list[dict], column: Column, part: Part, notes: Notes) -> Cell: ...

    def caption(self, parts: Sequence[Part]) -> list[str]: ...

    def measure(self, metric: str) -> Measure: ...

    def missing(self, why: str, notes: Notes) -> Cell: ...

    def left_out(self, text: str, notes: Notes) -> None: ...


def table_labels(parts: Sequence[Part], spec: Spec) -> tuple[list[list[str]], str]:
    """(for each part the label of every record, what goes without saying), from all parts together."""
    together = pd.concat([part.records for part in parts], ignore_index=True)
    masks = Masks(together)
    fixed = frozenset(name for name, wanted in spec.where.items() if not isinstance(wanted, list))
    told: list[frozenset[str] | None] = [None] * len(together)
    for lines in spec.rows:
        for group in spec.columns:
            said = fixed | {name for where in (lines.where, group.where) for name, wanted in where.items() if not isinstance(wanted, list)}
            for place in np.flatnonzero(masks.lines(spec, lines) & masks.of(group.where)):
                told[place] = said if told[place] is None else told[place] & said
    names = row_labels(together, [fixed if said is None else said for said in told])
    labels, start = [], 0
    for part in parts:
        labels.append(names.labels[start : start + len(part.records)])
        start += len(part.records)
    return labels, names.usual


def part_rows(part: Part, labels: Sequence[str], spec: Spec, source: Source, notes: Notes, alone: bool) -> list[Row]:
    """Heading rows and lines of one model; headings say which where it is not `alone` in its table."""
    block = _Block(part, labels, spec, source, notes)
    measures = [source.measure(column.value.metric) for column in part.columns]
    rows: list[Row] = []
    found = sections(spec.rows)
    empty = [one for one in found if len(found) > 1 and not block.any(one[1])]
    for heading, section in found:
        if (heading, section) not in empty:
            title = SEPARATOR.join(filter(None, ("" if alone else part.model, visible(heading))))
            rows += _closed(title, [row for lines in section for row in block.rows(lines)], measures)
    if empty:
        source.left_out(block.absence(empty), notes)
    return rows


def sections(rows: Sequence[Lines]) -> list[tuple[str, list[Lines]]]:
    """(heading, lines under it): a group without a heading of its own belongs to the one above."""
    found: list[tuple[str, list[Lines]]] = []
    for lines in rows:
        if not found or lines.head:
            found.append((lines.head, []))
        found[-1][1].append(lines)
    return found


def _closed(heading: str, lines: list[Row], measures: Sequence) -> list[Row]:
    """A heading, where there is one, and its lines, the best ones marked; nothing where there are no lines."""
    if not lines:
        return []
    methods = [row for row in lines if row.method != FLOAT]
    quantized = iter(with_best(methods, measures) if methods else [])
    marked = [row if row.method == FLOAT else next(quantized) for row in lines]
    return [Row(heading, "", ()), *marked] if heading else marked


class _Block:
    """Makes the lines of one model."""

    def __init__(self, part: Part, labels: Sequence[str], spec: Spec, source: Source, notes: Notes):
        self.part, self.spec, self.source, self.notes = part, spec, source, notes
        self.entries = [entry | {"label": label} for entry, label in zip(part.entries, labels, strict=True)]
        self.masks, self.all_masks = part.masks, part.all_masks
        self._known_gaps: dict[tuple[int, str], list[Columns]] = {}

    def any(self, section: Sequence[Lines]) -> bool:
        """Whether there is a run for any of these lines, whatever the column."""
        groups = [self.masks.of(column.group.where) for column in self.part.columns]
        return any((self.masks.lines(self.spec, lines) & np.logical_or.reduce(groups)).any() for lines in section)

    def absence(self, empty: Sequence[tuple[str, list[Lines]]]) -> str:
        """What to say instead of sections that have no run at all."""
        wheres: dict[tuple[str, ...], list[Where]] = {}
        for lines in (lines for _, section in empty for lines in section):
            methods = tuple(method for method in lines.methods if method not in (FLOAT, "*"))
            wheres.setdefault(methods, []).extend(self._merged(lines, group) for group in self._groups())
        commands = [command(self.part.entries, methods, found) for methods, found in wheres.items() if methods]
        headings = "; ".join(visible(heading) for heading, _ in empty)
        return f"{self.part.model}: {headings}: not run: {'; '.join(commands)}"

    def rows(self, lines: Lines) -> list[Row]:
        """The lines of one group, a method without any run included."""
        rows = []
        for method in self._methods(lines):
            rows += [self._float()] if method == FLOAT else self._method(lines, method)
        return rows

    def _methods(self, lines: Lines) -> Sequence[str]:
        if lines.methods != ("*",):
            return lines.methods
        meant = self.masks.union(self.spec, [lines], [column.group for column in self.part.columns])
        return sorted(set(self.part.records["method.name"][meant]), key=method_rank)

    def _float(self) -> Row:
        own = [entry for entry in self.entries if entry["method.name"] == FLOAT]
        others = [entry for entry in self.entries if entry["method.name"] != FLOAT]
        cells = [self.source.float_cell(own, others, column, self.part, self.notes) for column in self.part.columns]
        return Row(FLOAT, FLOAT, tuple(cells))

    def _method(self, lines: Lines, method: str) -> list[Row]:
        of_lines = self.masks.lines(self.spec, lines, method)
        found: dict[str, dict[int, list[dict]]] = {}
        for place, column in enumerate(self.part.columns):
            for index in np.flatnonzero(of_lines & self.masks.of(column.group.where)):
                entry = self.entries[index]
                found.setdefault(entry["label"], {}).setdefault(place, []).append(entry)
        if not found:
            found[visible(method)] = {}
        rows = []
        for label in sorted(found, key=lambda label: row_rank(method, label)):
            name = visible(lines.label or method) + label[len(visible(method)) :]
            cells = []
            for place, column in enumerate(self.part.columns):
                if place in found[label]:
                    cells.append(self._cell(found[label][place], column, name))
                else:
                    why = self._why_not(lines, method, column) if len(found) == 1 else "not run with these settings"
                    cells.append(Cell(NOT_RUN, why=why) if lines.methods == ("*",) else self.source.missing(why, self.notes))
            marks = FALLBACK_MARK if any(FALLBACK_MARK in cell.marks for cell in cells) else ""
            rows.append(Row(name, method, tuple(cells), marks))
        return rows

    def _cell(self, entries: list[dict], column: Column, name: str) -> Cell:
        place = SEPARATOR.join(filter(None, (self.part.model, name, column.group.head if column.group.where else "")))
        return self.source.cell(entries, column, self.part, self.notes, place)

    def _why_not(self, lines: Lines, method: str, column: Column) -> str:
        """Why there is no run for a cell; methods and schemes that lack one for the same reason are named together."""
        if column.group not in self._gaps(lines, method):
            return "measured under another protocol: in a table of its own"
        same = self._lacking_like(lines, method)
        wheres = [self._merged(lines, group) for group in self._gaps(lines, method)]
        if all(map(is_scheme, wheres)):  # other lines whose command differs in the scheme alone share this one
            alike = [other for other in self.spec.rows if self._lacking_like(other, method) == same]
            found = [[self._merged(other, group) for group in self._gaps(other, method)] for other in alike]
            wheres = [where for one in found if all(map(is_scheme, one)) for where in one]
        return f"not run: {command(self.part.entries, same, wheres)}"

    def _lacking_like(self, lines: Lines, method: str) -> list[str]:
        """The methods of these lines that lack runs for the same columns as this one; none where the lines have no run at all."""
        if method not in self._methods(lines) or not self.any([lines]):
            return []
        gaps = self._gaps(lines, method)
        return [other for other in self._methods(lines) if other != FLOAT and self._gaps(lines, other) == gaps]

    def _merged(self, lines: Lines, group: Columns) -> Where:
        return {**self.spec.where, **lines.where, **group.where}

    def _gaps(self, lines: Lines, method: str) -> list[Columns]:
        key = (self.spec.rows.index(lines), method)
        if key not in self._known_gaps:
            of_lines = self.all_masks.lines(self.spec, lines, method)
            self._known_gaps[key] = [group for group in self._groups() if not (of_lines & self.all_masks.of(group.where)).any()]
        return self._known_gaps[key]

    def _groups(self) -> list[Columns]:
        groups: list[Columns] = []
        for column in self.part.columns:
            if column.group not in groups:
                groups.append(column.group)
        return groups
