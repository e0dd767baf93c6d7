"""All numbers of a report as one tidy CSV file: one line for every cell of every table."""

import csv
import io
from collections.abc import Iterator

from harness.foundation.text import visible
from harness.reporting.cells import Cell, Table
from harness.reporting.document import Document, tables_of
from harness.reporting.formats.shown import groups_by_column, tied

COLUMNS = (
    "number", "table", "kind", "model", "heading", "row", "method", "group", "column", "value", "spread",
    "text", "detail", "marks", "best", "tied", "bits", "published", "gap", "metric", "protocol", "why",
    "run_keys",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


def render(document: Document) -> dict[str, bytes]:
    """{"tables.csv": RFC 4180 in UTF-8 with "\\n" at the ends of lines}; `number` counts the tables of the
    document from 1.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, table in enumerate(tables_of(document), 1):
        writer.writerows(_lines(place, table))
    return {"tables.csv": file.getvalue().encode()}


def plain(text: str) -> str:
    """The text with nothing hidden in it; an apostrophe keeps a spreadsheet from reading a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def _lines(place: int, table: Table) -> Iterator[list[str]]:
    about = [str(place), *map(plain, (table.title, table.kind, table.model))]
    columns = [
        [plain(group), plain(head)]
        for group, head in zip(groups_by_column(table), table.head[1:], strict=True)
    ]
    heading = ""
    for row in table.rows:
        if not row.cells:
            heading = plain(row.label)
        line = [*about, heading, plain(row.label), plain(row.method)]
        for column, cell in zip(columns, row.cells, strict=False):
            yield [*line, *column, *_cell(cell)]


def _cell(cell: Cell) -> list[str]:
    flags = ["true" if flag else "false" for flag in (cell.best, tied(cell))]
    texts = [plain(text) for text in (cell.text, cell.detail, cell.marks)]
    numbers = [_number(number) for number in (cell.bits, cell.published, cell.gap)]
    words = [plain(text) for text in (cell.metric, cell.protocol, cell.why, " ".join(cell.run_keys))]
    return [_number(cell.value), _number(cell.spread), *texts, *flags, *numbers, *words]


def _number(value: float | None) -> str:
    """All digits, so that reading it back gives the same float."""
    return "" if value is None else repr(float(value))
