"""The lines of a paper's table: which records stand in which cell, what the lines are called, and why a cell
is empty.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.foundation.text import visible
from harness.reporting.cells import FALLBACK_MARK, NOT_RUN, Cell, Notes, Row
from harness.reporting.keys import row_keys, row_rank
from harness.reporting.labels import FLOAT, SEPARATOR
from harness.reporting.papers.conditions import Masks
from harness.reporting.papers.gaps import Gaps
from harness.reporting.papers.parts import Column, Part, Source
from harness.reporting.papers.specs import Lines, Spec
from harness.reporting.tables.grid import with_best


def table_labels(parts: Sequence[Part], spec: Spec) -> tuple[list[list[str]], str]:
    """(for each part the label of every record, what goes without saying), from all parts together."""
    together = pd.concat([part.records for part in parts], ignore_index=True)
    masks = Masks(together)
    fixed = frozenset(name for name, wanted in spec.where.items() if not isinstance(wanted, list))
    stated: list[frozenset[str] | None] = [None] * len(together)
    for lines in spec.rows:
        for group in spec.columns:
            said = fixed | {
                name
                for where in (lines.where, group.where)
                for name, wanted in where.items()
                if not isinstance(wanted, list)
            }
            for index in np.flatnonzero(masks.lines(spec, lines) & masks.of(group.where)):
                stated[index] = said if stated[index] is None else stated[index] & said
    names = row_keys(together, [fixed if said is None else said for said in stated])
    labels, start = [], 0
    for part in parts:
        labels.append(names.labels[start : start + len(part.records)])
        start += len(part.records)
    return labels, names.usual


def part_rows(
    part: Part, labels: Sequence[str], spec: Spec, source: Source, notes: Notes, alone: bool
) -> list[Row]:
    """Heading rows and lines of one model; headings say which where it is not `alone` in its table."""
    block = _Block(part, labels, spec, source, notes)
    measures = [source.measure(column.value.metric) for column in part.columns]
    rows: list[Row] = []
    all_sections = sections(spec.rows)
    empty = [entry for entry in all_sections if len(all_sections) > 1 and not block.gaps.any(entry[1])]
    shown = [entry for entry in all_sections if entry not in empty]
    unrun = (
        block.gaps.leave_out([lines for _, section in shown for lines in section]) if len(shown) > 1 else {}
    )
    for heading, section in shown:
        title = SEPARATOR.join(filter(None, ("" if alone else part.model, visible(heading))))
        rows += _closed(title, [row for lines in section for row in block.rows(lines)], measures)
    for text in dict.fromkeys(unrun.values()):
        methods = ", ".join(visible(method) for method in unrun if unrun[method] == text)
        source.left_out(f"{part.model}: {methods}: not run: {text}", notes)
    if empty:
        source.left_out(block.gaps.absence(empty), notes)
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
    """A heading, where there is one, and its lines, the best marked; nothing where there are no lines."""
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
        self.gaps = Gaps(part, spec)

    def rows(self, lines: Lines) -> list[Row]:
        """The lines of one group, methods without a run in it included."""
        rows = []
        for method in self.gaps.methods(lines):
            rows += [self._float()] if method == FLOAT else self._method(lines, method)
        return rows

    def _float(self) -> Row:
        own = [entry for entry in self.entries if entry["method.name"] == FLOAT]
        others = [entry for entry in self.entries if entry["method.name"] != FLOAT]
        cells = [
            self.source.float_cell(own, others, column, self.part, self.notes) for column in self.part.columns
        ]
        return Row(FLOAT, FLOAT, tuple(cells))

    def _method(self, lines: Lines, method: str) -> list[Row]:
        of_lines = self.part.masks.lines(self.spec, lines, method)
        by_label: dict[str, dict[int, list[dict]]] = {}
        for position, column in enumerate(self.part.columns):
            for index in np.flatnonzero(of_lines & self.part.masks.of(column.group.where)):
                entry = self.entries[index]
                by_label.setdefault(entry["label"], {}).setdefault(position, []).append(entry)
        if not by_label:
            by_label[visible(method)] = {}
        rows = []
        for label in sorted(by_label, key=lambda label: row_rank(method, label)):
            name = visible(lines.label or method) + label[len(visible(method)) :]
            cells = []
            for position, column in enumerate(self.part.columns):
                if position in by_label[label]:
                    cells.append(self._cell(by_label[label][position], column, name))
                else:
                    why = (
                        self.gaps.why_not(lines, method, column)
                        if len(by_label) == 1
                        else "not run with these settings"
                    )
                    cells.append(
                        Cell(NOT_RUN, why=why)
                        if lines.methods == ("*",)
                        else self.source.missing(why, self.notes)
                    )
            marks = FALLBACK_MARK if any(FALLBACK_MARK in cell.marks for cell in cells) else ""
            rows.append(Row(name, method, tuple(cells), marks))
        return rows

    def _cell(self, entries: list[dict], column: Column, name: str) -> Cell:
        place = SEPARATOR.join(
            filter(None, (self.part.model, name, column.group.head if column.group.where else ""))
        )
        return self.source.cell(entries, column, self.part, self.notes, place)
