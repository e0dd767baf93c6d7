"""The report as a PDF file, typeset by typst. Texts travel as JSON and are never read as markup; see
print/report.typ.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import count
from typing import Any

from harness.foundation.errors import UserError
from harness.foundation.text import visible
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.document import Block, Bullets, Document, Facts, Paragraph, Picture, RunEntry
from harness.reporting.formats.shown import below, groups_by_column, tied, title_parts

SHOWN_RUNS = 300
SHOWN_ROWS = 120  # of one table: nobody reads more on paper
SHOWN_LINES = 1200  # of all tables together, some forty pages; those that begin later are named only
LONG_ROW = 600  # characters from which a row may be divided between two pages
UNBROKEN = 22  # characters after which a line may end inside a word
TALL = 1.2  # height over width from which a picture is fitted to the height of the page
ANY_WIDTH = 1000  # points, of a picture that says none: more than any page has
# What the fonts that come with typst show. Everything else, whatever fonts this machine has, becomes an
# escape.
UNKNOWN = re.compile(
    "[^\u0020-\u007e\u00a0-\u00ac\u00ae-\u024f\u0386-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce"
    "\u0400-\u045f\u0490\u0491"
    "\u1d40\u2010-\u2027\u2030-\u205e\u2070\u2071\u2074-\u208e\u2090-\u209c\u20a0-\u20bf\u2100-\u2129"
    "\u2190-\u2246\u2248-\u22ab\u22ad-\u22ff\u2300-\u23cf\u2460-\u25ff\u2713-\u2718]"
)
BREAKS = re.compile(r"(?<=[/_=.,;:·+)\]])(?=\w)")
ZERO_WIDTH_SPACE = "\u200b"


def render(document: Document) -> dict[str, bytes]:
    """{"report.pdf": the file}; the same document gives the same bytes on any machine with the same typst.

    Raises:
        UserError: the package typst is not installed.
    """
    try:
        import typst
    except ImportError as error:
        raise UserError(
            "format=pdf needs the package typst: pip install 'ptq-bench[pdf]', or leave pdf out of format="
        ) from error
    template = (resources.files("harness.reporting.formats") / "print" / "report.typ").read_bytes()
    data = json.dumps(data_of(document), ensure_ascii=True, sort_keys=True)
    made = typst.compile(template, format="pdf", ignore_system_fonts=True, sys_inputs={"document": data})
    return {"report.pdf": made}


def printable(text: str) -> str:
    """The text with a visible escape for every character that no font has, and places where a long word may
    end a line.
    """
    known = UNKNOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", visible(text))
    return " ".join(_breakable(word) for word in known.split(" "))


def _breakable(word: str) -> str:
    if len(word) <= UNBROKEN:
        return word
    pieces = BREAKS.sub(ZERO_WIDTH_SPACE, word).split(ZERO_WIDTH_SPACE)
    cut = [
        piece[start : start + UNBROKEN]
        for piece in pieces
        for start in range(0, max(1, len(piece)), UNBROKEN)
    ]
    return ZERO_WIDTH_SPACE.join(cut)


def data_of(document: Document) -> dict[str, Any]:
    """What the template reads."""
    numbers = {Table: count(1), Picture: count(1)}
    sections, chapters, lines = [], {}, 0
    for section in document.sections:
        chapters, blocks = below(chapters, section), []
        for block in section.blocks:
            fits = not isinstance(block, Table) or lines <= SHOWN_LINES
            lines += min(len(block.rows), SHOWN_ROWS) if isinstance(block, Table) else 0
            blocks.append(_block(block if fits else _named(block), numbers, tuple(chapters.values())))
        sections.append({"title": printable(section.title), "level": section.level, "blocks": blocks})
    title = printable(document.title)
    return {"title": title, "running": title[:90], "sections": sections, **_runs(document.runs)}


def _named(table: Table) -> Paragraph:
    """What stands for a table that is too much for paper."""
    title = " · ".join(filter(None, (table.title, table.model)))
    return Paragraph(f"{title}: {len(table.rows)} lines, in tables.csv and report.html.")


def _runs(runs: Sequence[RunEntry]) -> dict[str, Any]:
    more = len(runs) - SHOWN_RUNS
    said = f"{len(runs)} run{'s' * (len(runs) != 1)}" + (
        f"; the first {SHOWN_RUNS} of them:" if more > 0 else ":"
    )
    shown = [[printable(text) for text in (run.run_key, run.title, run.status)] for run in runs[:SHOWN_RUNS]]
    return {"runs": shown, "runs-said": said}


def _block(block: Block, numbers: Mapping[type, Iterator[int]], chapters: tuple[str, ...]) -> dict[str, Any]:
    """`numbers` counts what has a number of its own; `chapters` are the headings above."""
    match block:
        case Paragraph(text):
            return {"kind": "paragraph", "text": printable(text)}
        case Bullets(items):
            return {"kind": "bullets", "items": [printable(item) for item in items]}
        case Facts(entries):
            return {
                "kind": "facts",
                "entries": [
                    [printable(subject), [printable(text) for text in texts]] for subject, texts in entries
                ],
            }
        case Picture():
            texts = {name: printable(getattr(block, name)) for name in ("title", "caption", "alt")}
            texts["number"] = str(next(numbers[Picture]))
            width, height = _size(block.svg)
            # a tall one would run over the foot of the page
            sizes = {"width": width or ANY_WIDTH, "tall": height > TALL * width}
            return {"kind": "picture", "svg": block.svg.decode("utf-8"), **sizes, **texts}
        case Table():
            return _table(block, next(numbers[Table]), chapters)


def _size(svg: bytes) -> tuple[float, float]:
    """Width and height of a picture in points; none where it does not say."""
    found = re.search(rb'viewBox="\s*[-\d.]+[ ,]+[-\d.]+[ ,]+([\d.]+)[ ,]+([\d.]+)', svg)
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def _table(table: Table, place: int, chapters: tuple[str, ...]) -> dict[str, Any]:
    groups_by_column(table)  # raises where groups and columns do not agree
    title, model = title_parts(table, chapters)
    title = title if title or model else table.title  # on paper a number needs some words behind it
    texts = {
        name: printable(text)
        for name, text in (("title", title), ("model", model), ("caption", table.caption))
    }
    more = len(table.rows) - SHOWN_ROWS
    notes = [
        *table.notes,
        *([f"… and {more} more lines: tables.csv and report.html have them all"] if more > 0 else []),
    ]
    return {
        "kind": "table",
        "number": str(place),
        **texts,
        "head": [printable(head) for head in table.head],
        "groups": [[printable(text), count] for text, count in table.groups if count],
        "rows": [_row(row) for row in table.rows[:SHOWN_ROWS]],
        "notes": [printable(note) for note in notes],
        "textual": table.textual,
    }


def _row(row: Row) -> dict[str, Any]:
    cells = [_cell(cell) for cell in row.cells]
    length = max([len(row.label), *(len(cell["text"]) + len(cell["detail"]) for cell in cells)])
    long = length > LONG_ROW
    return {
        "label": printable(row.label),
        "marks": printable(row.marks),
        "method": bool(row.method),
        "cells": cells,
        "long": long,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    texts = {name: printable(getattr(cell, name)) for name in ("text", "detail", "marks")}
    return {**texts, "best": cell.best, "tied": tied(cell), "tone": cell.tone}
