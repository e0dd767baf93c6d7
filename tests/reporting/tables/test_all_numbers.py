"""Reports from fabricated records: every number, mark and reason is read back from the Markdown."""

import pytest

from harness.reporting.frames import load_records
from harness.reporting.measures import KINDS, Measurement
from harness.reporting.tables.grid import grid
from harness.reporting.tables.run_cells import FALLBACK_NOTE, Grid
from harness.reporting.writing import write_report
from tests.helpers.invented_records import (
    TASK,
    WIKI,
    Parsed,
    ended,
    headings_of,
    metric,
    parse,
    record,
    store,
)

SPQR_START = {"_target_": "methods.spqr.SpQR", "damping": 0.01}


@pytest.fixture
def report(tmp_path, numbers_alone):
    """Write a report of these records and read its tables back; `report.text` is the Markdown."""

    def make(*records: dict, **options) -> list[Parsed]:
        path = write_report(
            store(tmp_path / "results", *records), tmp_path / "reports", formats=("md",), **options
        )
        make.text = path.read_text(encoding="utf-8")
        return parse(make.text)

    return make


def test_numbers_differences_and_best(report):
    perplexity, error, cost = report(
        record("a", "float", None, metrics={"perplexity/wiki": metric(30.0, 0.9)}),
        record("b", "rtn", 3, metrics={"perplexity/wiki": metric(120.4, 3.6)}),
        record("c", "gptq", 3, metrics={"perplexity/wiki": metric(52.1, 1.56)}),
        record("d", "rtn", 2, 85321.4),
        record("e", "gptq", 2, 1.2e6, layer_error__mean=0.5),
    )
    assert (perplexity.title, perplexity.model, perplexity.head) == (
        "Perplexity on wiki",
        "toy",
        ["method", "3", "2"],
    )
    assert perplexity.caption == f"Lower is better. Protocol: {WIKI}"
    assert list(perplexity.rows) == ["float", "rtn", "gptq", "bits per weight"]
    assert perplexity.rows["float"] == ["30.00 ± 0.90"] * 2
    assert perplexity.rows["rtn"] == ["120.4 ± 3.6 (+90.4)", "85321 (+85291)"]
    assert perplexity.rows["gptq"] == ["52.10 ± 1.56 (+22.10)", "1.2e6 (+1.2e6)"]
    assert perplexity.rows["bits per weight"] == ["3.03", "2.03"]
    assert perplexity.bold == {("gptq", "3"), ("rtn", "2")}
    assert error.title == "Layer error" and "float" not in error.rows
    assert error.rows["gptq"] == ["0.0123", "0.500"] and error.bold == {("rtn", "2")}, "nobody among equals"
    assert cost.head == [
        "method",
        "bits",
        "bits per weight",
        "quantize, s",
        "whole run, s",
        "peak memory, GiB",
    ]
    assert cost.rows["rtn"] == ["3", "3.030", "3.2", "10.0", "3.00"] and cost.rows["gptq 2"][0] == "2"


def test_accuracies_are_percent_and_more_is_better(report):
    tables = report(
        record("a", "float", None, metrics={"acc/analogies": metric(0.5, 0.05, TASK)}),
        record("b", "rtn", 3, metrics={"acc/analogies": metric(0.41, 0.049, TASK)}),
        record("c", "gptq", 3, metrics={"acc/analogies": metric(0.4504, 0.05, TASK)}),
        record("d", "quantease", 3, metrics={"acc/analogies": metric(0.4496, 0.05, TASK)}),
    )
    assert tables[0].title == "Accuracy on analogies"
    assert tables[0].rows["rtn"] == ["41.0 ± 4.9 (−9.0)"]
    assert tables[0].bold == {("gptq", "3"), ("quantease", "3")}, "they round to the same number"


