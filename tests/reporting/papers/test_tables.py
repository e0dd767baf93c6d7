"""Tables in the papers' shape, from fabricated records: what stands where, why a cell is empty, and that
protocols stay apart.
"""

import random
import shlex
from dataclasses import replace
from itertools import product

import pytest
import yaml

from harness.foundation.errors import UserError
from harness.reporting.cells import Cell, Notes, Row
from harness.reporting.frames import load_records
from harness.reporting.papers.parts import Column, Part
from harness.reporting.papers.published import Shape
from harness.reporting.papers.sources import Measured
from harness.reporting.papers.specs import Columns, Value
from harness.reporting.papers.tables import check_protocols, load_spec, load_specs, paper_tables
from tests.helpers.invented_records import TASK, ended, metric, record, store

W2 = (
    "wikitext2/test, 16 windows of 512 tokens, disjoint, bos=stream, float32, "
    "8176 tokens scored, text 5bb09df7"
)
OUTLIERS = {
    "scheme__outlier_ratio": 0.0,
    "scheme__outlier_structure": "unstructured",
    "scheme__act_bits": None,
}


def run(key, method="rtn", bits=3, value=None, protocol=W2, **changes):
    """A record with a perplexity on WikiText-2."""
    metrics = {} if value is None else {"perplexity/wikitext2": metric(value, 0.5, protocol)}
    return record(
        key,
        method,
        None if method == "float" else bits,
        **{"metrics": metrics, "eval__corpora": ["wikitext2"]} | changes,
    )


@pytest.fixture
def tables(tmp_path):
    """The tables that these records make of a spec: the name of one of ours, or a mapping. Those of the paper
    are left out.
    """

    def make(spec, *records, kind="paper"):
        frame = load_records(store(tmp_path / f"results{len(list(tmp_path.iterdir()))}", *records)).frame
        return [table for table in paper_tables(frame, written(tmp_path, spec)) if table.kind == kind]

    return make


def written(folder, spec):
    if isinstance(spec, str):
        return load_specs()[spec]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_spec(path)


def lines(table):
    """label -> what its cells show, headings left out; None where two lines have the same label."""
    found = {}
    for row in table.rows:
        if row.cells:
            texts = [" ".join(filter(None, (cell.text, cell.detail, cell.marks))) for cell in row.cells]
            found[row.label] = None if row.label in found else texts
    return found


def simple(**more):
    return {
        "title": "Mine",
        "rows": [{"methods": ["float", "rtn", "gptq"]}],
        "columns": [{"values": ["perplexity/wikitext2"]}],
    } | more


def test_methods_are_lines_and_schemes_are_columns(tables):
    (table,) = tables(
        "quantease-main",
        run("f", "float", value=30.0),
        run("a", "rtn", 4, 40.0),
        run("b", "gptq", 4, 38.0),
        run("c", "quantease", 3, 50.0),
        run("d", "gptq", 3, 55.0),
        run("e", "gptq", 3, 1.0, scheme__group_size=64),
    )
    assert table.head == ("method", "WikiText2", "WikiText2") and table.groups == (
        ("4 bits", 1),
        ("3 bits", 1),
    )
    shown = lines(table)
    assert list(shown) == ["float", "rtn", "awq", "gptq", "quantease"] and table.model == "toy"
    assert shown["float"][0] == shown["float"][1] == "30.00 ± 0.50"
    assert (
        shown["gptq"][0] == "38.00 ± 0.50"
        and shown["gptq"][1] == "55.00 ± 0.50"
        and shown["quantease"][1] == "50.00 ± 0.50"
    )
    best = {(row.label, place) for row in table.rows for place, cell in enumerate(row.cells) if cell.best}
    assert best == {("gptq", 0), ("quantease", 1)}
    cells = {row.label: row.cells for row in table.rows}
    assert (cells["gptq"][1].metric, cells["gptq"][1].protocol) == ("perplexity/wikitext2", W2) and cells[
        "gptq"
    ][1].run_keys == ("d",)


