"""Tables in the papers' shape: models below one another, methods as lines, schemes and corpora as columns,
after a `Spec`.

Perplexities of two protocols never meet in a column. Models share a table only where every column was
measured under the same protocol up to what the tokenizer decides; records of one model that were measured
under two go to two tables.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pandas as pd

from harness.records.naming import method_rank
from harness.reporting.cells import NOT_RUN, Notes, Row, Table
from harness.reporting.labels import FLOAT
from harness.reporting.papers.conditions import Masks
from harness.reporting.papers.parts import Column, Part, Source, comparable, parts_of, together, with_each
from harness.reporting.papers.published import published_frame
from harness.reporting.papers.rows import part_rows, table_labels
from harness.reporting.papers.sources import Measured, Printed, knob
from harness.reporting.papers.specs import Lines, Spec, load_spec, load_specs
from harness.reporting.tables.all_numbers import by_model
from harness.reporting.tables.values import COSTS, MEAN, parts

__all__ = ["Spec", "load_spec", "load_specs", "paper_tables"]


def paper_tables(frame: pd.DataFrame, spec: Spec) -> list[Table]:
    """The tables that these records fill, and behind them what the paper printed; none where no record fills
    any.

    Raises:
        ValueError: two protocols would share a column; a fault of this program.
    """
    if not len(frame):
        return []
    tables = _tables(frame, spec, Measured(spec.shape), "paper")
    return [*tables, *as_published(spec)] if tables else []


def as_published(spec: Spec) -> list[Table]:
    """What the paper printed for `published_models`, in the same shape; its other methods too, nothing where
    it printed nothing.
    """
    frame = published_frame(spec.shape)
    if not len(frame):
        return []
    known = {method for lines in spec.rows for method in lines.methods}
    others = sorted(set(frame["method.name"]) - known - {FLOAT}, key=method_rank)
    rows = tuple(
        replace(lines, methods=(*lines.methods, *others) if _is_open(lines) else lines.methods)
        for lines in spec.rows
    )
    tables = _tables(
        frame,
        replace(spec, rows=rows, title=f"{spec.title}: as published", caption=""),
        Printed(),
        "published",
    )
    return [pruned for table in tables if (pruned := _pruned(table)).rows]


def _is_open(lines: Lines) -> bool:
    return not lines.label and len(set(lines.methods) - {FLOAT}) > 1


def _tables(frame: pd.DataFrame, spec: Spec, source: Source, kind: str) -> list[Table]:
    masks = Masks(frame)
    spec = with_each(frame, masks, spec)
    floats = frame["method.name"].eq(FLOAT).to_numpy() & masks.of(spec.where)
    members = frame[masks.union(spec, spec.rows, spec.columns) | floats]
    found = [part for model, records in by_model(members) for part in parts_of(model, records, spec, source)]
    order = spec.published_models if kind == "published" else ()
    found.sort(key=lambda part: order.index(part.model) if part.model in order else 0)
    groups = together(found)
    return [_table(group, spec, source, kind, alone=len(groups) == 1) for group in groups]


def _table(group: Sequence[Part], spec: Spec, source: Source, kind: str, alone: bool) -> Table:
    """One table of parts that may share it; checked once more, cell by cell."""
    notes, models = Notes(), ", ".join(part.model for part in group)
    group = _without_empty(group, spec, source, notes, kind)
    columns = group[0].columns
    labels, usual = table_labels(group, spec)
    blocks = [
        part_rows(part, names, spec, source, notes, len(group) == 1)
        for part, names in zip(group, labels, strict=True)
    ]
    check_protocols(blocks, group)
    said = [
        spec.caption,
        *source.caption(group),
        _instead(columns),
        _protocols(group),
        f"Where a row does not say: {usual}" if usual else "",
    ]
    groups = [(head, len(list(same))) for head, same in groupby(column.group.head for column in columns)]
    return Table(
        kind,
        spec.title if alone else f"{spec.title}: {models}",
        models,
        " ".join(f"{text.rstrip('.')}." for text in said if text),
        ("method", *(column.value.label for column in columns)),
        tuple(row for rows in blocks for row in rows),
        notes.lines(),
        tuple(groups) if any(head for head, _ in groups) else (),
    )


def _without_empty(
    group: Sequence[Part], spec: Spec, source: Source, notes: Notes, kind: str
) -> Sequence[Part]:
    """The parts without the columns of what nobody measured; a note of a table of runs says what is not there
    and why.
    """
    columns = group[0].columns

    def stays(column: Column) -> bool:
        """What a table has only for what there is, and what a paper printed, need numbers of their own."""
        fills = _fills if kind == "published" or column.group.each else _measured
        return any(fills(part, column, spec, source) for part in group)

    filled = [column for column in columns if stays(column)]
    if not filled:
        return group
    reasons: dict[str, list[str]] = {}
    for column in columns:
        if column not in filled and not column.group.each:
            metric = column.value.metric
            why = COSTS[metric].absent if metric in COSTS else f"no run was evaluated on it ({knob(metric)})"
            reasons.setdefault(why, []).append(column.value.label)
    text = "; ".join(f"{', '.join(dict.fromkeys(labels))}: {why}" for why, labels in reasons.items())
    if text and kind == "paper":
        notes.mark(f"Columns left out: {text}")
    return [replace(part, columns=tuple(filled)) for part in group]


def _measured(part: Part, column: Column, spec: Spec, source: Source) -> bool:
    """Whether any run has such a number, be it one for another column."""
    return any(source.measured(entry, column.value.metric) for entry in part.entries)


def _fills(part: Part, column: Column, spec: Spec, source: Source) -> bool:
    chosen = np.flatnonzero(part.masks.union(spec, spec.rows, [column.group]))
    return any(source.measured(part.entries[place], column.value.metric) for place in chosen)


def check_protocols(blocks: Sequence[Sequence[Row]], group: Sequence[Part]) -> None:
    """Refuse a table in which a column holds numbers of two protocols.

    Raises:
        ValueError: one does.
    """
    for place, column in enumerate(group[0].columns):
        found = {
            comparable(row.cells[place].protocol, part.cut)
            for rows, part in zip(blocks, group, strict=True)
            for row in rows
            if row.cells and row.cells[place].value is not None
        }
        if len(found) > 1:
            raise ValueError(f"two protocols in one column: {column.value.label}: {sorted(found)}")


def _protocols(group: Sequence[Part]) -> str:
    """What the caption says of protocols; of a mean nothing where its metrics are columns too."""
    shown = {column.value.metric: column.value.label for column in group[0].columns}
    labels: dict[str, list[str]] = {}
    for metric, label in shown.items():
        exact = sorted({part.protocols[metric] for part in group if metric in part.protocols})
        texts = (
            exact if len(exact) == 1 else sorted({comparable(protocol, frozenset()) for protocol in exact})
        )
        if not (metric.startswith(MEAN) and all(part in shown for part in parts(metric))):
            for text in texts:
                labels.setdefault(text, []).append(label)
    said = [": ".join([", ".join(found), text]) for text, found in labels.items()]
    return f"Protocols: {'; '.join(said)}" if said else ""


def _instead(columns: Sequence[Column]) -> str:
    """What the caption says where something else stands for a paper's corpora and tasks."""
    groups = {
        id(column.group): column.group
        for column in columns
        if column.group.instead and column.value not in column.group.values
    }
    lacking = [value.label for group in groups.values() for value in group.values]
    return (
        f"Not measured here: {', '.join(dict.fromkeys(lacking))}; what was measured stands instead"
        if lacking
        else ""
    )


def _pruned(table: Table) -> Table:
    """A published table without the lines that the paper does not have."""
    lines = [row for row in table.rows if not row.cells or any(cell.text != NOT_RUN for cell in row.cells)]
    following = [*lines[1:], Row("", "", ())]
    return replace(
        table,
        rows=tuple(row for row, after in zip(lines, following, strict=True) if row.cells or after.cells),
    )
