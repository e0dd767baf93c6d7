"""Which cells of a table cannot be told from the best of their column: paired comparisons on the windows or
items behind the numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.records.measurements import Items
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.labels import FLOAT
from harness.reporting.tables.bootstrap import holm, paired_rows
from harness.reporting.tables.grid import says_nothing
from harness.reporting.tables.values import MEAN, measure, parts

LEVEL = 0.95
NOTE = (
    "≈ cannot be told from the best of its column: paired bootstrap over the same windows or items, 95 %, "
    "corrected after Holm for the "
    "number of comparisons; several seeds are averaged first. Nothing is marked where a run kept no items"
)

Position = tuple[int, int, int]  # table, row, column
Parts = tuple[np.ndarray, ...]  # the items of every metric that a cell is the mean of


@dataclass(frozen=True)
class Contest:
    """One column of rows that are compared: the items of its best cell, and those of all others that have
    some.
    """

    metric: str
    best: Parts
    others: dict[Position, Parts]


def mark_ties(tables: Sequence[Table], items: Items, directories: Mapping[str, str]) -> list[Table]:
    """The tables with `tied` set in every cell that a paired test cannot tell from the best of its column,
    and a note about it.

    Compared are cells of one column between two heading rows that have the same metric and protocol. The
    float model and cells marked as doubtful are left out.

    Args:
        directories: run key → directory below runs/, of the runs whose numbers count (those that are done).
    """
    contests = [
        contest
        for number, table in enumerate(tables)
        for contest in _contests(number, table, items, directories)
    ]
    tied: dict[int, set[tuple[int, int]]] = {}
    for contest, p_values in zip(contests, _p_values(contests), strict=True):
        pairs = zip(contest.others, p_values, strict=True)
        compared = [(position, p) for position, p in pairs if p is not None]
        for ((table, row, column), _), p in zip(compared, holm([p for _, p in compared]), strict=True):
            if p >= 1 - LEVEL:
                tied.setdefault(table, set()).add((row, column))
    return [_marked(table, tied[number]) if number in tied else table for number, table in enumerate(tables)]


def differences(a: Parts, b: Parts) -> np.ndarray | None:
    """One row of differences whose mean is the difference of the two cells, or None where they have no common
    items.

    Several metrics weigh the same, however many items each has. Which metrics there are is no matter of
    chance: the differences of each are moved to the common mean and scaled so that the row's standard error
    is that of independent samples per metric.
    """
    if len(a) != len(b) or any(
        x.shape != y.shape or x.ndim != 1 or len(x) < 2 for x, y in zip(a, b, strict=True)
    ):
        return None
    with np.errstate(invalid="ignore"):  # two infinite losses: a NaN, which no test counts
        apart = [x - y for x, y in zip(a, b, strict=True)]
    if len(apart) == 1:
        return apart[0]
    total, middle = sum(map(len, apart)), np.mean([part.mean() for part in apart])
    return np.concatenate(
        [(part - part.mean()) * _weight(len(part), len(apart), total) + middle for part in apart]
    )


def _weight(n: int, count: int, total: int) -> float:
    """w with w² · SS / (total (total − 1)) = SS / (count² n (n − 1)), SS the sum of squares within one of
    `count` metrics.
    """
    return (total * (total - 1) / (n * (n - 1))) ** 0.5 / count


def _contests(number: int, table: Table, items: Items, directories: Mapping[str, str]) -> Iterator[Contest]:
    for block in _blocks(table.rows):
        found: dict[tuple[int, str, str], dict[Position, Cell]] = {}
        for row_index, row in block:
            for column, cell in enumerate(row.cells):
                if _competes(cell):
                    found.setdefault((column, cell.metric, cell.protocol), {})[number, row_index, column] = (
                        cell
                    )
        for (_, metric, _), cells in found.items():
            won = len(cells) > 1 and not says_nothing(list(cells.values()), measure(metric))
            contest = _contest(metric, cells, items, directories) if won else None
            if contest is not None:
                yield contest


def _contest(
    metric: str, cells: dict[Position, Cell], items: Items, directories: Mapping[str, str]
) -> Contest | None:
    better = _better(metric)
    best = max(cells, key=lambda position: (cells[position].best, better * cells[position].value))
    values = {position: _items(cell, items, directories) for position, cell in cells.items()}
    if values[best] is None:
        return None
    others = {position: rest for position, rest in values.items() if position != best and rest is not None}
    return Contest(metric, values[best], others)


def _blocks(rows: Sequence[Row]) -> list[list[tuple[int, Row]]]:
    """Rows between heading rows, with their indices; without the float model and rows that are no method."""
    blocks: list[list[tuple[int, Row]]] = [[]]
    for row_index, row in enumerate(rows):
        if not row.cells:
            blocks.append([])
        elif row.method and row.method != FLOAT:
            blocks[-1].append((row_index, row))
    return blocks


def _competes(cell: Cell) -> bool:
    if not (cell.metric and cell.protocol) or cell.value is None or cell.doubtful:
        return False
    return cell.value <= measure(cell.metric).limit and bool(_better(cell.metric))


def _better(metric: str) -> int:
    """Which direction is better, 0 where unknown. Means are taken of shares only: a mean of perplexities is
    no mean of losses.
    """
    better = measure(metric).better
    return max(better, 0) if metric.startswith(MEAN) else better


def _items(cell: Cell, items: Items, directories: Mapping[str, str]) -> Parts | None:
    """The items behind a cell, averaged over its runs (the seeds); None where there are none, or different
    ones.
    """
    found = []
    for name in parts(cell.metric):
        runs = [items.of(directories[key], name) for key in cell.run_keys if key in directories]
        if not runs or any(run is None or run.ndim != 1 or run.shape != runs[0].shape for run in runs):
            return None
        found.append(np.mean(runs, axis=0))
    return tuple(found)


def _p_values(contests: Sequence[Contest]) -> list[list[float | None]]:
    """Uncorrected p-values of every contest; all rows of equal length are compared at once."""
    rows = [[differences(contest.best, other) for other in contest.others.values()] for contest in contests]
    lengths = sorted({len(row) for of_contest in rows for row in of_contest if row is not None})
    compared: dict[int, Iterator[float | None]] = {}
    for length in lengths:
        same = np.array(
            [row for of_contest in rows for row in of_contest if row is not None and len(row) == length]
        )
        compared[length] = iter([pair.p if pair else None for pair in paired_rows(same, LEVEL)])
    return [[None if row is None else next(compared[len(row)]) for row in of_contest] for of_contest in rows]


def _marked(table: Table, tied: set[tuple[int, int]]) -> Table:
    rows = [
        replace(
            row,
            cells=tuple(
                replace(cell, tied=(row_index, column) in tied) for column, cell in enumerate(row.cells)
            ),
        )
        for row_index, row in enumerate(table.rows)
    ]
    visible = any(cell.tied and not cell.best for row in rows for cell in row.cells)
    return replace(table, rows=tuple(rows), notes=(*table.notes, NOTE) if visible else table.notes)