def test_missing_cells_say_why(tables):
    (table,) = tables(
        "quantease-main",
        run("a", "rtn", 4, 40.0),
        run("b", "rtn", 3, 60.0),
        run(
            "c",
            "gptq",
            4,
            metrics={f"perplexity/{name}": metric(39.0, None, W2) for name in ("wikitext2", "ptb")},
        ),
        ended("d", "failed", "SolveError: not positive definite", "gptq", 3, eval__corpora=["wikitext2"]),
        ended("e", "oom", None, "quantease", 4, eval__corpora=["wikitext2"]),
    )
    shown = {row.label: row.cells for row in table.rows}
    assert shown["awq"][0].why.startswith("not run: ptq-bench run model=toy method=awq scheme=w4,w3 data.")
    assert shown["quantease"][2].why.startswith(
        "not run: ptq-bench run model=toy method=quantease scheme=w3 data."
    )
    assert shown["rtn"][1].why == "run, but not evaluated on ptb: add it to eval.corpora"
    assert (
        shown["gptq"][2].text == "failed"
        and shown["gptq"][2].why == "failed: SolveError: not positive definite"
    )
    assert shown["quantease"][0].text == "oom" and shown["quantease"][0].why == "oom: no reason recorded"
    for row in table.rows:
        for cell in row.cells:
            assert cell.value is not None or any(
                note == f"{cell.detail} {cell.why}" for note in table.notes
            ), (row.label, cell)


def test_a_command_repeats_the_settings_that_the_records_share(tables):
    (table,) = tables(
        simple(),
        run("a", "rtn", 3, 40.0, scheme__range="minmax", data__samples=16),
        run(
            "b",
            "rtn",
            4,
            40.0,
            scheme__range="minmax",
            data__samples=64,
            eval__limit=None,
            eval__tasks=["$(x)", "y z"],
        ),
    )
    (why,) = {cell.why for row in table.rows for cell in row.cells if row.label == "gptq"}
    assert shlex.split(why.removeprefix("not run: ")) == [
        *("ptq-bench", "run", "model=toy", "method=gptq", "data.propagate=float", "eval.corpora=[wikitext2]")
    ]
    spec = simple(columns=[{"where": {"scheme.bits": 3}, "values": ["perplexity/wikitext2"]}])
    (table,) = tables(
        spec,
        run("a", "rtn", 3, 40.0, scheme__range="minmax", data__name="c4", eval__tasks=[], eval__name="paper"),
    )
    (why,) = {cell.why for row in table.rows for cell in row.cells if row.label == "gptq"}
    words = shlex.split(why.removeprefix("not run: "))
    assert words[:6] == ["ptq-bench", "run", "model=toy", "method=gptq", "scheme=w3", "scheme.range=minmax"]
    assert {"data=c4", "eval=paper", "eval.tasks=[]", "eval.window=512"} <= set(words)


def test_a_command_is_one_word_of_a_shell_for_every_override(tables):
    hostile = "a; touch /tmp/x $(b) 'c'"
    (table,) = tables(
        simple(), run("a", "rtn", 3, 40.0, model__id=hostile, data__name=hostile, eval__name=hostile)
    )
    (why,) = {cell.why for row in table.rows for cell in row.cells if row.label == "gptq"}
    said = ["model=hub", f"model.id={hostile}", "model.dtype=float32", "model.bos=stream", "method=gptq"]
    assert shlex.split(why.removeprefix("not run: ")) == ["ptq-bench", "run", *said]


