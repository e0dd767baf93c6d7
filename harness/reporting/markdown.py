"""Tables as GitHub-flavoured Markdown. Every text that came from a record passes through `escape`."""

import re

from harness.reporting.cells import Cell, Row, Table
from harness.reporting.labels import visible

# Underscores inside words mean nothing to Markdown, and names read better without backslashes.
SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """Inline Markdown that shows exactly this text, on one line, inside table cells too."""
    html = "".join(HTML.get(character, character) for character in visible(text))
    return SPECIAL.sub(lambda match: "\\" + match[0], html)


def markdown_table(table: Table) -> str:
    """Heading, caption, pipe table and footnotes."""
    lines = [f"### {escape(table.title)}", "", escape(table.caption), ""]
    lines += pipe_table([escape(text) for text in table.head], [markdown_row(row) for row in table.rows])
    if table.notes:
        lines += ["", *(f"- {escape(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def markdown_row(row: Row) -> list[str]:
    label = escape(f"{row.label} {row.marks}".rstrip())
    return [label if row.method else f"*{label}*", *map(markdown_cell, row.cells)]


def markdown_cell(cell: Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.best else escape(cell.text)
    return " ".join([text, *map(escape, filter(None, (cell.detail, cell.marks)))])


def pipe_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table whose cells are already Markdown: first column to the left, the others to the right."""
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return [_line(cells, widths) for cells in (head, rule, *rows)]


def _line(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
    return f"| {' | '.join(padded)} |"
