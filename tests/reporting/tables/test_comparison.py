import io
import subprocess
import sys

import pandas as pd
import pytest

from harness.commands.compare import main, parse
from harness.foundation.errors import UserError
from harness.reporting.tables.comparison import compare
from harness.reporting.tables.run_lookup import find_run
from tests.helpers.invented_records import TASK, WIKI, ended, keep_items, metric, record, store

KINDS = ("q_proj", "down_proj")


def layers(directory, factor=1.0, blocks=5, odd=None) -> None:
    rows = [
        {
            "layer": f"model.{block}.{kind}",
            "block": block,
            "linear": kind,
            "error": factor * (0.01 + 0.001 * block),
        }
        for block in range(blocks)
        for kind in KINDS
    ]
    rows[0] |= odd or {}
    pd.DataFrame(rows).to_parquet(directory / "layers.parquet")


def keep(results, key, **items) -> None:
    keep_items(results, key, {name.replace("__", "/"): values for name, values in items.items()})


@pytest.fixture
def results(tmp_path):
    a = record("aaaa1111", "gptq", perplexity=20.0)
    b = record("bbbb2222", "rtn", perplexity=22.1, scheme__range="minmax")
    a["metrics"]["acc/x"], b["metrics"]["acc/x"] = (
        metric(0.5, protocol=TASK),
        metric(0.5, protocol=TASK + ", other"),
    )
    store(tmp_path, a, b, ended("cccc3333", "oom", "out of [bold]memory", "vptq"))
    losses = [3 + 0.1 * place for place in range(10)]
    keep(tmp_path, "aaaa1111", perplexity__wiki=losses, acc__x=[0, 1] * 5)
    higher = [loss + 0.1 + 0.001 * (-1) ** place for place, loss in enumerate(losses)]
    keep(tmp_path, "bbbb2222", perplexity__wiki=higher, acc__x=[1, 0] * 5)
    layers(tmp_path / "runs" / "aaaa1111")
    layers(tmp_path / "runs" / "bbbb2222", 2.0, odd={"error": 0.001})
    return tmp_path


def tables(results, *names) -> dict:
    return {table.title: table for table in compare(*(find_run(name, results) for name in names))}


def cells(table) -> dict:
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


def test_only_what_differs_in_the_configuration_is_listed(results):
    found = tables(results, "a", "b")["Configuration"]
    assert cells(found) == {
        "method.name": ["gptq", "rtn"],
        "method.solver": ["gptq", "rtn"],
        "scheme.range": ["search", "minmax"],
    }
    assert found.caption == "Same model, data, eval, seed"


def test_a_metric_is_compared_window_by_window(results):
    *shown, ratio, interval, p, verdict = cells(tables(results, "a", "b")["Metrics"])["perplexity/wiki"]
    assert shown == ["20.00", "22.10"]
    assert ratio == "×1.105"
    assert interval == "×1.104 to ×1.106"  # exp(.1), with next to no noise
    assert (p, verdict) == ("<0.001", "B is worse")
    assert cells(tables(results, "b", "a")["Metrics"])["perplexity/wiki"][-1] == "B is better"


def test_metrics_of_two_protocols_are_not_compared_and_it_says_what_differs(results):
    found = tables(results, "a", "b")["Metrics"]
    assert cells(found)["acc/x"] == ["50.0", "50.0", "–", "–", "–", "protocols differ: not compared"]
    assert found.notes == ("acc/x: A has nothing else; B has other",)


def test_perplexities_of_two_models_are_not_compared(results):
    store(results, record("dddd", perplexity=20.0, model__fingerprint="sha256:00"))
    keep(results, "dddd", perplexity__wiki=[3.0] * 10)
    assert cells(tables(results, "aaaa", "dddd")["Metrics"])["perplexity/wiki"][2:5] == ["–", "–", "–"]


@pytest.mark.parametrize("items", [None, [1.0, 2.0], [3.0] * 9], ids=["none", "few", "others"])
def test_without_items_there_is_a_difference_and_no_interval(results, items):
    store(results, record("eeee", perplexity=30.0))
    if items:
        keep(results, "eeee", perplexity__wiki=items)
    row = cells(tables(results, "aaaa", "eeee")["Metrics"])["perplexity/wiki"]
    assert row[:5] == ["20.00", "30.00", "×1.500", "–", "–"]
    assert "no interval" in row[5]


def test_the_same_run_twice_is_the_same(results):
    found = tables(results, "aaaa", "aaaa")
    assert found["Two runs"].caption.startswith("It is the same run")
    assert cells(found["Metrics"])["perplexity/wiki"][2:] == [
        "×1.000",
        "×1.000 to ×1.000",
        "1.000",
        "the same",
    ]
    assert "the same in 10" in found["Layers by kind"].caption