def test_lines_that_lack_the_same_methods_share_a_command(tables):
    runs = [
        run("a", "rtn", 4, 40.0),
        run("b", "rtn", 3, 50.0),
        run("c", "rtn", 2, 60.0),
        run("d", "awq", 2, 45.0),
        run("e", "gptq", 2, 45.0),
    ]
    (table,) = tables("affinequant-weight-only", *runs)
    whys = [row.cells[0].why for row in table.rows if row.cells and row.label == "awq" and row.cells[0].why]
    assert len(whys) == 2 and "method=gptq,awq scheme=w4,w3 " in whys[0] == whys[1]
    (table,) = tables("affinequant-weight-only", *runs, run("f", "gptq", 3, 45.0))
    whys = [row.cells[0].why for row in table.rows if row.cells and row.label == "awq" and row.cells[0].why]
    assert "method=gptq,awq scheme=w4 " in whys[0] and "method=awq scheme=w3 " in whys[1]


def test_methods_that_nobody_ran_are_a_note_where_they_would_be_dashes_under_every_heading(tables):
    (table,) = tables("affinequant-weight-only", run("a", "rtn", 4, 40.0), run("b", "gptq", 3, 50.0))
    assert [row.label for row in table.rows] == ["float", "4 bits", "rtn", "gptq", "3 bits", "rtn", "gptq"]
    assert not any(note.startswith("toy: ;") for note in table.notes)
    (note,) = [note for note in table.notes if "awq" in note and "scheme=w4,w3 " in note]
    assert note.startswith(
        "toy: awq, omniquant, affinequant: not run: ptq-bench run model=toy method=awq,omniquant,affinequant "
    )
    one = run("a", "quantease", 3, 40.0, **OUTLIERS)
    (table,) = tables(
        "quantease-outliers",
        one,
        run("b", "quantease", 3, 40.0, **OUTLIERS | {"scheme__outlier_ratio": 0.01}),
    )
    (note,) = [note for note in table.notes if note.startswith("toy: spqr: not run: ")]
    assert (
        "method=spqr scheme=w3 " in note
        and "; ptq-bench run model=toy method=spqr scheme=w3 scheme.outlier_ratio=0.01 " in note
    )


def test_protocols_never_meet_in_a_column(tables):
    other = W2.replace("512", "2048")
    found = tables(
        simple(),
        run("a", "rtn", 3, 60.0),
        run("b", "gptq", 3, 50.0, other, eval__window=2048),
        ended("c", "failed", "x", "gptq", 3, eval__window=512, seed=7, eval__corpora=["wikitext2"]),
    )
    assert [table.caption for table in found] == [
        f"Protocols: WikiText2: {other}.",
        f"Protocols: WikiText2: {W2}.",
    ]
    second, first = map(lines, found)
    assert first["rtn"] == ["60.00 ± 0.50"] and first["gptq"][0].startswith("failed")
    assert second["gptq"] == ["50.00 ± 0.50"]
    assert "measured under another protocol: in a table of its own" in " ".join(found[0].notes)


def test_a_column_refuses_a_second_protocol():
    column = Column(Columns((Value("perplexity/wikitext2", "W2"),)), Value("perplexity/wikitext2", "W2"))
    part = Part("toy", None, None, (column,), {"perplexity/wikitext2": W2}, cut=frozenset({"*"}))
    rows = [
        Row("rtn", "rtn", (Cell("1", value=1.0, protocol=W2),)),
        Row("gptq", "gptq", (Cell("2", value=2.0, protocol=W2 + "!"),)),
    ]
    check_protocols([rows[:1]], [part])
    with pytest.raises(ValueError, match="two protocols in one column"):
        check_protocols([rows], [part])
    entry = run("a", "rtn", 3, 60.0, W2 + "!") | {"baseline": {}, "fallbacks": (), "method.name": "rtn"}
    with pytest.raises(ValueError, match="two protocols in one column"):
        Measured(Shape()).cell([entry], column, part, Notes(), "here")


def test_a_mean_of_two_protocols_is_no_column_of_either(tables):
    spec = simple(columns=[{"values": [{"mean": ["acc/x", "acc/y"], "label": "both"}]}])
    found = tables(
        spec,
        run("a", "rtn", metrics={"acc/x": metric(0.5, 0.1, TASK), "acc/y": metric(0.7, 0.1, TASK)}),
        run("b", "gptq", metrics={"acc/x": metric(0.5, 0.1, TASK), "acc/y": metric(0.9, 0.1, TASK + "!")}),
    )
    assert len(found) == 2


