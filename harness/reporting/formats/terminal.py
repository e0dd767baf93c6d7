"""Tables on a terminal. Texts are never read as markup."""

from collections.abc import Sequence
from itertools import accumulate

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness.foundation.text import visible
from harness.reporting.cells import PERPLEXITY, SUMMARY, Cell, Row, Table
from harness.reporting.document import Document, tables_of
from harness.reporting.formats.shown import TIE, groups_by_column, tied, title_of

ON_TERMINAL = 80  # lines of the tables of a whole report: as many as anybody scrolls back for
FIRST = {SUMMARY: 0, PERPLEXITY: 1}  # kinds of tables
ON_A_PAGE = ("claims", "paper", "published")  # kinds that read better there
UNBOUNDED = 100_000
PLAIN_WIDTH = 240  # where output goes to a file or a pipe, tables are not folded
NUMBERS = tuple("¹²³⁴⁵⁶⁷⁸⁹")
TONES = {"good": "bold green", "bad": "bold red", "open": "yellow"}


def print_first(document: Document, whole: bool) -> None:
    """Print tables that were asked for; of a `whole` report who leads, then numbers, perplexities first, and
    how many are left.
    """
    tables = tables_of(document)
    if whole:
        tables = sorted(
            (table for table in tables if table.kind not in ON_A_PAGE),
            key=lambda table: FIRST.get(table.kind, len(FIRST)),
        )
    lines = accumulate(len(table.rows) for table in tables)
    shown = tables[: max(1, sum(count <= ON_TERMINAL for count in lines))]
    print_tables(shown)
    if len(shown) < len(tables):
        print(f"… and {len(tables) - len(shown)} more tables, in the files")


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print the tables; on a terminal too narrow for one, its cells lose all but the number and its marks,
    and words are wrapped.

    A note that holds for several tables stands below the first of them; numbered ones belong to theirs.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    said: set[str] = set()
    for table in tables:
        view = terminal_table(table, plain=not console.is_terminal)
        if (
            not table.textual
            and console.measure(view, options=console.options.update(width=UNBOUNDED)).maximum > console.width
        ):
            view = terminal_table(table, brief=True)
        title = Text(visible(title_of(table)))
        title.stylize("bold", 0, len(visible(table.title)))
        notes = [
            Text(visible(note), "dim") for note in table.notes if note not in said or note.startswith(NUMBERS)
        ]
        said.update(table.notes)
        console.print(title, Text(visible(table.caption), "dim"), "", view, *notes, "", sep="\n")


def terminal_table(table: Table, brief: bool = False, plain: bool = False) -> RichTable:
    view = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    groups = ["", *groups_by_column(table)]
    for place, (group, head) in enumerate(zip(groups, table.head, strict=True)):
        shown = visible(head) if not any(groups) else f"{visible(group)}\n{visible(head)}"
        to_left = table.textual or not place
        fold = "fold" if table.textual else "ellipsis"
        view.add_column(Text(shown), justify="left" if to_left else "right", overflow=fold)
    for row in table.rows:
        view.add_row(*_line(row, table.textual, brief, plain))
    return view


def _line(row: Row, textual: bool, brief: bool, plain: bool) -> list[Text]:
    label = visible(f"{row.label} {row.marks}".rstrip(" "))
    if not row.cells:
        return [Text(label, "bold")]
    style = "" if row.method or textual else "dim"
    return [Text(label, style), *(terminal_cell(cell, style, brief, plain) for cell in row.cells)]


def terminal_cell(cell: Cell, style: str = "", brief: bool = False, plain: bool = False) -> Text:
    """`brief`: without what follows the number; `plain`: there is no bold, so stars stand for it."""
    text = visible(cell.text)
    text = f"**{text}**" if cell.best and plain else text
    detail = "" if brief and cell.value is not None else cell.detail
    parts = [(text + (TIE if tied(cell) else ""), "bold green" if cell.best else TONES.get(cell.tone, style))]
    parts += [(f" {visible(text)}", "dim") for text in (detail, cell.marks) if text]
    return Text.assemble(*parts)
