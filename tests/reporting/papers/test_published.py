"""Published numbers: what the file holds, and when a number of a paper stands beside a measured one."""

import csv
import re
from importlib.resources import files

import pytest

from harness.reporting.frames import load_records
from harness.reporting.papers import reference
from harness.reporting.papers.published import differences
from harness.reporting.papers.reference import hub_models, printed_numbers
from harness.reporting.papers.tables import as_published, load_specs, paper_tables
from tests.helpers.invented_records import metric, record, store

WHOLE = (
    "wikitext2/test, 140 windows of 2048 tokens, disjoint, bos=stream, float16, "
    "286580 tokens scored, text 5bb09df7"
)
SCHEME = {"group_size": None, "outlier_ratio": 0.0, "outlier_structure": "unstructured", "act_bits": None}
C4 = {"name": "c4", "samples": 128, "window": 2048}


def run(
    key,
    method,
    bits,
    value,
    model="facebook/opt-1.3b",
    protocol=WHOLE,
    name="perplexity/wikitext2",
    **changes,
):
    own = {"scheme": SCHEME | {"bits": bits}, "data": C4} if method != "float" else {}
    metrics = {name: metric(value, None, protocol)}
    return record(
        key, method, bits, **{"metrics": metrics, "model__id": model, "eval__windows": None} | own | changes
    )


@pytest.fixture
def table(tmp_path):
    def make(name, *records):
        frame = load_records(store(tmp_path, *records)).frame
        return next(table for table in paper_tables(frame, load_specs()[name]) if table.kind == "paper")

    return make


def cell_of(table, label, place):
    (row,) = [row for row in table.rows if row.label == label]
    return row.cells[place]


def rows():
    return list(
        csv.DictReader(
            files("reports.reference").joinpath("published.csv").read_text(encoding="utf-8").splitlines()
        )
    )


def test_the_file_holds_only_what_papers_print():
    forbidden = re.compile(
        r"suspect|inferred|copy|memory|community|stored-index|second-hand|file id", re.IGNORECASE
    )
    for row in rows():
        assert not forbidden.search(" ".join((row["table"], row["method"], row["setting"], row["source"]))), (
            row
        )
        assert (
            row["source"].startswith(("github.com/", "AffineQuant, ICLR 2024", "VPTQ (arXiv"))
            and "/work" not in row["source"]
        )
        assert row["value"] == "NaN" or float(row["value"]) >= 0
        assert ("plot" in row["note"]) == (row["table"] == "README figure")
    assert {row["model"] for row in rows()} <= set(hub_models().values())
    assert len(printed_numbers()) > 1500 and {one.paper for one in printed_numbers()} >= {
        "QuantEase",
        "VPTQ",
        "AffineQuant",
        "GPTQ",
    }


@pytest.mark.parametrize(
    ("paper", "model", "method", "bits", "group", "metric", "value"),
    [
        ("QuantEase", "OPT-1.3B", "quantease", "3", "", "ppl(seqlen2048)", "21.30"),
        ("AffineQuant", "OPT-125M", "affinequant", "3", "", "ppl(seqlen2048)", "30.56"),
        ("VPTQ", "LLaMA-2-7B", "vptq", "2.02", "", "ppl(seqlen4096)", "6.13"),
        ("GPTQ", "LLaMA-7B", "gptq", "3", "128", "ppl(seqlen2048)", "6.61"),
    ],
)
def test_numbers_of_the_file(paper, model, method, bits, group, metric, value):
    wanted = (paper, model, method, bits, group, metric)
    names = ("paper", "model", "ours", "bits", "group", "metric")
    plain = [row for row in rows() if row["dataset"] == "WikiText2" and not float(row["outlier"] or 0)]
    found = [row["value"] for row in plain if tuple(row[name] for name in names) == wanted]
    assert value in found


