"""A table as a page shows it: anchors, links to runs, what to sort by, tooltips, and how dense it is set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.reporting.cells import NOT_RUN, SUMMARY, Cell, Row, Table
from harness.reporting.formats.page_notes import Note, Piece, notes_of, pieces
from harness.reporting.formats.shown import title_of
from harness.reporting.labels import FLOAT

DENSE = (8, 120)  # columns, and characters of the longest cells of each, from which on a table is set closer
WIDEST = 28  # characters beside a number; the style has a class for each number of them


@dataclass(frozen=True)
class Line:
    """A row of a table: what a filter may look for, whether sorting leaves it at the end, and its cells."""

    row: Row
    kind: str  # "" | float | fixed
    label: list[Piece]
    cells: list["Entry"]


@dataclass(frozen=True)
class Entry:
    """A cell ready for the template; `runs` are numbers of runs of the page."""

    cell: Cell
    sort: str
    runs: list[int]
    detail: list[Piece]
    marks: list[Piece]
    tooltip: str


@dataclass(frozen=True)
class TableView:
    """A table with its anchors: `parts` are (heading or None, lines), sorted and filtered each for itself."""

    id: str
    table: Table
    title: str  # what the headings above do not say
    scope: str  # which filter works on it: "claims" | "tables" | "none"
    folded: bool
    notes: list[Note]
    parts: list[tuple[Row | None, list[Line]]]
    layouts: list[str]  # of each column: the class of what follows its numbers
    dense: bool


def table_view(
    table: Table, anchor: str, numbers: dict[str, int], chapters: tuple[str, ...] = ()
) -> TableView:
    """The table with anchors, links and tooltips; `numbers` tells which run of the page a run key is,
    `chapters` are the headings above.

    Raises:
        ValueError: its groups do not cover its columns.
    """
    if table.groups and sum(width for _, width in table.groups) != len(table.head) - 1:
        widths = [width for _, width in table.groups]
        raise ValueError(f"{table.title!r}: groups over {widths} columns of {len(table.head) - 1}")
    notes = notes_of(table.notes, anchor)
    parts: list[tuple[Row | None, list[Line]]] = [(None, [])]
    methods = any(row.method for row in table.rows)
    for row in table.rows:
        if not row.cells:
            parts.append((row, []))
            continue
        kind = "fixed" if methods and not row.method else "float" if row.method == FLOAT else ""
        cells = [
            _entry(cell, row, head, notes, numbers)
            for cell, head in zip(row.cells, table.head[1:], strict=True)
        ]
        parts[-1][1].append(Line(row, kind, pieces(f" {row.marks}".rstrip(), notes, row.label), cells))
    parts = [part for part in parts if part[0] or part[1]]
    return TableView(
        anchor, table, title_of(table, chapters), *_scope(table), notes, parts, _layouts(table), _dense(table)
    )


def _scope(table: Table) -> tuple[str, bool]:
    """Which filter works on it, and whether it waits folded: statements that nothing was found out about."""
    if table.kind != "claims":
        return "none" if table.kind == SUMMARY else "tables", False
    return "claims" if table.textual else "none", table.textual and not any(
        cell.tone for row in table.rows for cell in row.cells
    )


def _layouts(table: Table) -> list[str]:
    """How what follows a number is set, so that the numbers of a column end at one edge.

    Beside it in a box as wide as the longest of the column ("w7"), or, where that is long, on a line of its
    own ("below", and "below w1" where there are ties, whose sign stays beside the number).
    """
    layouts = []
    for column in _columns([row for row in table.rows if row.cells]):
        ties = any(cell.tied and not cell.best for cell in column)
        width = max(
            2 * (cell.tied and not cell.best) + len(cell.detail) + bool(cell.detail) + len(cell.marks)
            for cell in column
        )
        layouts.append(f"w{width}" if width <= WIDEST else "below w1" if ties else "below w0")
    return [""] * len(layouts) if table.textual else layouts


def _dense(table: Table) -> bool:
    """Whether numbers need closer setting to stand on one screen."""
    lines = [row for row in table.rows if row.cells]
    columns = [
        [len(row.label) for row in lines],
        *([len(cell.text) + len(cell.detail) for cell in column] for column in _columns(lines)),
    ]
    return not table.textual and (
        len(columns) >= DENSE[0] or sum(map(max, filter(None, columns))) >= DENSE[1]
    )


def _columns(lines: Sequence[Row]) -> list[tuple[Cell, ...]]:
    return list(zip(*(row.cells for row in lines), strict=True))


def _entry(cell: Cell, row: Row, head: str, notes: list[Note], numbers: dict[str, int]) -> Entry:
    place = f"{row.label} at {head}"
    runs = sorted({numbers[key] for key in cell.run_keys if key in numbers})
    known = cell.value is not None and not math.isnan(cell.value)
    sort = str(float(cell.value)).replace("inf", "Infinity") if known else ""
    detail, marks = (pieces(text, notes, place) for text in (cell.detail, cell.marks))
    return Entry(cell, sort, runs, detail, marks, _tooltip(cell))


def _tooltip(cell: Cell) -> str:
    """What a table has no room for."""
    exact = None
    if cell.value is not None:
        exact = f"{cell.value:.8g}" + ("" if cell.spread is None else f" ± {cell.spread:.3g}")
    facts = [
        exact if exact != cell.text else None,
        "cannot be told from the best of its column" if cell.tied and not cell.best else None,
        None if cell.bits is None else f"{cell.bits:.4f} bits per weight",
        None if cell.published is None else f"published {cell.published:.8g}",
        None if cell.gap is None else f"difference to published {cell.gap:+.4g}",
        cell.why or ("not run" if cell.text == NOT_RUN else None),
    ]
    return " · ".join(filter(None, facts))