def test_layers_by_kind_and_the_extremes(results):
    found = tables(results, "a", "b")
    by_kind = cells(found["Layers by kind"])
    assert by_kind["down_proj"] == ["5", "0.012", "0.024", "2.000", "0 of 5"]
    assert by_kind["q_proj"][-1] == "1 of 5"
    assert (
        "lower error in 1 of 10 linears; ratio B / A: median 2.000, geometric mean 1.48"
        in found["Layers by kind"].caption
    )
    most = list(cells(found["Layers that change most"]))
    assert most[1] == "model.0.q_proj"
    profile = found["Layers by kind"].notes[0]
    assert profile.split(": ")[1].startswith("▁████")


def test_layers_that_only_one_has_or_that_have_no_error_are_counted_out(results):
    store(results, record("eeee", perplexity=30.0))
    layers(results / "runs" / "eeee", blocks=4, odd={"error": float("nan")})
    assert (
        tables(results, "aaaa", "eeee")["Layers by kind"].notes[-1]
        == "Left out: 2 only in A, 1 with an error of 0 or none"
    )


def test_blocks_are_compared_where_both_have_them(results):
    assert "Block outputs" not in tables(results, "a", "b")
    for key, error in (("aaaa1111", 0.1), ("bbbb2222", 0.05)):
        pd.DataFrame({"name": ["m.0", "m.1"], "block": [0, 1], "error": error}).to_parquet(
            results / "runs" / key / "blocks.parquet"
        )
    assert cells(tables(results, "a", "b")["Block outputs"]) == {
        "m.0": ["0.1", "0.05", "0.500"],
        "m.1": ["0.1", "0.05", "0.500"],
    }


def test_other_calibration_data_are_pointed_out(results):
    store(results, record("eeee", perplexity=30.0, data__samples=8))
    layers(results / "runs" / "eeee")
    assert "data settings differ" in tables(results, "aaaa", "eeee")["Layers by kind"].caption
    assert "settings differ" not in tables(results, "aaaa", "bbbb")["Layers by kind"].caption


def test_a_run_without_numbers_is_told_in_words(results, capsys):
    assert main(["a", "c", f"paths.results={results}"]) == 0
    told = capsys.readouterr().out
    assert "oom: out of [bold]memory" in told
    assert "not measured in B" in told
    assert "B kept no layers.parquet" in told


def test_two_runs_without_numbers(results, capsys):
    assert main(["c", "cccc3333", f"paths.results={results}"]) == 0
    assert "Neither run measured anything" in capsys.readouterr().out


def test_runs_of_two_results_directories(results, tmp_path, capsys):
    other = store(tmp_path / "other", record("aaaa1111", "gptq", perplexity=20.0))
    assert main([str(results / "runs" / "aaaa1111"), str(other / "runs" / "aaaa1111")]) == 0
    told = capsys.readouterr().out
    assert "nothing differs" in told
    assert "no items kept" in told


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["zzzz9999", "a"], "no run 'zzzz9999'"),
        (["aaaa1112", "b"], "did you mean aaaa1111"),
        (["aaaa1111"], "takes two runs, got 1"),
        (["a", "b", "c"], "takes two runs, got 3"),
        (["a", "b", "path.results=x"], "unknown option 'path.results'"),
        (["", "b"], "no run ''"),
        (["a", "f"], "'f' begins 2 runs: ffff1, ffff2"),
        (["a", "broken"], "cannot be used: not valid JSON"),
    ],
)
def test_what_the_user_can_fix_is_one_line(results, arguments, message):
    store(results, record("ffff1"), record("ffff2"))
    (results / "runs" / "broken").mkdir()
    (results / "runs" / "broken" / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        main([*arguments, f"paths.results={results}"])
    assert message in str(error.value)


def test_a_whole_key_is_chosen_though_others_begin_with_it(results):
    store(results, record("aaaa11112", perplexity=1.0))
    assert find_run("aaaa1111", results).record["run_key"] == "aaaa1111"


def test_options_may_stand_anywhere():
    assert parse(["paths.results=x", "a", "b"])[0] == ["a", "b"] == parse(["a", "paths.results=x", "b"])[0]


def test_help_and_no_torch(results):
    code = (
        "import sys; from harness.cli import main as command; from harness.commands.compare import main; command(['compare', '--help']); "  # noqa: E501
        f"main(['a', 'b', 'paths.results={results}']); print(sorted({{'torch', 'transformers', 'hydra', 'lm_eval'}} & set(sys.modules)))"  # noqa: E501
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "RUN_A RUN_B" in told.stdout
    assert told.stdout.splitlines()[-1] == "[]"


def test_a_narrow_output_encoding_costs_nothing(results, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    main(["a", "b", f"paths.results={results}"])
    sys.stdout.flush()
    assert b"B is worse" in raw.getvalue()
    assert WIKI.encode() not in raw.getvalue()