def test_an_unknown_metric_has_no_best_cell(report):
    tables = report(
        record("a", metrics={"surprise/x": metric(1.5)}),
        record("b", "gptq", metrics={"surprise/x": metric(2.5)}),
    )
    assert (
        tables[0].title == "surprise on x" and tables[0].bold == set() and tables[0].rows["rtn"] == ["1.500"]
    )


def test_rows_are_called_after_what_varies(report):
    start = {"_target_": "methods.quantease.QuantEase", "sweeps": 30}
    rows = report(
        record(
            "a",
            "gptq",
            3,
            50.0,
            method__solver={"_target_": "methods.gptq.GPTQ", "damping": 0.01, "act_order": True},
        ),
        record(
            "b",
            "gptq",
            3,
            51.0,
            method__solver={"_target_": "methods.gptq.GPTQ", "damping": 0.1, "act_order": True},
        ),
        record("c", "quantease", 3, 52.0, method__solver=start | {"start": None}),
        record("d", "quantease", 3, 53.0, method__solver=start | {"start": SPQR_START}),
        record("e", "rtn", 3, 54.0, scheme__range="minmax"),
        record(
            "f",
            "rtn",
            3,
            55.0,
            scheme__range="minmax",
            scheme__zero_point="float",
            data__window=64,
            scheme__group_size=32,
        ),
    )[0]
    assert set(rows.rows) - {"bits per weight"} == {
        "gptq · range=search · damping=0.01",
        "gptq · range=search · damping=0.1",
        "quantease · range=search · start=none",
        "quantease · range=search · start=spqr",
        "rtn · range=minmax",
        "rtn · window=64 · range=minmax · zero_point=float",
    }, (
        "fields of one method do not leak to another; what nearly all share is said once; the start's own fields are implied"  # noqa: E501
    )
    assert rows.caption.endswith("Where a row does not say: window=512 · zero_point=integer")
    assert rows.head == ["method", "3", "3 g32"]


def test_fields_nobody_has_heard_of_and_equal_names(report):
    outer = {"_target_": "methods.new.New", "rank": 8, "inner": {"rank": 1}}
    rows = report(
        record("a", "new", 3, 5.0, method__solver=outer, scheme__sparkle=True),
        record("b", "new", 3, 6.0, method__solver=outer | {"rank": 16}, scheme__sparkle=False),
        record("c", "new", 3, 7.0, method__solver=outer | {"inner": {"rank": 2}}, scheme__sparkle=False),
    )[0].rows
    assert set(rows) - {"bits per weight"} == {
        "new · sparkle=true · inner.rank=1 · solver.rank=8",
        "new · sparkle=false · inner.rank=1 · solver.rank=16",
        "new · sparkle=false · inner.rank=2 · solver.rank=8",
    }


def test_columns_run_from_many_bits_to_few_and_from_channels_to_narrow_groups(report):
    shapes = [(2, None), (4, 32), (4, None), (3, 64), (4, 128), (8, None), (3, None)]
    tables = report(
        *(
            record(f"{place}", "rtn", bits, 40.0, scheme__group_size=group)
            for place, (bits, group) in enumerate(shapes)
        )
    )
    assert tables[0].head[1:] == ["8", "4", "4 g128", "4 g32", "3", "3 g64", "2"]


def test_missing_cells_say_why(report):
    tables = report(
        record("a", "float", None, 30.0),
        record("b", "rtn", 3, 60.0),
        ended("c", "failed", "SolveError: layers.0.q (4, 8): not positive definite", "gptq", 3),
        ended("d", "skipped", "needs groups", "quantease", 3),
        ended("e", "oom", "out of memory", "gptq", 2),
        ended("f", "diverged", None, "rtn", 2),
        record("g", "quantease", 2, "inf"),
    )
    rows, notes = tables[0].rows, tables[0].notes
    assert rows["rtn"] == ["60.00 (+30.00)", "diverged ¹"]
    assert rows["gptq"] == ["failed ²", "oom ³"]
    assert rows["quantease"] == ["skipped ⁴", "inf"]
    assert "¹ diverged: no reason recorded" in notes and "⁴ skipped: needs groups" in notes
    assert "² failed: SolveError: layers.0.q (4, 8): not positive definite" in notes
    assert tables[0].bold == {("rtn", "3")}
    assert tables[1].rows["gptq"] == ["failed ²", "oom ³"], "the layer errors say it too"
    assert "**Runs:** 7 records: 3 done, 1 diverged, 1 oom, 1 failed, 1 skipped" in report.text