@pytest.mark.parametrize(
    ("windows", "dtype", "shared"),
    [
        (None, "float32", True),
        (16, "float32", False),
        (None, "float16", False),
        ({"wikitext2": None, "c4": 256}, "float32", True),
        ({"wikitext2": 160, "c4": None}, "float32", False),
    ],
)
def test_models_share_a_table_up_to_what_the_tokenizer_decides(tables, windows, dtype, shared):
    whole = (
        "wikitext2/test, {} windows of 512 tokens, disjoint, bos=stream, {}, {} tokens scored, text 5bb09df7"
    )
    second = {"model__name": "other", "model__fingerprint": "sha256:77", "eval__windows": windows}
    found = tables(
        simple(),
        run("a", "rtn", 3, 60.0, whole.format(141, "float32", 72051), eval__windows=windows),
        run("b", "rtn", 3, 50.0, whole.format(150, dtype, 76650), **second),
    )
    assert [table.model for table in found] == (["other, toy"] if shared else ["other", "toy"])
    if shared:
        assert [row.label for row in found[0].rows if not row.cells] == ["other", "toy"]
        assert [row.cells[0].best for row in found[0].rows if row.label == "rtn"] == [True, True], (
            "the best of each model, not of both"
        )
        assert "wikitext2/test, windows of 512 tokens" in found[0].caption


def test_configurations_become_lines_of_their_own(tables):
    records = [run(f"{place}", "gptq", 3, 50.0 + place, **changes) for place, changes in enumerate([
        {"scheme__range": "minmax"}, {"scheme__range": "search"},
        {"scheme__range": "search", "data__samples": 8},
        {"scheme__range": "search", "scheme__group_size": 64},
    ])]  # fmt: skip
    (table,) = tables(simple(where={"scheme.bits": 3}), *records)
    assert set(lines(table)) == {
        "float",
        "rtn",
        "gptq · range=minmax",
        "gptq",
        "gptq · samples=8",
        "gptq · g64",
    }
    (table,) = tables(
        simple(
            where={"scheme.bits": 3, "scheme.group_size": None, "scheme.range": "search", "data.samples": 32}
        ),
        *records,
    )
    assert lines(table)["gptq"] == ["51.00 ± 0.50"], "what the table says of its records is not said again"


def test_a_label_keeps_what_tells_lines_apart(tables):
    spec = simple(rows=[{"methods": ["gptq"], "label": "GPTQ"}])
    (table,) = tables(spec, run("a", "gptq", 3, 50.0, scheme__range="minmax"), run("b", "gptq", 3, 51.0))
    assert set(lines(table)) == {"GPTQ · range=minmax", "GPTQ · range=search"}


def test_seeds_are_one_cell(tables):
    (table,) = tables(simple(), *(run(f"s{seed}", "rtn", 3, 60.0 + 2 * seed, seed=seed) for seed in range(3)))
    assert lines(table)["rtn"] == ["62.00 ± 2.00 (n=3)"]


def test_bits_of_seeds_have_a_spread_only_where_it_shows(tables):
    spec = simple(columns=[{"values": ["bits_per_weight"]}])
    same = [run(f"a{seed}", "rtn", 3, 40.0, seed=seed, bits_per_weight=3.03 + seed / 1e6) for seed in (0, 1)]
    differ = [run(f"b{seed}", "gptq", 3, 40.0, seed=seed, bits_per_weight=3.0 + seed) for seed in (0, 1)]
    shown = lines(tables(spec, *same, *differ)[0])
    assert shown["rtn"] == ["3.03"] and shown["gptq"] == ["3.50 ± 0.71 (n=2)"]