def test_where_everything_agrees_the_difference_is_shown(table):
    found = table(
        "quantease-main",
        run("f", "float", None, 14.62),
        run("a", "quantease", 3, 21.34),
        run("b", "quantease", 4, 15.20),
    )
    three, four, plain = (
        cell_of(found, "quantease", 1),
        cell_of(found, "quantease", 0),
        cell_of(found, "float", 0),
    )
    assert (three.published, round(three.gap, 6)) == (
        21.30,
        0.04,
    ) and three.detail == "[published 21.30, +0.04]"
    assert four.detail == "[published 15.28, −0.08]" and plain.detail == "[published 14.62, 0.00]"


@pytest.mark.parametrize(
    ("windows", "differs"),
    [
        ({"eval.windows": 256}, False),
        ({"eval.windows.c4": 256, "eval.windows.ptb": None}, False),
        ({"eval.windows": None}, False),
        ({"eval.windows.c4": 16, "eval.windows.ptb": None}, True),
        ({"eval.windows": 16}, True),
    ],
)
def test_c4_is_read_in_256_windows(windows, differs):
    one = next(one for one in printed_numbers() if one.metric == "perplexity/c4" and one.window == 2048)
    protocol = WHOLE.replace("wikitext2", "c4").replace("140", "16")
    assert ("256 windows, not 16 windows" in differences(one, windows, protocol)) == differs


@pytest.mark.parametrize(
    ("protocol", "changes", "words"),
    [
        (WHOLE.replace("2048", "512"), {}, "windows of 2048 tokens, not 512"),
        (WHOLE.replace("140", "16"), {"eval__windows": 16}, "the whole text, not 16 windows"),
        (WHOLE.replace("float16", "float32"), {}, "float16, not float32"),
        (WHOLE.replace("bos=stream", "bos=window"), {}, "one stream of text, not a BOS in every window"),
        ("what nobody can read", {}, "conditions that cannot be compared"),
    ],
)
def test_where_only_the_protocol_differs_there_is_no_difference(table, protocol, changes, words):
    found = table("quantease-main", run("a", "quantease", 3, 21.34, protocol=protocol, **changes))
    cell = cell_of(found, "quantease", 1)
    assert cell.published == 21.30 and cell.gap is None and cell.detail.startswith("[published 21.30")
    (note,) = [note for note in found.notes if "another protocol" in note]
    assert words in note and note[0] in cell.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"model__id": "facebook/opt-350m"},
        {"model__id": "somebody/opt-1.3b-tuned"},
        {"scheme__group_size": 128},
        {"scheme__outlier_ratio": 0.02},
        {"scheme__scale_bits": 3},
        {"scheme__bits": 2},
    ],
)
def test_another_model_or_scheme_has_no_published_number(tmp_path, changes):
    entry = run("a", "quantease", 3, 21.34)
    before = {cell.published for cell in measured_cells(store(tmp_path / "before", entry))}
    for path, value in changes.items():
        group, field = path.split("__")
        entry[group] = entry[group] | {field: value}
    cells = measured_cells(store(tmp_path / "after", entry))
    assert 21.30 in before and cells and {cell.published for cell in cells} == {None}


def measured_cells(results):
    """The cells with the run's number, in all tables of the papers."""
    frame = load_records(results).frame
    found = [
        table
        for spec in load_specs().values()
        for table in paper_tables(frame, spec)
        if table.kind == "paper"
    ]
    return [cell for table in found for row in table.rows for cell in row.cells if cell.value == 21.34]


def test_another_calibration_is_told_and_does_not_block(table):
    found = table(
        "quantease-main", run("a", "quantease", 3, 21.30, data={"name": "wiki", "samples": 32, "window": 512})
    )
    cell = cell_of(found, "quantease", 1)
    (note,) = [
        note
        for note in found.notes
        if "calibrates on C4, 128 samples of 2048 tokens; this run did not" in note
    ]
    assert (
        cell.gap == pytest.approx(0)
        and cell.detail.startswith("[published 21.30, 0.00")
        and note[0] in cell.detail
    )


