"""What a reader takes along in half a minute: how much was run, how the claims fared, and which method leads
at each width.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.records.record import finite
from harness.reporting.cells import FALLBACK_MARK, NOT_RUN, PERPLEXITY, SOURCE_MARK, SUMMARY, Cell, Row, Table
from harness.reporting.document import Facts, Section
from harness.reporting.labels import FLOAT
from harness.reporting.measures import KINDS
from harness.reporting.tables.grid import says_nothing
from harness.reporting.tables.header import models_in_words, runs_in_words
from harness.reporting.tables.run_cells import FALLBACK_NOTE, LIMIT_NOTE
from harness.reporting.tables.ties import NOTE as TIES_NOTE

MODELS = 4  # with a table here; a report has a chapter for each of the others
HEAD = ("bits", "lowest", "perplexity", "over float", "bits per weight", "next lowest", "perplexity")
UNRANKED = "nothing is ranked"


def in_short(records: pd.DataFrame, tables: Sequence[Table], claims: str) -> Section:
    """The first chapter.

    Args:
        tables: of `build_tables`, with their ties.
        claims: the ledger in one sentence; "" where there is none.
    """
    facts = [
        ("Runs", (runs_in_words(records),)),
        ("Models", tuple(models_in_words(records))),
        ("Claims", (claims,) if claims else ()),
    ]
    chosen: dict[str, Table] = {}
    for table in tables:
        if table.kind == PERPLEXITY and (
            table.model not in chosen or _numbers(table) > _numbers(chosen[table.model])
        ):
            chosen[table.model] = table
    leading = [found for table in list(chosen.values())[:MODELS] if (found := leaders(table))]
    return Section(
        "In short", (Facts(tuple((subject, texts) for subject, texts in facts if texts)), *leading)
    )


def leaders(table: Table) -> Table | None:
    """The method with the lowest perplexity in each column, and the one behind it; None where nothing was
    quantized.
    """
    float_row = next((row for row in table.rows if row.method == FLOAT), None)
    methods = [row for row in table.rows if row.method and row.method != FLOAT]
    if not methods:
        return None
    rows, notes = [], list[str]()
    for column, head in enumerate(table.head[1:]):
        ranked = sorted(_ranked(methods, column), key=lambda pair: pair[1].value)
        rows.append(
            _leader(head, ranked, float_row.cells[column].value if float_row else None)
            if ranked
            else _none(head, methods, column)
        )
        notes += [FALLBACK_NOTE] if ranked and FALLBACK_MARK in ranked[0][1].marks else []
        notes += [TIES_NOTE] if len(ranked) > 1 and ranked[1][1].tied else []
    notes += [
        note
        for note in table.notes
        if note.startswith(SOURCE_MARK) or note == LIMIT_NOTE.format(limit=KINDS[PERPLEXITY].limit)
    ]
    said = (
        f"{table.title}; float model {float_row.cells[0].text} {float_row.cells[0].detail}".rstrip()
        if float_row
        else table.title
    )
    caption = f"{said}. {table.caption}"
    return Table(
        SUMMARY,
        "Who leads at each width",
        table.model,
        caption,
        HEAD,
        tuple(rows),
        tuple(dict.fromkeys(notes)),
    )


def _numbers(table: Table) -> int:
    return sum(cell.value is not None for row in table.rows for cell in row.cells)


def _ranked(methods: Sequence[Row], column: int) -> list[tuple[Row, Cell]]:
    """The rows that count in a column, in the order of the table; none where nobody has won."""
    counting = [
        (row, cell)
        for row, cell in ((row, row.cells[column]) for row in methods)
        if cell.value is not None and cell.value <= KINDS[PERPLEXITY].limit and not cell.doubtful
    ]
    return [] if says_nothing([cell for _, cell in counting], KINDS[PERPLEXITY]) else counting


def _leader(head: str, ranked: Sequence[tuple[Row, Cell]], reference: float | None) -> Row:
    (row, best), *others = ranked
    ratio = best.value / reference if finite(reference) else None
    bits = Cell(NOT_RUN) if best.bits is None else Cell(f"{best.bits:.2f}", value=best.bits)
    cells = [
        Cell(row.label, marks=FALLBACK_MARK if FALLBACK_MARK in best.marks else "", run_keys=best.run_keys),
        _number(best, best=True),
        Cell(NOT_RUN)
        if ratio is None
        else Cell(f"×{ratio:.3g}" if ratio < 1000 else f"×{ratio:.1e}", value=ratio),
        bits,
        *(
            [Cell(others[0][0].label, run_keys=others[0][1].run_keys), _number(others[0][1])]
            if others
            else [Cell(NOT_RUN)] * 2
        ),
    ]
    return Row(head, row.method, tuple(cells))


def _none(head: str, methods: Sequence[Row], column: int) -> Row:
    """A column without a winner: the weights had no more bits to begin with, or every model is broken."""
    doubtful = any(row.cells[column].doubtful for row in methods)
    return Row(
        head, "", (Cell(UNRANKED, marks=SOURCE_MARK if doubtful else ""), *[Cell(NOT_RUN)] * (len(HEAD) - 2))
    )


def _number(cell: Cell, best: bool = False) -> Cell:
    """The cell with its spread and the number of seeds behind it, without what stands in columns of its own
    here.
    """
    spread = [] if cell.spread is None else [f"± {KINDS[PERPLEXITY].text(cell.spread, cell.value)}"]
    detail = " ".join(filter(None, [*spread, cell.seeds]))
    return replace(cell, detail=detail, marks="", best=best)
