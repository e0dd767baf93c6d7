"""A quantized model that a run has kept is only evaluated by others, to the same numbers."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from harness.bookkeeping.kept_models import key_of
from harness.bookkeeping.keys import digest
from harness.checkpoints import checkpoint
from harness.cli import main
from harness.quantization import pipeline

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
POINT = ["model=tiny-llama", "data=synthetic", "eval=smoke", "data.samples=4", "isolate=false"]
METHODS = {
    "uniform with outliers": ["method=spqr", "scheme=w3g32", "scheme.outlier_ratio=0.01"],
    "vectors": ["method=vptq", "scheme=w2"],
    "a transform and activations in few bits": ["method=smoothquant", "scheme=w4a4"],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*overrides, results="results"):
    return main(["run", *POINT, *overrides, f"paths.results={results}"])


def records(results="results"):
    """Of quantized models, in the order in which they ended."""
    paths = sorted(Path(results, "runs").glob("*/record.json"), key=lambda path: path.stat().st_mtime_ns)
    found = [json.loads(path.read_text()) for path in paths]
    return [record for record in found if record["method"]["solver"]]


def directory(record, results="results"):
    return Path(results, "runs", record["run_key"])


@pytest.mark.parametrize("name", METHODS)
def test_another_evaluation_of_a_kept_model_gives_what_quantizing_again_gives(name, monkeypatch):
    assert run(*METHODS[name], "eval.windows=3", results="alone") == 0
    (alone,) = records("alone")
    assert run(*METHODS[name], "eval.windows=2", "save=true") == 0
    monkeypatch.setattr(pipeline, "_block", lambda *_: pytest.fail("quantized again"))
    assert run(*METHODS[name], "eval.windows=3", "save=true") == 0
    kept, again = records()
    assert again["run_key"] == alone["run_key"] and again["reused"]["model"] == kept["run_key"]
    items = [json.loads((directory(*of) / "items.json").read_text()) for of in [(again,), (alone, "alone")]]
    assert items[0] == items[1], "bit for bit"
    for field in (
        "metrics",
        "bits_per_weight",
        "outlier_share",
        "layer_error",
        "fallbacks",
        "baseline",
        "token_ids",
    ):
        assert again[field] == alone[field], field
    tables = [pd.read_parquet(directory(record) / "layers.parquet") for record in (again, kept)]
    pd.testing.assert_frame_equal(*tables)
    assert again["seconds"]["quantize"] == kept["seconds"]["quantize"], "what the result costs"
    # its own checkpoint is the same model
    places = [directory(record) / "checkpoint" for record in (kept, again)]
    tensors = [load_file(place / checkpoint.WEIGHTS) for place in places]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert json.loads((places[1] / checkpoint.MANIFEST).read_text())["run"]["run_key"] == again["run_key"]


GPTQ = ["method=gptq", "scheme=w4g32"]


@pytest.mark.parametrize(
    "other", [["scheme=w3g32"], ["seed=1"], ["data.samples=5"], ["model.dtype=bfloat16"], ["method=rtn"]]
)
def test_a_model_that_differs_in_anything_else_is_made(other):
    assert run(*GPTQ, "eval.windows=2", "save=true") == 0
    assert run(*GPTQ, "eval.windows=3", *other) == 0
    assert "model" not in records()[-1]["reused"]


def test_a_damaged_checkpoint_is_not_used():
    assert run(*GPTQ, "eval.windows=2", "save=true") == 0
    (kept,) = records()
    path = directory(kept) / "checkpoint" / checkpoint.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run(*GPTQ, "eval.windows=3") == 0
    assert "model" not in records()[-1]["reused"]


def test_a_model_of_other_token_ids_is_not_used(monkeypatch):
    from harness.bookkeeping import kept_models

    assert run(*GPTQ, "eval.windows=2", "save=true") == 0
    monkeypatch.setattr(kept_models, "token_ids", lambda config: {"calibration": "others"})
    assert run(*GPTQ, "eval.windows=3") == 0
    assert "model" not in records()[-1]["reused"]


def test_a_configuration_that_was_edited_identifies_nothing(tmp_path):
    fields = {"numbers": 1, "eval": {"windows": 2}, "method": {"solver": "x"}}
    run_directory = tmp_path / digest(fields)
    run_directory.mkdir()
    (run_directory / "config.yaml").write_text(yaml.safe_dump(fields))
    assert key_of(run_directory) == digest({"numbers": 1, "method": {"solver": "x"}})
    edited = tmp_path / ("0" * 16)
    edited.mkdir()
    (edited / "config.yaml").write_text(yaml.safe_dump(fields))
    assert key_of(edited) is None and key_of(tmp_path) is None


def test_records_of_former_versions_tell_the_key_of_their_models():
    """Models that differ only in their evaluation do not exist there: as many keys as runs."""
    keys = [
        key_of(path) for path in sorted((PUBLISHED / "runs").iterdir()) if (path / "config.yaml").exists()
    ]
    assert None not in keys and len(set(keys)) == len(keys) > 20


def test_plan_says_what_is_only_evaluated(capsys):
    assert run(*GPTQ, "eval.windows=2", "save=true") == 0
    capsys.readouterr()
    assert main(["plan", *POINT, *GPTQ, "eval.windows=2,3"]) == 0
    told = "".join(capsys.readouterr())
    assert "1 done" in told and "1 missing" in told and "evaluated" in told


# --- by hand


def test_evaluate_leaves_the_record_that_run_would(monkeypatch):
    assert run(*GPTQ, "eval.windows=2", "save=true") == 0
    (kept,) = records()
    monkeypatch.setattr(pipeline, "_block", lambda *_: pytest.fail("quantized again"))
    assert main(["evaluate", kept["run_key"][:6], "eval.windows=3,4"]) == 0
    _, *again = records()
    assert [record["reused"]["model"] for record in again] == [kept["run_key"]] * 2
    assert main(["evaluate", str(directory(kept)), "eval.windows=3,4"]) == 0, "they are there"
    assert main(["run", *POINT, *GPTQ, "eval.windows=3,4"]) == 0 and len(records()) == 3


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["scheme=w2"], "scheme: evaluate changes only eval.*"),
        (["eval.windows=2", "method.solver.damping=0.1"], "method.solver.damping: evaluate changes only"),
        (["eval.nothing=2"], "eval.nothing"),
        (["eval=nothing"], "nothing"),
        ([], "eval"),
    ],
)
def test_evaluate_refuses_what_is_no_evaluation(overrides, told, capsys):
    assert run(*GPTQ, "eval.windows=2", "save=true") == 0
    capsys.readouterr()
    assert main(["evaluate", records()[0]["run_key"], *overrides]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_evaluate_needs_a_checkpoint(capsys):
    assert run(*GPTQ, "eval.windows=2") == 0
    capsys.readouterr()
    assert main(["evaluate", records()[0]["run_key"], "eval.windows=3"]) == 2
    assert "kept no whole checkpoint; run the same point again with save=true" in capsys.readouterr().err
