"""A report as one HTML page that needs nothing else: tables that sort and filter, figures that zoom, every
number linked to its run.

The texts of a document never become markup: the template escapes every one of them, and the scripts only ever
set text. A policy in the page's head allows exactly its own style and script (by their hashes) and pictures
that are part of it; nothing is fetched.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.foundation.text import visible
from harness.reporting.cells import Table
from harness.reporting.document import Block, Document, Picture, RunEntry, slugs, tables_of
from harness.reporting.formats.shown import below
from harness.reporting.formats.table_views import TableView, table_view

SCRIPTS = ("contents.js", "sorting.js", "filters.js", "runs.js", "figures.js")
POLICY = (
    "default-src 'none'; style-src {style}; script-src {script}; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
MANY = 4000  # runs and cells, from which on a page draws only what is near
SIGNS = {"good": "✓", "bad": "✗", "open": "○"}  # so that a verdict needs no colour


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
