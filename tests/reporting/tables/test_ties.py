from pathlib import Path

import numpy as np
import pytest

from harness.records.measurements import Items
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.measures import KINDS
from harness.reporting.tables.grid import with_best
from harness.reporting.tables.ties import NOTE, differences, mark_ties
from tests.helpers.invented_records import keep_items

WINDOWS = np.linspace(2.5, 3.5, 16)
PLACES = {name: name for name in "abcdefgh"}


def keep(results: Path, **runs: dict) -> Items:
    for place, items in runs.items():
        keep_items(results, place, items)
    return Items(results)


def losses(shift: float, noise: float = 0.02, seed: int = 1) -> dict:
    return {"perplexity/wiki": WINDOWS + shift + noise * np.random.default_rng(seed).normal(size=16)}


def cell(*runs: str, value: float, metric: str = "perplexity/wiki", **changes) -> Cell:
    return Cell(f"{value}", value=value, run_keys=runs, metric=metric, **{"protocol": "p"} | changes)


def table(*rows: Row) -> Table:
    return Table(
        "perplexity", "Perplexity", "toy", "", ("method", *["3"] * max(len(row.cells) for row in rows)), rows
    )


def column(*cells: Cell) -> list[Row]:
    return [Row(f"m{place}", "rtn", (one,)) for place, one in enumerate(cells)]


def tied(found: Table) -> list[bool]:
    return [one.tied for row in found.rows for one in row.cells]


def test_broken_models_are_neither_best_nor_tied(tmp_path):
    items = keep(tmp_path, a=losses(9, seed=1), b=losses(9.001, seed=2))
    broken = [cell("a", value=2.0e5), cell("b", value=2.1e5)]
    assert tied(mark_ties([table(*column(*broken))], items, PLACES)[0]) == [False, False]
    assert not any(row.cells[0].best for row in with_best(column(*broken), [KINDS["perplexity"]]))
    assert [
        row.cells[0].best for row in with_best(column(*broken, cell("c", value=99e3)), [KINDS["perplexity"]])
    ] == [False, False, True]


def test_what_noise_explains_is_tied_and_what_it_does_not_is_not(tmp_path):
    items = keep(tmp_path, a=losses(0, seed=1), b=losses(0.001, seed=2), c=losses(0.5, seed=3))
    found = mark_ties(
        [table(*column(cell("a", value=20.0, best=True), cell("b", value=20.02), cell("c", value=33)))],
        items,
        PLACES,
    )[0]
    assert tied(found) == [False, True, False]
    assert found.notes == (NOTE,)


def test_a_small_difference_on_every_window_is_no_tie_however_much_windows_differ(tmp_path):
    items = keep(tmp_path, a=losses(0, 0.001, 1), b=losses(0.005, 0.001, 2))
    found = mark_ties([table(*column(cell("a", value=20.0), cell("b", value=20.1)))], items, PLACES)[0]
    assert tied(found) == [False, False]
    assert found.notes == ()


def test_the_best_is_the_highest_where_more_is_better(tmp_path):
    good, bad = np.repeat([1.0, 0.0], [90, 10]), np.repeat([1.0, 0.0], [40, 60])
    near = np.roll(good, 1)
    items = keep(tmp_path, a={"acc/x": bad}, b={"acc/x": good}, c={"acc/x": near})
    cells = [cell(name, value=value, metric="acc/x") for name, value in (("a", 40), ("b", 90), ("c", 90))]
    assert tied(mark_ties([table(*column(*cells))], items, PLACES)[0]) == [False, False, True]


@pytest.mark.parametrize(
    "other",
    [
        cell("b", value=20.0, protocol="another"),
        cell("b", value=20.0, metric="perplexity/news"),
        cell("b", value=20.0, doubtful=True),
        cell("b", value=20.0, metric=""),
        cell("gone", value=20.0),
        cell("short", value=20.0),
        Cell("failed", run_keys=("b",), metric="perplexity/wiki", protocol="p"),
    ],
    ids=["protocol", "metric", "doubtful", "unnamed", "no items", "fewer items", "no value"],
)
def test_what_cannot_be_compared_stays_unmarked(tmp_path, other):
    both = losses(0)
    items = keep(
        tmp_path, a=both, b=both | {"perplexity/news": WINDOWS}, short={"perplexity/wiki": WINDOWS[:9]}
    )
    before = table(*column(cell("a", value=20.0), other))
    assert mark_ties([before], items, PLACES | {"short": "short"}) == [before]


def test_the_float_model_and_rows_of_no_method_do_not_take_part(tmp_path):
    items = keep(tmp_path, a=losses(0), b=losses(0), c=losses(1), d=losses(1))
    rows = [Row("float", "float", (cell("a", value=20.0),)), Row("bits", "", (cell("b", value=20.0),))]
    found = mark_ties([table(*rows, *column(cell("c", value=60.0), cell("d", value=60.1)))], items, PLACES)[0]
    assert tied(found) == [False, False, False, True]


def test_rows_under_another_heading_are_not_compared(tmp_path):
    items = keep(tmp_path, a=losses(0), b=losses(0), c=losses(3), d=losses(3))
    first, second = (
        column(cell("a", value=20.0), cell("b", value=20.1)),
        column(cell("c", value=400.0), cell("d", value=400.1)),
    )
    rows = [Row("one model", "", ()), *first, Row("another", "", ()), *second]
    assert tied(mark_ties([table(*rows)], items, PLACES)[0]) == [False, True, False, True]
    assert tied(mark_ties([table(*first, *second)], items, PLACES)[0]) == [False, True, False, False]


