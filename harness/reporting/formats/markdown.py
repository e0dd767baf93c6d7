"""The report as GitHub-flavoured Markdown. Every text that came from a record passes through `escape`."""

import re
from collections.abc import Iterator, Sequence

from harness.foundation.text import visible
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.document import Block, Bullets, Document, Facts, Paragraph, Picture, slugs
from harness.reporting.formats.shown import TIE, below, groups_by_column, tied, title_of

# Underscores inside words mean nothing to Markdown, and names read better without backslashes.
SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# at the start of a line: a list, a rule, the underline of a heading
BLOCK = re.compile(r"^(?=[-+=])|^(\d{1,9})(?=[.)])")
FIGURES = "figures"
# characters of a line up to which the columns of the source are lined up; beyond, nobody reads it as it is
READABLE = 160


def render(document: Document) -> dict[str, bytes]:
    """{"report.md": the text, "figures/<slug>.png": a picture, …}."""
    pictures = [
        block for section in document.sections for block in section.blocks if isinstance(block, Picture)
    ]
    names = [f"{FIGURES}/{slug}.png" for slug in slugs([picture.slug for picture in pictures])]
    parts, files, chapters = [f"# {escape(document.title)}\n"], iter(names), {}
    for section in document.sections:
        chapters = below(chapters, section)
        parts += [f"{'#' * (section.level + 1)} {escape(section.title)}\n"] if section.title else []
        parts += [_block(block, section.level, tuple(chapters.values()), files) for block in section.blocks]
    text = "\n".join(filter(None, parts))
    return {
        "report.md": text.encode(),
        **{name: picture.png for name, picture in zip(names, pictures, strict=True)},
    }


def escape(text: str) -> str:
    """Inline Markdown that shows exactly this text, on one line, inside table cells too."""
    html = "".join(HTML.get(character, character) for character in visible(text))
    return SPECIAL.sub(lambda match: "\\" + match[0], html)


def escape_line(text: str) -> str:
    """The same where it begins a line of its own: no list, no rule, no code."""
    return BLOCK.sub(lambda match: f"{match[1] or ''}\\", escape(text).strip())


def _block(block: Block, level: int, chapters: tuple[str, ...], files: Iterator[str]) -> str:
    match block:
        case Paragraph(text):
            return f"{escape_line(text)}\n" if text.strip() else ""
        case Bullets(items):
            return _list(items)
        case Facts(entries):
            return "".join(
                f"- **{escape(subject).strip()}:** {'; '.join(map(escape, texts))}\n"
                for subject, texts in entries
            )
        case Picture():
            said = " ".join([_wrapped(escape(block.title), "**"), escape(block.caption)]).strip()
            return f"![{escape(block.alt)}]({next(files)})\n\n{said}\n"
        case Table():
            return markdown_table(block, level + 2, title_of(block, chapters))


def markdown_table(table: Table, level: int = 3, title: str | None = None) -> str:
    """Heading, caption, pipe table and footnotes."""
    title = table.title if title is None else title
    lines = [f"{'#' * level} {escape(title)}", ""] if title else []
    lines += [escape_line(table.caption), ""]
    heads = [
        f"{group}: {head}" if group else head
        for group, head in zip(groups_by_column(table), table.head[1:], strict=True)
    ]
    rows = [markdown_row(row, len(table.head), table.textual) for row in table.rows]
    lines += pipe_table([escape(text) for text in (table.head[0], *heads)], rows, table.textual)
    if table.notes:
        lines += ["", _list(table.notes).rstrip("\n")]
    return "\n".join(lines) + "\n"


def markdown_row(row: Row, columns: int, textual: bool = False) -> list[str]:
    label = escape(f"{row.label} {row.marks}".strip(" "))
    if not row.cells:
        return [_wrapped(label, "**"), *[""] * (columns - 1)]
    return [label if row.method or textual else _wrapped(label, "*"), *map(markdown_cell, row.cells)]


def markdown_cell(cell: Cell) -> str:
    text = escape(cell.text.strip(" "))
    text = _wrapped(text, "**") if cell.best or cell.tone else text
    sign = TIE if tied(cell) else ""
    return " ".join([text + sign, *map(escape, filter(None, (cell.detail, cell.marks)))])


def pipe_table(head: list[str], rows: list[list[str]], textual: bool = False) -> list[str]:
    """The lines of a table whose cells are already Markdown: first column to the left, the others to the
    right, or all to the left.
    """
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    widths = widths if sum(widths) <= READABLE else [3] * len(widths)
    left = [True, *[textual] * (len(widths) - 1)]
    rule = [
        f":{'-' * (width - 1)}" if to_left else f"{'-' * (width - 1)}:"
        for width, to_left in zip(widths, left, strict=True)
    ]
    return [_line(cells, widths, left) for cells in (head, rule, *rows)]


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [
        cell.ljust(width) if to_left else cell.rjust(width)
        for cell, width, to_left in zip(cells, widths, left, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def _list(items: Sequence[str]) -> str:
    return "".join(f"- {escape_line(item)}\n" for item in items)


def _wrapped(text: str, sign: str) -> str:
    """Emphasis; none on nothing, which would read as stars."""
    return f"{sign}{text.strip()}{sign}" if text.strip() else text