def test_a_mean_needs_all_its_metrics(tables):
    spec = simple(columns=[{"values": ["acc/x", {"mean": ["acc/x", "acc/y"], "label": "both"}]}])
    (table,) = tables(
        spec,
        run("a", "rtn", metrics={"acc/x": metric(0.5, 0.03, TASK), "acc/y": metric(0.7, 0.04, TASK)}),
        run("b", "gptq", metrics={"acc/x": metric(0.9, 0.03, TASK)}),
    )
    shown = lines(table)
    assert shown["rtn"] == ["50.0 ± 3.0", "60.0 ± 2.5"] and shown["gptq"][1].startswith("–")
    assert any("not evaluated on y: add it to eval.tasks" in note for note in table.notes)


def test_costs_and_what_runs_do_not_record(tables):
    spec = simple(
        columns=[
            {"values": ["bits_per_weight", "hours.quantize", "peak_memory_bytes.cpu", "tokens_per_second"]}
        ]
    )
    (table,) = tables(spec, run("a", "rtn", 3, 60.0, seconds__quantize=7200.0))
    assert lines(table)["rtn"] == ["3.03", "2.0", "3.00"]
    assert any("tok/s: runs do not record the speed of decoding" in note for note in table.notes)


def test_other_corpora_stand_in_only_where_none_of_the_papers_was_measured(tables):
    wiki = {"perplexity/wiki": metric(20.0), "perplexity/news": metric(21.0)}
    (table,) = tables("quantease-main", run("a", "rtn", 4, metrics=wiki), run("b", "rtn", 3, metrics=wiki))
    assert (
        table.head == ("method", "news", "wiki", "news", "wiki")
        and "Not measured here: WikiText2, PTB" in table.caption
    )
    (table,) = tables(
        "quantease-main", run("a", "rtn", 4, metrics=wiki | {"perplexity/ptb": metric(9.0, protocol=W2)})
    )
    assert table.head == ("method", "PTB", "PTB") and any(
        "left out: WikiText2" in note for note in table.notes
    )


def test_sections_without_a_run_are_one_note(tables):
    (table,) = tables(
        "quantease-outliers", run("a", "quantease", 3, 40.0, **OUTLIERS | {"scheme__outlier_ratio": 0.01})
    )
    assert [row.label for row in table.rows if not row.cells] == ["1 % outliers"]
    (note,) = [note for note in table.notes if "no outliers; 0.5 % outliers; 2 % outliers: not run" in note]
    assert "method=spqr scheme=w3 scheme.outlier_ratio=0.005,0.02" in note


def test_tables_leave_out_empty_columns_and_say_so(tables):
    (table,) = tables("vptq-main", run("a", "vptq", 2, 40.0))
    assert table.head == ("method", "bits", "WikiText2", "quantize, h")
    (note,) = [note for note in table.notes if note.startswith("Columns left out")]
    assert "C4: no run was evaluated on it (eval.corpora)" in note and "tok/s: runs do not record" in note


def test_every_method_there_is(tables):
    (table,) = tables(
        "overview", run("a", "vptq", 3, 40.0), run("b", "rtn", 2, 50.0), run("c", "awq+gptq", 4, 45.0)
    )
    assert list(lines(table))[:2] == ["float", "rtn"] and {"vptq", "awq+gptq"} <= lines(table).keys()
    (why,) = {cell.why for row in table.rows for cell in row.cells if row.label == "vptq" and cell.why}
    assert why.startswith("not run: ptq-bench run model=toy method=vptq scheme=w4,w2 ")


