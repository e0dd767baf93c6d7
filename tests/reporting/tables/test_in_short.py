"""The first chapter of a report: what was run, how the claims fared, who leads at each width."""

import pytest

from harness.records.measurements import Items
from harness.reporting.document import Facts
from harness.reporting.frames import load_records
from harness.reporting.tables.all_numbers import build_tables
from harness.reporting.tables.in_short import MODELS, in_short
from harness.reporting.tables.ties import mark_ties
from tests.helpers.invented_records import ended, keep_items, metric, record, store


@pytest.fixture
def chapter(tmp_path):
    """(facts, tables) of the chapter that these records make."""

    def make(*records, items=None, claims="", results=tmp_path / "results"):
        frame = load_records(store(results, *records)).frame
        for key, values in (items or {}).items():
            keep_items(results, key, {"perplexity/wiki": values})
        places = dict(zip(frame["run_key"], frame["place"], strict=True))
        facts, *tables = in_short(
            frame, mark_ties(build_tables(frame), Items(results), places), claims
        ).blocks
        assert isinstance(facts, Facts)
        return dict(facts.entries), tables

    return make


def shown(table):
    return {
        row.label: [" ".join(filter(None, (cell.text, cell.detail, cell.marks))) for cell in row.cells]
        for row in table.rows
    }


def test_the_leader_of_each_width_and_the_one_behind_it(chapter):
    facts, (table,) = chapter(
        record("f", "float", None, 20.0),
        record("a", "rtn", 4, 30.0),
        record("b", "gptq", 4, 25.0),
        record("c", "rtn", 3, metrics={"perplexity/wiki": metric(90.0, 5.0)}),
        record("d", "gptq", 3, bits_per_weight=4.5, metrics={"perplexity/wiki": metric(60.0, 4.0)}),
        record("e", "vptq", 3, 75.0),
        record("g", "rtn", 2, 5e5),
        ended("h", "failed", "no", "gptq", 2),
        claims="Of 3 claims 1 holds.",
    )
    assert facts == {
        "Runs": ("8 records: 7 done, 1 failed",),
        "Models": ("toy",),
        "Claims": ("Of 3 claims 1 holds.",),
    }
    assert (
        table.model == "toy"
        and "Perplexity on wiki" in table.caption
        and "20.00" in table.caption
        and "16 windows" in table.caption
    )
    assert shown(table) == {
        "4": ["gptq", "25.00", "×1.25", "4.03", "rtn", "30.00"],
        "3": ["gptq", "60.00 ± 4.00", "×3", "4.50", "vptq", "75.00"],
        "2": ["nothing is ranked", "–", "–", "–", "–", "–"],
    }
    assert not any(note.startswith("*") for note in table.notes)
    best = table.rows[1].cells[1]
    assert (
        best.best
        and best.run_keys == ("d",)
        and best.protocol
        and any("Beyond 100,000" in note for note in table.notes)
    )


def test_weights_that_came_with_few_bits_are_not_ranked(chapter):
    records = [
        record(key, method, bits, bits * 10.0, model__source_bits=4)
        for key, method, bits in (("a", "rtn", 4), ("b", "rtn", 3))
    ]
    facts, (table,) = chapter(*records)
    assert facts["Models"] == ("toy (came with 4-bit weights: rankings from there on are no evidence)",)
    assert (
        shown(table)["4"][0] == "nothing is ranked †"
        and shown(table)["3"][:2] == ["rtn", "30.00"]
        and shown(table)["3"][4] == "–"
    )
    assert any(note.startswith("†") for note in table.notes)


def test_a_leader_that_did_not_go_as_asked_says_so(chapter):
    _, (table,) = chapter(record("a", "rtn", 3, 30.0, fallbacks=["layer 1: damped"]))
    assert shown(table)["3"][0] == "rtn *" and any(note.startswith("* ") for note in table.notes)


def test_ties_and_seeds_show(chapter):
    noise = [0.1 * (-1) ** window for window in range(16)]
    records = [
        record("a", "rtn", 3, 31.0),
        *(record(f"b{seed}", "gptq", 3, 30.0 + seed, seed=seed) for seed in (0, 1)),
    ]
    _, (table,) = chapter(
        *records,
        items={"a": [3.4 + x for x in noise], "b0": [3.4 - x for x in noise], "b1": [3.4 - x for x in noise]},
    )
    (cells,) = [row.cells for row in table.rows]
    assert cells[1].detail == "± 0.71 (n=2)" and cells[5].tied and not cells[1].tied
    assert any(note.startswith("≈") for note in table.notes)


def test_each_model_has_a_table_of_the_text_it_was_measured_on_most(chapter):
    found = {f"perplexity/{name}": metric(40.0, protocol=f"{name}/test") for name in ("c4", "wiki")}
    _, (table,) = chapter(
        record("a", "rtn", 3, metrics=found),
        record("b", "rtn", 4, metrics={"perplexity/wiki": found["perplexity/wiki"]}),
    )
    assert table.caption.startswith("Perplexity on wiki. ") and list(shown(table)) == ["4", "3"]


def test_many_models_do_not_make_a_long_chapter(chapter):
    names = [f"model-{place}" for place in range(MODELS + 2)]
    _, tables = chapter(
        *(
            record(name, "rtn", 3, 40.0, model__name=name, model__fingerprint=f"sha256:{name}")
            for name in names
        )
    )
    assert [table.model for table in tables] == names[:MODELS]


def test_without_perplexities_there_are_only_the_facts(chapter):
    facts, tables = chapter(record("a", "rtn", 3), record("f", "float", None, 20.0))
    assert tables == [] and facts["Runs"] == ("2 records: 2 done",) and "Claims" not in facts