def test_what_was_not_run_is_a_dash(report):
    tables = report(record("a", "rtn", 3, 60.0), record("b", "gptq", 2, 60.0))
    assert tables[0].rows["rtn"][1] == tables[0].rows["gptq"][0] == "–"


def test_a_failed_run_appears_only_with_its_own_evaluation(report):
    tables = report(
        record("a", "rtn", 3, 60.0),
        record(
            "b", "rtn", 3, metrics={"perplexity/wiki": metric(61.0, protocol="64 windows")}, eval__windows=64
        ),
        ended("c", "failed", "x", "gptq", 3, eval__windows=64),
    )
    assert ["gptq" in table.rows for table in tables[:2]] == [True, False] and "64 windows" in tables[
        0
    ].caption


def test_two_protocols_never_share_a_table(report):
    other = WIKI.replace("16", "64")
    records = [
        record("a", "rtn", 3, 60.0),
        record("b", "gptq", 3, metrics={"perplexity/wiki": metric(50.0, protocol=other)}),
    ]
    first, second = report(*records)[:2]
    assert (first.caption.endswith(WIKI), second.caption.endswith(other)) == (True, True)
    assert "gptq" not in first.rows and "rtn" not in second.rows


def test_a_table_refuses_a_second_protocol(tmp_path):
    frame = load_records(store(tmp_path, record("a", "rtn"), record("b", "gptq"))).frame
    numbers = [Measurement(60.0, None, "one"), Measurement(50.0, None, "two")]
    with pytest.raises(ValueError, match="two protocols"):
        grid(frame, numbers, Grid(KINDS["perplexity"], "t", "m", "one", None))
    with pytest.raises(ValueError, match="two protocols"):
        grid(frame, numbers[:1] * 2, Grid(KINDS["perplexity"], "t", "m", "one", numbers[1]))


def test_layer_errors_of_two_calibrations_never_share_a_table(report):
    tables = [
        t
        for t in report(record("a", "rtn"), record("b", "gptq", data__samples=64))
        if t.title == "Layer error"
    ]
    assert [set(table.rows) & {"rtn", "gptq"} for table in tables] == [{"rtn"}, {"gptq"}]


def test_the_baseline_stands_in_for_the_float_record_under_the_same_protocol_only(report):
    baseline = {
        "run_key": "f",
        "metrics": {"perplexity/wiki": metric(30.0), "acc/analogies": metric(0.5, None, TASK)},
    }
    accuracy = {"acc/analogies": metric(0.4, None, TASK + "!"), "perplexity/wiki": metric(60.0)}
    perplexity, with_baseline_only, measured = report(
        record("a", "rtn", 3, metrics=accuracy, baseline=baseline)
    )[:3]
    assert perplexity.rows["float"] == ["30.00"] and perplexity.rows["rtn"] == ["60.00 (+30.00)"]
    assert "float" not in measured.rows and measured.rows["rtn"] == ["40.0"]
    assert with_baseline_only.rows == {"float": ["50.0"]}


def test_seeds_are_averaged(report):
    runs = [record(f"s{seed}", "rtn", 3, value, seed=seed) for seed, value in enumerate((60.0, 62.0, 64.0))]
    lost = [
        record("g0", "gptq", 3, 50.0),
        record("g1", "gptq", 3, 52.0, seed=1),
        ended("g2", "failed", "x", "gptq", 3, seed=2),
    ]
    table = report(record("f", "float", None, 30.0), *runs, *lost)[0]
    assert table.rows["rtn"] == ["62.00 ± 2.00 (n=3) (+32.00)"]
    assert table.rows["gptq"] == ["51.00 ± 1.41 (n=2 of 3)¹ (+21.00)"]


