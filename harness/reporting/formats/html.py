"""A report as one HTML page that needs nothing else: tables that sort and filter, figures that zoom, every
number linked to its run.

The texts of a document never become markup: the template escapes every one of them, and the scripts only ever
set text. A policy in the page's head allows exactly its own style and script (by their hashes) and pictures
that are part of it; nothing is fetched.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.foundation.text import visible
from harness.reporting.cells import NOT_RUN, SUMMARY, Cell, Row, Table
from harness.reporting.document import Block, Document, Picture, RunEntry, slugs, tables_of
from harness.reporting.formats.page_notes import Note, Piece, notes_of, pieces
from harness.reporting.formats.shown import below, title_of
from harness.reporting.labels import FLOAT

SCRIPTS = ("contents.js", "sorting.js", "filters.js", "runs.js", "figures.js")
POLICY = "default-src 'none'; style-src {style}; script-src {script}; img-src data:; base-uri 'none'; form-action 'none'"
DENSE = (8, 120)  # columns, and characters of the longest cells of each, from which on a table is set closer
MANY = 4000  # runs and cells, from which on a page draws only what is near
WIDEST = 28  # characters beside a number; the style has a class for each number of them
SIGNS = {"good": "✓", "bad": "✗", "open": "○"}  # so that a verdict needs no colour


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


@dataclass(frozen=True)
class SectionView:
    id: str
    title: str
    level: int
    blocks: list[tuple[str, Any]]  # (class of the block, the block or its view)


def render(document: Document) -> dict[str, bytes]:
    """{"report.html": the page}."""
    numbers: dict[str, int] = {}
    for place, run in enumerate(document.runs, 1):
        numbers.setdefault(run.run_key, place)
    style, script = _part("style.css"), "\n".join(map(_part, SCRIPTS))
    sections = _sections(document, numbers)
    page = _template().render(
        document=document,
        sections=sections,
        ledgers=[
            view
            for section in sections
            for _, view in section.blocks
            if isinstance(view, TableView) and view.scope == "claims"
        ],
        runs=[(run, _address(run.href), *_state(run)) for run in document.runs],
        long=len(document.runs) + sum(len(row.cells) for table in tables_of(document) for row in table.rows)
        > MANY,
        states=sorted({_state(run)[0] for run in document.runs}),
        facts=Markup(_json(_facts(document.runs))),
        style=Markup(style),
        script=Markup(script),
        policy=POLICY.format(style=_hash(style), script=_hash(script)),
        signs=SIGNS,
    )
    return {"report.html": page.encode()}


@cache
def _template():
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"data_uri": _data_uri, "verdicts": _verdicts}
    return environment.from_string(_part("page.html"))


def _part(name: str) -> str:
    return (files("harness.reporting.formats") / "page" / name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """Every text of the template passes here: `visible`, but for those it would leave as they are (most of a
    large page).
    """
    return (
        value
        if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable()
        else visible(value)
    )


def _sections(document: Document, numbers: dict[str, int]) -> list[SectionView]:
    names = slugs([section.title for section in document.sections])
    views, count, chapters = [], 0, {}
    for name, section in zip(names, document.sections, strict=True):
        chapters = below(chapters, section)
        blocks: list[tuple[str, Block | TableView]] = []
        for block in section.blocks:
            kind = type(block).__name__
            if isinstance(block, Table):
                count += 1
                block = table_view(block, f"table-{count}", numbers, tuple(chapters.values()))
            blocks.append((kind, block))
        views.append(SectionView(f"section-{name}", section.title, section.level, blocks))
    return views


def table_view(
    table: Table, anchor: str, numbers: dict[str, int], chapters: tuple[str, ...] = ()
) -> TableView:
    """The table with anchors, links and tooltips; `numbers` tells which run of the page a run key is,
    `chapters` are the headings above.

    Raises:
        ValueError: its groups do not cover its columns.
    """
    if table.groups and sum(width for _, width in table.groups) != len(table.head) - 1:
        raise ValueError(
            f"{table.title!r}: groups over {[width for _, width in table.groups]} columns of {len(table.head) - 1}"
        )
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
    sort = (
        ""
        if cell.value is None or math.isnan(cell.value)
        else str(float(cell.value)).replace("inf", "Infinity")
    )
    return Entry(
        cell, sort, runs, pieces(cell.detail, notes, place), pieces(cell.marks, notes, place), _tooltip(cell)
    )


def _tooltip(cell: Cell) -> str:
    """What a table has no room for."""
    exact = (
        None
        if cell.value is None
        else f"{cell.value:.8g}" + ("" if cell.spread is None else f" ± {cell.spread:.3g}")
    )
    facts = [
        exact if exact != cell.text else None,
        "cannot be told from the best of its column" if cell.tied and not cell.best else None,
        None if cell.bits is None else f"{cell.bits:.4f} bits per weight",
        None if cell.published is None else f"published {cell.published:.8g}",
        None if cell.gap is None else f"difference to published {cell.gap:+.4g}",
        cell.why or ("not run" if cell.text == NOT_RUN else None),
    ]
    return " · ".join(filter(None, facts))


def _verdicts(ledgers: Sequence[TableView]) -> list[str]:
    """The words of all verdicts, in the order in which a reader meets them."""
    cells = (
        entry.cell for view in ledgers for _, lines in view.parts for line in lines for entry in line.cells
    )
    return list(dict.fromkeys(cell.text for cell in cells if cell.tone))


def _state(run: RunEntry) -> tuple[str, str]:
    """("failed", "out of disk") of the status "failed: out of disk"."""
    word, _, reason = run.status.partition(":")
    return word, reason.strip()


def _address(href: str) -> str:
    """A link that stays a relative one whatever the directories are called; "" where there is none."""
    return "./" + href.lstrip("/") if href and not href.startswith(("./", "../")) else href


def _facts(runs: Sequence[RunEntry]) -> dict:
    """The facts of all runs, each text once: {"texts": [...], "runs": [[name, value, name, value, ...] as
    places in texts]}.
    """
    texts: dict[str, int] = {}
    entries = [
        [texts.setdefault(_shown(text), len(texts)) for fact in run.facts for text in fact] for run in runs
    ]
    return {"texts": list(texts), "runs": entries}


def _json(value: Any) -> str:
    """JSON that no HTML parser can take for markup."""
    return (
        json.dumps(value, separators=(",", ":"))
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )


def _data_uri(picture: Picture) -> str:
    """Lines where there are any, else pixels; as the source of an image, where a script or a link of an SVG
    is dead.
    """
    kind, content = ("svg+xml", picture.svg) if picture.svg else ("png", picture.png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
