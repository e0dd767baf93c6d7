"""What the options of all benchmarks share."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.commands.options import Options
from harness.foundation.errors import UserError

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


class BenchOptions(Options):
    """Options with `--device` and `--out`."""

    def __init__(self, name: str, description: str):
        super().__init__(f"bench {name}", description)
        self.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="(default: %(default)s)")
        written = "directory of the CSV and the figure (default: %(default)s)"
        self.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help=written)

    def add(self, name: str, default: object, what: str) -> None:
        """An option of the type of its default; None: text."""
        kind = str if default is None else type(default)
        what += "" if default is None else " (default: %(default)s)"
        self.add_argument(name, type=kind, default=default, help=what)

    def parse_args(self, arguments: Sequence[str]) -> argparse.Namespace:
        """As `Options`; UserError too where there is no such device."""
        options = super().parse_args(arguments)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: no GPU is visible")
        return options


def titled_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table whose first columns are words, flush left, and the others numbers, flush right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in (*left, *right):
        table.add_column(head, justify="left" if head in left else "right")
    return table


def chosen(flag: str, text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"{flag} {name}: no such name; choose among {', '.join(known)}")
    return names


def values(flag: str, text: str, kind: type, fits: Callable = lambda value: True) -> list:
    """Numbers, comma separated.

    Raises:
        UserError: one is no number, or not in its range.
    """
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{flag} {text}: needs numbers, comma separated") from None
    if not all(map(fits, numbers)):
        raise UserError(f"{flag} {text}: out of range")
    return numbers