def test_the_same_configuration_and_seed_with_two_answers_is_marked(report):
    table = report(
        record("a", "rtn", 3, 60.0),
        record("b", "rtn", 3, 61.0),
        record("c", "gptq", 3, 50.0),
        record("d", "gptq", 3, 50.0),
    )[0]
    assert table.rows["rtn"] == ["60.00 ‡"] and table.rows["gptq"] == ["50.00"]
    assert any(note.startswith("‡ rtn at 3") and "60.00, 61.00" in note for note in table.notes)


def test_bits_that_the_source_already_lacked_are_marked_and_never_best(report):
    runs = [
        record(f"{m}{b}", m, b, better + b, model__source_bits=4)
        for m, better in {"rtn": 30.0, "gptq": 29.0}.items()
        for b in (8, 4, 3)
    ]
    table = report(*runs)[0]
    assert table.rows["rtn"] == ["38.00 †", "34.00 †", "33.00"] and table.bold == {("gptq", "3")}
    assert any(note.startswith("†") and "4 bits" in note and "not evidence" in note for note in table.notes)


def test_fallbacks_mark_the_row_and_the_cell(report):
    fallbacks = [f"layers.{n}.q: damping raised to 0.1" for n in range(5)]
    table = report(record("a", "gptq", 3, 50.0, fallbacks=fallbacks), record("b", "gptq", 2, 90.0))[0]
    assert table.rows["gptq *"] == ["50.00 *", "90.00"]
    assert [note for note in table.notes if note.startswith("*")] == [FALLBACK_NOTE]
    assert "layers.2.q" in report.text and "layers.3.q" not in report.text and "and 2 more" in report.text


def test_different_true_sizes_in_one_column_are_shown(report):
    spqr = record("b", "spqr", 3, 50.0, bits_per_weight=3.61, outlier_share=0.01)
    table = report(record("a", "rtn", 3, 60.0), spqr, record("c", "gptq", 3, 55.0))
    assert table[0].rows["rtn"] == ["60.00"] and table[0].rows["spqr"] == ["50.00 @3.61"]
    assert table[0].rows["bits per weight"] == ["3.03 or @"] and table[2].rows["spqr"][2] == "1.00"


@pytest.mark.parametrize(("one", "said"), [(1.0, "1"), (True, "true")])
def test_a_number_is_the_same_with_and_without_a_point(report, one, said):
    def new(key, bits, stability):
        return record(
            key, "new", bits, 50.0, method__solver={"_target_": "methods.new.New", "stability": stability}
        )

    rows = report(new("a", 4, one), new("b", 3, 1), new("c", 3, 0.1))[0].rows
    assert set(rows) - {"bits per weight"} == {f"new · stability={text}" for text in ("0.1", "1", said)}


def test_bytes_make_a_model_and_names_do_not(report):
    other, base = "sha256:77", record("f", "float", None, 30.0, model__name="also-toy", model__source_bits=4)
    runs = [record("a", "rtn", 3, 60.0), record("b", "rtn", 3, 61.0, model__dtype="bfloat16"),
            record("c", "rtn", 3, 7.0, model__name="big", model__fingerprint=other)]  # fmt: skip
    tables = report(base, *runs)
    assert headings_of(report.text, 3)[-3:] == ["also-toy", "big", "toy"] and tables[0].rows["rtn"] == [
        "60.00 (+30.00)"
    ]


def test_namesakes_are_told_apart(report):
    report(record("a", "rtn", 3, 60.0), record("b", "rtn", 3, 61.0, model__bos="window"))
    assert headings_of(report.text, 3)[-2:] == ["toy · bos=stream", "toy · bos=window"]