def test_columns_for_each_value_of_a_field_and_none_for_what_nobody_ran(tables):
    groups = ((None, "a"), (32, "b"), (128, "c"))
    records = [run(key, "rtn", 2, 50.0, scheme__group_size=group) for group, key in groups]
    (table,) = tables("overview", *records, run("d", "gptq", 2, 45.0), run("e", "float", value=30.0))
    assert table.groups == (("2 bits", 2), ("2 bits, g128", 2), ("2 bits, g32", 2))
    shown = {row.label: row.cells for row in table.rows}
    assert list(shown) == ["float", "rtn", "gptq"] and [cell.run_keys for cell in shown["rtn"][1::2]] == [
        ("a",),
        ("c",),
        ("b",),
    ]
    missing = shown["gptq"][3]
    assert (missing.text, missing.detail) == ("–", "") and "method=gptq scheme=w2g128,w2g32 " in missing.why
    assert not any("left out" in note or "not run" in note for note in table.notes)
    many = [run(f"{group}", "rtn", 2, 50.0, scheme__group_size=group) for group in range(1, 12)]
    (table,) = tables("overview", *many)
    assert table.groups == (("2 bits", 2),) and len(table.rows) == 1 + len(many)
    spec = simple(columns=[{"each": "data.samples", "values": ["perplexity/wikitext2"]}])
    (table,) = tables(
        spec, run("a", "rtn", 3, 40.0, data__samples=16), run("b", "rtn", 3, 40.0, data__samples=64)
    )
    assert table.groups == (("samples=64", 1), ("samples=16", 1))


def test_the_float_model_comes_from_the_baseline_where_it_was_not_run(tables):
    baseline = {"run_key": "f", "metrics": {"perplexity/wikitext2": metric(30.0, None, W2)}}
    (table,) = tables(simple(), run("a", "rtn", 3, 60.0, baseline=baseline))
    assert lines(table)["float"] == ["30.00"]
    (table,) = tables(simple(), run("a", "rtn", 3, 60.0))
    assert "not run: ptq-bench run model=toy method=float" in " ".join(table.notes)


def test_bits_that_the_source_lacked_are_never_best(tables):
    (table,) = tables(simple(), run("a", "rtn", 4, 60.0, model__source_bits=4))
    assert lines(table)["rtn"] == ["60.00 ± 0.50 †"] and not any(
        cell.best for row in table.rows for cell in row.cells
    )


def test_nothing_to_show_is_no_table(tables):
    assert (
        tables("quantease-main", run("a", "float", value=30.0))
        == []
        == tables("affinequant-w4a4", run("a", "rtn", 3, 30.0))
    )
    assert tables("quantease-main", run("a", "float", value=30.0), kind="published") == []


def test_the_order_of_records_does_not_matter(tmp_path):
    records = [run(f"{method}{bits}{seed}", method, bits, 10.0 * bits + seed, seed=seed)
               for method in ("rtn", "gptq", "quantease")
               for bits in (4, 3, 2) for seed in (0, 1)]  # fmt: skip
    frame = load_records(store(tmp_path, *records)).frame
    made = {}
    for name, spec in load_specs().items():
        spec = replace(spec, paper="")
        order = random.Random(name).sample(range(len(frame)), len(frame))
        made[name] = paper_tables(frame, spec)
        assert made[name] == paper_tables(frame.iloc[order].reset_index(drop=True), spec), name
    assert made["quantease-main"] and made["overview"]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """One run of every method at every scheme and metric."""
    tasks = ("piqa", "arc_easy", "winogrande", "boolq", "arc_challenge", "hellaswag")
    metrics = {f"acc/{task}": metric(0.5, 0.1, f"{task} {TASK}") for task in tasks}
    metrics |= {
        f"perplexity/{corpus}": metric(9.0, 0.1, W2.replace("wikitext2", corpus))
        for corpus in ("wikitext2", "ptb", "c4")
    }
    shapes = [
        *product((4, 3, 2), (None, 64, 128), (None,), (0,), ("unstructured",)),
        (4, None, 4, 0, "unstructured"),
    ]
    shapes += product((3,), (None,), (None,), (0.005, 0.01, 0.02), ("unstructured", "column"))
    methods = (
        "rtn",
        "gptq",
        "spqr",
        "quantease",
        "gptvq",
        "vptq",
        "vptq_tuned",
        "smoothquant",
        "awq",
        "omniquant",
        "affinequant",
    )
    records = [
        record(f"{method}{bits}{group}{act}{ratio}{structure}", method, bits, metrics=metrics,
               scheme=dict(bits=bits, group_size=group, act_bits=act, outlier_ratio=ratio,
                           outlier_structure=structure))
        for method, (bits, group, act, ratio, structure) in product(methods, shapes)
    ]  # fmt: skip
    return load_records(
        store(tmp_path_factory.mktemp("everything"), record("f", "float", None, metrics=metrics), *records)
    ).frame


