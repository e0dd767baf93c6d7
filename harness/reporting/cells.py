"""What a table is before any format: cells, rows, footnotes. Renderers turn it into Markdown or put it on a
terminal.
"""

from dataclasses import dataclass

from harness.foundation.text import visible
from harness.reporting.keys import ColumnKey, RowKey

SUMMARY = "summary"  # the kind of these tables
PERPLEXITY = "perplexity"

NOT_RUN = "–"
SOURCE_MARK, FALLBACK_MARK, CONFLICT_MARK = "†", "*", "‡"
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """`text` is the number or the state; `detail` follows it (spread, difference to float, bits, published
    number), then `marks`.
    """

    text: str
    detail: str = ""
    marks: str = ""
    value: float | None = None  # in the unit of the table
    spread: float | None = None
    bits: float | None = None  # weighed bits per weight
    best: bool = False
    doubtful: bool = False  # the weights had no more bits than this before anyone quantized them
    run_keys: tuple[str, ...] = ()
    # what was measured, e.g. "perplexity/wiki"; with the protocol it names the items that the value is the
    # mean of
    metric: str = ""
    protocol: str = ""
    tied: bool = False  # a paired test cannot tell it from the best of its column
    # what the paper printed for the same model, method and scheme, in the unit of the table
    published: float | None = None
    gap: float | None = None  # value - published, where the protocols agree too
    why: str = ""  # why there is no number
    tone: str = ""  # of a verdict: good | bad | open
    seeds: str = ""  # what `detail` says of the number of runs behind the value, e.g. "(n=3)"


@dataclass(frozen=True)
class Row:
    """One line; `method` is empty where the line is no method. A line without cells is a heading over those
    below it. `key` is what the label of a quantized method was made from.
    """

    label: str
    method: str
    cells: tuple[Cell, ...]
    marks: str = ""
    key: RowKey | None = None


@dataclass(frozen=True)
class Table:
    """`head[0]` stands above the labels; `notes` are footnotes, each beginning with its mark.

    `groups` is a line above the head: (text, number of columns under it), from the second column on; the
    numbers add up to `len(head) - 1`. In a `textual` table every column holds words: they stand to the left
    and may run over several lines. `columns` are what the heads from the second on were made from, where
    columns are schemes.
    """

    kind: str
    title: str
    model: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()
    textual: bool = False
    columns: tuple[ColumnKey, ...] = ()
    protocol: str = ""  # of all its numbers, where they share one; the caption says it in its own words


class Notes:
    """Footnotes under construction: the same text gets the same number."""

    def __init__(self):
        self._numbered: dict[str, str] = {}
        self._marked: dict[str, None] = {}

    def number(self, text: str) -> str:
        """The superscript that refers to this text."""
        return self._numbered.setdefault(visible(text), str(len(self._numbered) + 1).translate(SUPERSCRIPT))

    def mark(self, text: str) -> None:
        """A footnote that begins with a mark of its own."""
        self._marked.setdefault(visible(text))

    def lines(self) -> tuple[str, ...]:
        return (*(f"{number} {text}" for text, number in self._numbered.items()), *self._marked)