def test_seeds_are_averaged_before_they_are_compared(tmp_path):
    up, down = losses(0.3, 0, 1)["perplexity/wiki"], losses(-0.3, 0, 1)["perplexity/wiki"]
    items = keep(tmp_path, a=losses(0), b={"perplexity/wiki": up}, c={"perplexity/wiki": down})
    rows = column(cell("a", value=20.0), cell("b", "c", value=20.1))
    assert tied(mark_ties([table(*rows)], items, PLACES)[0]) == [False, True]
    assert tied(mark_ties([table(*rows)], items, {"a": "a", "b": "b"})[0]) == [False, False], (
        "c is not among the runs that count"
    )


def test_the_number_of_comparisons_counts(tmp_path):
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(30, 16))
    noise -= noise.mean(axis=1, keepdims=True)
    rows = {f"r{place}": {"perplexity/wiki": WINDOWS + one + 0.65} for place, one in enumerate(noise)}
    items = keep(tmp_path, a={"perplexity/wiki": WINDOWS}, **rows)
    places = {name: name for name in ("a", *rows)}

    def count(n: int) -> int:
        cells = [cell("a", value=1.0), *(cell(f"r{place}", value=2.0) for place in range(n))]
        return sum(tied(mark_ties([table(*column(*cells))], items, places)[0]))

    assert count(1) == 0
    assert count(30) > 15


def test_a_mean_of_tasks_weighs_tasks_not_items(tmp_path):
    a = {"acc/a": np.repeat([1.0, 0.0], [30, 20]), "acc/b": np.repeat([1.0, 0.0], [250, 250])}
    b = {"acc/a": np.repeat([1.0, 0.0], [20, 30]), "acc/b": np.roll(a["acc/b"], 3)}
    row = differences((a["acc/a"], a["acc/b"]), (b["acc/a"], b["acc/b"]))
    assert row.mean() == pytest.approx(0.1)
    errors = [np.std(a[name] - b[name], ddof=1) / len(a[name]) ** 0.5 for name in a]
    assert row.std(ddof=1) / len(row) ** 0.5 == pytest.approx(np.hypot(*errors) / 2)
    items = keep(tmp_path, a=a, b=b, c={"acc/a": a["acc/a"]})
    cells = [
        cell(name, value=value, metric="mean:acc/a,acc/b")
        for name, value in (("a", 55), ("b", 45), ("c", 55))
    ]
    assert tied(mark_ties([table(*column(*cells))], items, PLACES)[0]) == [False, False, False]


def test_the_same_whatever_the_order_of_tables_and_rows(tmp_path):
    items = keep(
        tmp_path, **{name: losses(0.01 * place, seed=place) for place, name in enumerate("abcdefgh")}
    )
    cells = {name: cell(name, value=20 + place) for place, name in enumerate("abcdefgh")}
    tables = [table(*column(*map(cells.get, names))) for names in ("abcd", "aefgh", "abcdefgh")]
    there = mark_ties(tables, items, PLACES)
    assert mark_ties(tables[::-1], items, PLACES)[::-1] == there
    turned = mark_ties([table(*tables[2].rows[::-1])], items, PLACES)[0]
    assert turned.rows[::-1] == there[2].rows


# --- columns that say nothing


def shares(*values, metric="acc/piqa", spread=2.0):
    return column(
        *(cell(f"r{n}", value=value, metric=metric, spread=spread) for n, value in enumerate(values))
    )


@pytest.mark.parametrize(
    ("rows", "won"),
    [
        (shares(0.0, 0.0, metric="acc/lambada_openai", spread=0.0), False),
        (shares(0.0, metric="acc/lambada_openai", spread=0.0), False),
        (shares(61.0, 61.0), False),
        (shares(61.0, 60.98), False),  # the same as shown
        (shares(53.9, 46.0, 50.0), False),  # of two answers: guessed
        (shares(54.1, 46.0, 50.0), True),
        (shares(54.1), True),
        (shares(28.0, 25.0, metric="acc_norm/hellaswag"), False),  # of four
        (shares(30.0, 25.0, metric="acc_norm/hellaswag"), True),
        (
            shares(3.0, 2.0, metric="acc/lambada_openai"),
            False,
        ),  # written freely, two standard errors from none
        (shares(5.0, 2.0, metric="acc/lambada_openai"), True),
        (shares(5.0, 2.0, metric="acc/somebody_s_own", spread=None), True),
        (shares(40.9, 38.0, metric="mean:acc/piqa,acc/arc_easy", spread=1.7), False),
        (shares(41.9, 38.0, metric="mean:acc/piqa,acc/arc_easy", spread=1.7), True),
    ],
)
def test_who_wins_where_nothing_is_said(rows, won):
    """Nobody where all are equal, or none is two standard errors above guessing."""
    marked = with_best(rows, [KINDS["acc"]])
    assert any(row.cells[0].best for row in marked) == won
    assert [row.cells[0].best for row in marked] == [won and n == 0 for n in range(len(rows))]


def test_equal_perplexities_have_no_best_and_tie_with_none(tmp_path):
    items = keep(tmp_path, a=losses(0), b=losses(0))
    rows = with_best(column(cell("a", value=20.0), cell("b", value=20.0)), [KINDS["perplexity"]])
    assert not any(row.cells[0].best for row in rows)
    assert tied(mark_ties([table(*rows)], items, PLACES)[0]) == [False, False]