@pytest.mark.parametrize("name", load_specs())
def test_our_tables_are_rectangular_and_filled(everything, name):
    """Where everything was run, no cell of a table that we ship stays empty without a reason."""
    (table,) = [table for table in paper_tables(everything, load_specs()[name]) if table.kind == "paper"]
    assert not table.groups or sum(width for _, width in table.groups) == len(table.head) - 1
    for row in table.rows:
        assert len(row.cells) in (0, len(table.head) - 1)
        assert all(cell.value is not None or cell.why for cell in row.cells), row.label
    assert sum(bool(row.cells) for row in table.rows) >= 4 and not any(
        "not run:" in note for note in table.notes
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colums": []}, "mine.yaml: unknown key 'colums': did you mean columns?"),
        (
            {"rows": [{"methods": ["rtn"], "wher": {}}]},
            "mine.yaml: rows[0]: unknown key 'wher': did you mean where?",
        ),
        (
            {"columns": [{"values": ["perplexty/ptb"]}]},
            "mine.yaml: columns[0]: values: 'perplexty/ptb' is unknown: did you mean perplexity/ptb?",
        ),
        ({"columns": [{"values": []}]}, "mine.yaml: columns[0]: values: name at least one"),
        (
            {"columns": [{"values": [{"mean": ["acc/x"]}]}]},
            "mine.yaml: columns[0]: mean: takes two or more metrics",
        ),
        (
            {"columns": [{"values": [{"value": "acc/x", "lable": "x"}]}]},
            "unknown key 'lable': did you mean label?",
        ),
        ({"where": {"bits": 3}}, "mine.yaml: where: 'bits' is no field of a record"),
        (
            {"columns": [{"each": "bits", "values": ["perplexity/ptb"]}]},
            "mine.yaml: columns[0]: each: 'bits' is no field of a record",
        ),
        ({"where": {"scheme.bits": {}}}, "mine.yaml: where: scheme.bits: give a value or a list of values"),
        (
            {"rows": [{"methods": ["rtn", "gptq"], "label": "both"}]},
            "mine.yaml: rows[0]: label: goes with one method, not with 2",
        ),
        ({"title": 3}, "mine.yaml: title: 3 is no text"),
        ({"rows": "rtn"}, "mine.yaml: rows: give a list"),
    ],
)
def test_what_is_wrong_with_a_table_of_ones_own(tmp_path, change, message):
    with pytest.raises(UserError) as error:
        written(tmp_path, simple() | change)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "no valid yaml"),
        ("- 1", "is no mapping"),
        ("title: x", "rows is missing"),
        ("", "is no mapping"),
    ],
)
def test_no_table_at_all(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        load_spec(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load_spec(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "text", ["|&<b>\n# `$x$`", "\u202e\x00\x1b[31m", "\\input{x}%", "{=HTML}", "' OR 1=1", "😀" * 50]
)
def test_hostile_names_change_no_shape(tables, text):
    hostile = {
        "model__name": text,
        "model__id": text,
        "scheme__range": text,
        "reason": text,
        "fallbacks": [text],
    }
    found = tables(
        "quantease-main",
        run("a", "rtn", 3, 60.0, W2 + text, **hostile),
        run("b", text or "x", 3, 50.0, W2 + text, **hostile),
    )
    assert found and all(
        "\n" not in row.label and "\x1b" not in row.label for table in found for row in table.rows
    )
