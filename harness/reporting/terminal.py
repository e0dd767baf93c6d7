"""Tables on a terminal. Texts are never read as markup."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness.reporting.cells import Cell, Table

UNBOUNDED = 100_000
PLAIN_WIDTH = 240  # where output goes to a file or a pipe, tables are not folded


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print the tables; on a terminal too narrow for one, its cells lose all but the number and its marks."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    for table in tables:
        view = terminal_table(table, plain=not console.is_terminal)
        if console.measure(view, options=console.options.update(width=UNBOUNDED)).maximum > console.width:
            view = terminal_table(table, brief=True)
        title = Text.assemble((table.title, "bold"), f" · {table.model}")
        notes = [Text(note, "dim") for note in table.notes]
        console.print(title, Text(table.caption, "dim"), "", view, *notes, "", sep="\n")


def terminal_table(table: Table, brief: bool = False, plain: bool = False) -> RichTable:
    view = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(table.head):
        view.add_column(Text(head), justify="right" if place else "left")
    for row in table.rows:
        style = "" if row.method else "dim"
        cells = (terminal_cell(cell, style, brief, plain) for cell in row.cells)
        view.add_row(Text(f"{row.label} {row.marks}".rstrip(), style), *cells)
    return view


def terminal_cell(cell: Cell, style: str = "", brief: bool = False, plain: bool = False) -> Text:
    """`brief`: without what follows the number; `plain`: nothing can be set in bold, so stars stand for it."""
    text = f"**{cell.text}**" if cell.best and plain else cell.text
    parts = [(text, "bold green" if cell.best else style)]
    parts += [(f" {text}", "dim") for text in (() if brief and cell.value is not None else (cell.detail,)) if text]
    return Text.assemble(*parts, (f" {cell.marks}" if cell.marks else "", "dim"))
