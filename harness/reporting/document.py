"""A report before it has a format: sections of texts, tables and pictures. Every text is plain: whoever
renders it escapes it.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from harness.reporting.cells import Table


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What was run: (subject, what there is to say of it)."""

    entries: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Picture:
    """A figure twice, as pixels and as lines. `slug` becomes the name of a file; `alt` says what there is to
    see.
    """

    slug: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


Block = Paragraph | Bullets | Facts | Picture | Table


@dataclass(frozen=True)
class Section:
    """`level` is 1 for a chapter, 2 for a section inside it."""

    title: str
    blocks: tuple[Block, ...]
    level: int = 1


@dataclass(frozen=True)
class RunEntry:
    """What a number links to. `href` leads from the report to the record's file."""

    run_key: str
    title: str  # e.g. "smollm2-135m · gptq · 3 bits"
    status: str
    facts: tuple[tuple[str, str], ...]  # (field of the configuration or the record, its value)
    href: str


@dataclass(frozen=True)
class Document:
    name: str
    title: str
    sections: tuple[Section, ...]
    runs: tuple[RunEntry, ...] = ()


def tables_of(document: Document) -> list[Table]:
    """All tables, in the order of the document."""
    return [block for section in document.sections for block in section.blocks if isinstance(block, Table)]


def slugs(texts: Sequence[str]) -> list[str]:
    """A name of ASCII letters, digits and hyphens for each text, no two alike, whatever the texts hold."""
    taken: dict[str, int] = {}
    names = []
    for text in texts:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].rstrip("-") or "untitled"
        taken[name] = taken.get(name, 0) + 1
        while taken[name] > 1:
            name = f"{name}-{taken[name]}"
            taken[name] = taken.get(name, 0) + 1
        names.append(name)
    return names