@pytest.mark.parametrize(
    ("structure", "label", "value"),
    [("unstructured", "unstructured", 16.25), ("column", "structured", 18.51)],
)
def test_outliers_are_told_apart(table, structure, label, value):
    scheme = SCHEME | {"bits": 3, "outlier_ratio": 0.01, "outlier_structure": structure}
    found = table("quantease-outliers", run("a", "quantease", 3, 17.0, scheme=scheme))
    assert cell_of(found, f"quantease, {label}", 1).published == value


def test_stored_bits_decide_where_a_paper_has_no_scheme(table):
    wide = WHOLE.replace("2048", "4096")
    found = table(
        "vptq-main",
        run("a", "vptq", 2, 6.20, "meta-llama/Llama-2-7b-hf", wide, bits_per_weight=2.03),
        run("b", "gptq", 2, 9.0, "meta-llama/Llama-2-7b-hf", wide, bits_per_weight=2.5),
    )
    assert cell_of(found, "vptq", 1).published == 6.13 and cell_of(found, "vptq", 1).gap == pytest.approx(
        0.07
    )
    assert cell_of(found, "gptq", 1).published is None


def test_zero_shot_tasks_of_old_versions_are_another_protocol(table):
    scheme = SCHEME | {"bits": 4, "act_bits": 4}
    protocol = "lm-eval 0.4.13, piqa v1.0, 0-shot, all 1838 items, bos=stream, float16, text 147d77bd"
    found = table(
        "affinequant-w4a4",
        run("a", "affinequant", 4, 0.69, "huggyllama/llama-7b", protocol, "acc/piqa", scheme=scheme),
    )
    (cell,) = [
        cell
        for row in found.rows
        if row.label == "affinequant"
        for cell in row.cells
        if cell.metric == "acc/piqa"
    ]
    assert (
        cell.published == 69.37
        and cell.gap is None
        and any("unstated version of lm-eval" in note for note in found.notes)
    )


def test_texts_whose_variant_a_paper_leaves_open_are_another_protocol(table):
    protocol = WHOLE.replace("wikitext2", "ptb")
    found = table("affinequant-weight-only",
                  run("f", "float", None, 32.5, "facebook/opt-125m", protocol, "perplexity/ptb"),
                  run("a", "rtn", 3, 40.0, "facebook/opt-125m", protocol, "perplexity/ptb"))  # fmt: skip
    cell = cell_of(found, "float", 0)
    assert cell.published == 32.54 and cell.gap is None


def test_the_papers_own_table():
    (table,) = as_published(load_specs()["quantease-outliers"])
    shown, model = {}, ""
    for row in table.rows:
        model = model if row.cells else row.label
        if row.cells:
            shown[model, row.label] = [cell.text for cell in row.cells]
    assert shown["OPT-1.3B · 1 % outliers", "quantease, unstructured"] == ["16.25"]
    assert shown["BLOOM-1B7 · no outliers", "float"] == ["15.39"]
    assert (
        table.kind == "published"
        and "github.com/linkedin/QuantEase, README.md" in table.caption
        and table.notes == ()
    )


def test_what_papers_print_as_nan_stays_nan():
    (table,) = as_published(load_specs()["affinequant-stability"])
    assert any(cell.text == "NaN" and cell.value is None for row in table.rows for cell in row.cells)


def test_without_the_file_there_are_no_published_numbers(tmp_path, monkeypatch):
    def gone(_):
        raise ModuleNotFoundError

    frame = load_records(store(tmp_path, run("a", "quantease", 3, 21.34))).frame
    monkeypatch.setattr(reference, "files", gone)
    clear()
    try:
        (table,) = paper_tables(frame, load_specs()["quantease-main"])
        assert (
            cell_of(table, "quantease", 1).detail == "" and cell_of(table, "quantease", 1).published is None
        )
    finally:
        monkeypatch.undo()
        clear()


def clear():
    from harness.reporting.papers import published

    for cached in (printed_numbers, hub_models, published._of_shape):
        cached.cache_clear()