def test_a_selection_of_runs(report):
    tables = report(record("a", "rtn", 3, 60.0), record("b", "gptq", 3, 50.0), select=["a", "nowhere"])
    assert "gptq" not in tables[0].rows and "- runs/nowhere: not run yet" in report.text
    assert "**Runs:** 1 record: 1 done" in report.text


SCHEME = {"bits": 3, "group_size": None, "symmetric": False, "zero_point": "integer", "range": "search"}
PLAIN = SCHEME | {
    "scale_bits": None,
    "scale_group_size": 16,
    "outlier_ratio": 0.0,
    "outlier_structure": "unstructured",
}


def test_outliers_have_words_of_their_own(report):
    perplexity, _, cost = report(
        record("a", "rtn", 3, 60.0, scheme=SCHEME),  # from before there were outliers
        # idle: the ratio is 0
        record("b", "rtn", 2, 70.0, scheme=PLAIN | {"bits": 2, "outlier_structure": "column"}),
        record("c", "spqr", 3, 40.0, scheme=PLAIN),
        record("d", "spqr", 3, 30.0, scheme=PLAIN | {"outlier_ratio": 0.01}, outlier_share=0.0098),
        record(
            "e",
            "spqr",
            3,
            35.0,
            scheme=PLAIN | {"outlier_ratio": 0.005, "outlier_structure": "column"},
            outlier_share=0.0052,
        ),
    )
    labels = {"rtn", "spqr", "spqr · 1 % outliers · unstructured", "spqr · 0.5 % outliers · columns"}
    assert set(perplexity.rows) - {"bits per weight"} == labels
    assert perplexity.rows["rtn"][0].startswith("60.00") and perplexity.rows["rtn"][1].startswith("70.00")
    assert (
        cost.cell("spqr · 1 % outliers · unstructured", "outliers, %") == "0.98"
        and cost.cell("spqr", "outliers, %") == "0.00"
    )


def test_one_structure_goes_without_saying(report):
    rows = report(
        record("a", "spqr", 3, 40.0, scheme=PLAIN),
        record("b", "spqr", 3, 30.0, scheme=PLAIN | {"outlier_ratio": 0.01}),
        record("c", "spqr", 3, 29.0, scheme=PLAIN | {"outlier_ratio": 0.02}),
    )[0].rows
    assert set(rows) - {"bits per weight"} == {"spqr", "spqr · 1 % outliers", "spqr · 2 % outliers"}


def test_no_column_for_outliers_where_there_are_none(report):
    cost = report(record("a", "rtn", 3, 60.0, scheme=PLAIN))[-1]
    assert "outliers, %" not in cost.head


def test_coarse_scales_stand_in_the_head_of_their_column(report):
    groups = PLAIN | {"group_size": 16, "zero_point": "float"}
    perplexity = report(
        record("a", "gptq", 3, 60.0, scheme=PLAIN | {"zero_point": "float"}),
        record("b", "gptq", 3, 50.0, scheme=groups),
        record("c", "gptq", 3, 55.0, scheme=groups | {"scale_bits": 3}),
        record("d", "gptq", 3, 56.0, scheme=groups | {"scale_bits": 3, "scale_group_size": 32}),
    )[0]
    assert perplexity.head == ["method", "3", "3 g16", "3 g16 s3"]
    assert set(perplexity.rows) - {"bits per weight"} == {
        "gptq",
        "gptq · scale_group_size=16",
        "gptq · scale_group_size=32",
    }


def test_a_skipped_point_shows_its_reason(report):
    """As a run that its method refuses leaves it."""
    perplexity = report(
        record("a", "spqr", 3, 40.0, scheme=PLAIN | {"outlier_ratio": 0.01}),
        ended(
            "b",
            "skipped",
            "rounding to nearest keeps no outliers",
            "rtn",
            scheme=PLAIN | {"outlier_ratio": 0.01},
        ),
    )[0]
    assert perplexity.rows["rtn"] == ["skipped ¹"]
    assert perplexity.notes == ["¹ skipped: rounding to nearest keeps no outliers"]
