"""From the command line to the record, on tiny models of every family and on two blocks of a real one."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.bookkeeping.words import scheme_label
from harness.checkpoints import checkpoint
from harness.cli import main
from harness.config.groups import Bos, Dtype, ModelConfig
from harness.data import assets
from harness.foundation import cache
from harness.foundation.errors import UserError
from harness.models.loading import load_model
from harness.models.tiny import CONFIGS
from methods.contracts.scheme import OutlierStructure, ZeroPoint
from tests.helpers.fake_wandb import FakeWandb, explode
from tests.helpers.problems import scheme

QUICK = ["data=synthetic", "eval=smoke", "data.samples=4", "eval.windows=2"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def records(method: str | None = None, results: str = "results") -> list[dict]:
    found = [json.loads(path.read_text()) for path in sorted(Path(results, "runs").glob("*/record.json"))]
    return [record for record in found if method in (None, record["method"]["name"])]


def run(*overrides: str) -> int:
    return main(["run", "isolate=false", *QUICK, *overrides])


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_end_to_end(family):
    """Quantize, evaluate, save, reload: the reloaded model gives the same logits."""
    assert (
        run(
            f"model.id=tiny:{family}",
            f"model.name={family}",
            "model=tiny-llama",
            "method=gptq",
            "scheme=w4g32",
            "save=true",
        )
        == 0
    )
    (record,) = records("gptq")
    assert record["status"] == "done" and record["fallbacks"] == []
    metric = record["metrics"]["perplexity/synthetic"]
    assert metric["value"] > 1 and "synthetic/test" in metric["protocol"] and metric["n"] == 2 * 63
    assert record["baseline"]["metrics"]["perplexity/synthetic"]["protocol"] == metric["protocol"]
    assert 4 < record["bits_per_weight"] < 5.5
    layers = pd.read_parquet(Path("results/runs") / record["run_key"] / "layers.parquet")
    assert (layers.error < 0.1).all() and len(layers) % layers.block.nunique() == 0
    assert record["layer_error"]["mean"] == pytest.approx(layers.error.mean())

    config = ModelConfig(family, f"tiny:{family}", None, Dtype.float32, Bos.stream, None)
    original = load_model(config, "cpu").model
    model, tokenizer = checkpoint.load(Path("results/runs") / record["run_key"] / "checkpoint")
    tokens = torch.tensor([tokenizer("The same words give the same logits.").input_ids])
    assert (model(tokens).logits - original(tokens).logits).abs().max() > 1e-4, "nothing was quantized"
    again, _ = checkpoint.load(Path("results/runs") / record["run_key"] / "checkpoint")
    assert torch.equal(model(tokens).logits, again(tokens).logits)


def test_same_config_same_numbers_and_finished_runs_are_skipped(capsys):
    assert run("model=tiny-llama", "method=gptq,quantease", "scheme=w3,w2") == 0
    first = {record["run_key"]: record for record in records()}
    assert len(first) == 5  # four points and the float baseline they share
    capsys.readouterr()
    assert run("model=tiny-llama", "method=gptq,quantease", "scheme=w3,w2") == 0
    assert "4 from before" in capsys.readouterr().err
    assert run("model=tiny-llama", "method=gptq,quantease", "scheme=w3,w2", "paths.results=again") == 0
    for path in Path("again/runs").glob("*/record.json"):
        record = json.loads(path.read_text())
        for name in ("metrics", "layer_error", "bits_per_weight", "baseline"):
            assert record[name] == first[record["run_key"]][name], name


@pytest.mark.parametrize(
    "point",
    [["method=float"], ["method=gptq", "scheme=w4", "scheme.outlier_ratio=0.01"]],
    ids=["float", "skipped"],
)
def test_what_has_nothing_to_keep_is_not_run_again_for_it(point, capsys):
    assert run("model=tiny-llama", *point, "save=true") == 0
    capsys.readouterr()
    assert run("model=tiny-llama", *point, "save=true") == 0
    assert "1 from before" in capsys.readouterr().err


def test_a_failing_point_does_not_stop_the_others(monkeypatch, capsys):
    from methods.gptq import GPTQ

    def fail(self, problem):
        raise RuntimeError("no luck\nat all")

    monkeypatch.setattr(GPTQ, "solve", fail)
    assert run("model=tiny-llama", "method=gptq,rtn,quantease", "scheme=w3") == 1
    lines = capsys.readouterr().err
    assert "Traceback" not in lines and "no luck" in lines
    assert [record["status"] for record in records("rtn") + records("quantease")] == ["done", "done"]
    (failed,) = records("gptq")
    assert (
        failed["status"] == "failed" and "model.layers.0" in failed["reason"] and "\n" not in failed["reason"]
    )
    assert "Traceback" in (Path("results/runs") / failed["run_key"] / "log.txt").read_text()
    monkeypatch.undo()


def test_failed_points_run_again_only_when_asked(monkeypatch, tmp_path):
    from methods.gptq import GPTQ

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(GPTQ, "solve", lambda self, problem: 1 / 0)
        assert run("model=tiny-llama", "method=gptq") == 1
    assert run("model=tiny-llama", "method=gptq") == 1
    assert records("gptq")[0]["status"] == "failed"
    assert run("model=tiny-llama", "method=gptq", "retry=true") == 0
    assert records("gptq")[0]["status"] == "done"


def test_weights_that_are_not_finite_end_a_run_as_diverged(monkeypatch):
    from methods.weights.stored import UniformWeight

    monkeypatch.setattr(UniformWeight, "dequantize", lambda self: self.grid.decode(self.codes) * float("nan"))
    assert run("model=tiny-llama", "method=rtn") == 1
    (record,) = records("rtn")
    assert record["status"] == "diverged" and "q_proj" in record["reason"]


def test_shared_statistics_change_no_number():
    """propagate=float: from the cache or computed anew, the same records."""
    overrides = ["model=tiny-gemma3", "method=gptq", "scheme=w3", "data.propagate=float"]
    assert run(*overrides) == 0
    assert list((cache.cache_dir() / "statistics").glob("*/*.safetensors"))
    assert run(*overrides, "paths.results=warm") == 0
    assert run(*overrides, "paths.results=cold", "paths.cache_gib=0") == 0
    rows = [records("gptq", results)[0] for results in ("results", "warm", "cold")]
    assert rows[0]["metrics"] == rows[1]["metrics"] == rows[2]["metrics"]
    assert rows[0]["layer_error"] == rows[1]["layer_error"] == rows[2]["layer_error"]


def test_propagation_and_order_matter_and_are_part_of_the_key():
    assert (
        run(
            "model=tiny-llama",
            "method=rtn",
            "scheme=w2",
            "data.propagate=quantized",
            "data.true_sequential=true,false",
        )
        == 0
    )
    assert run("model=tiny-llama", "method=rtn", "scheme=w2", "data.propagate=float") == 0
    found = records("rtn")
    assert len({record["run_key"] for record in found}) == 3
    assert len({record["layer_error"]["mean"] for record in found}) == 3, (
        "three ways to calibrate, three different Hessians"
    )
    assert len({record["metrics"]["perplexity/synthetic"]["value"] for record in found}) == 1, (
        "RTN looks at none of them"
    )


def test_a_tracker_that_fails_fails_no_run(monkeypatch):
    FakeWandb("init", explode).install(monkeypatch)
    assert run("model=tiny-llama", "method=rtn", "tracker=wandb") == 0
    (record,) = records("rtn")
    assert record["status"] == "done"
    assert "no route to host" in (Path("results/runs") / record["run_key"] / "log.txt").read_text()


def test_wandb_offline_leaves_a_run_and_the_same_numbers():
    assert run("model=tiny-llama", "method=rtn") == 0
    assert run("model=tiny-llama", "method=rtn", "tracker=wandb", "paths.results=tracked") == 0
    assert main(["sync", "--results", "tracked"]) == 0  # these runs are over before wandb is imported
    tracked = {p.parent.name: json.loads(p.read_text()) for p in Path("tracked/runs").glob("*/record.json")}
    for record in records():
        assert tracked[record["run_key"]]["metrics"] == record["metrics"]
        assert list((Path("tracked/runs") / record["run_key"] / "wandb").glob("offline-run-*/*.wandb"))


def test_plan_runs_nothing(capsys):
    assert main(["plan", *QUICK, "model=tiny-llama", "method=rtn,gptq", "scheme.group_size=null,48"]) == 0
    shown = capsys.readouterr().err
    assert "4 points" in shown and "2 missing" in shown and "2 illegal" in shown
    assert not Path("results").exists()


def test_outliers_reach_the_record_the_layers_and_the_terminal(capsys):
    assert run("model=tiny-llama", "method=spqr", "scheme=w3", "scheme.outlier_ratio=0.02") == 0
    (record,) = records("spqr")
    layers = pd.read_parquet(Path("results/runs") / record["run_key"] / "layers.parquet")
    sizes = layers.out_features * layers.in_features
    assert record["outlier_share"] == pytest.approx((layers.outliers * sizes).sum() / sizes.sum())
    assert 0.01 < record["outlier_share"] < 0.04
    shown = capsys.readouterr().err
    assert (
        "w3 search, 2 % outliers" in shown
        and f"{100 * record['outlier_share']:.3g} % outliers stored" in shown
    )
    assert run("model=tiny-llama", "method=rtn", "scheme=w3") == 0
    assert records("rtn")[0]["outlier_share"] == 0 and records("float")[0]["outlier_share"] == 0
    assert "outliers" not in capsys.readouterr().err


def test_a_point_that_its_method_refuses_is_skipped_with_the_reason(capsys):
    overrides = ["model=tiny-llama", "method=rtn,spqr", "scheme=w3", "scheme.outlier_ratio=0.02"]
    assert main(["plan", *QUICK, *overrides]) == 0
    planned = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "1 missing, 1 to be skipped" in planned or "1 to be skipped, 1 missing" in planned
    assert run(*overrides) == 0
    (record,) = records("rtn")
    assert record["status"] == "skipped" and "outliers" in record["reason"] and "metrics" not in record
    assert main(["report", "format=md"]) == 0
    assert record["reason"] in Path("reports/report/report.md").read_text()
    capsys.readouterr()
    assert main(["plan", *QUICK, *overrides]) == 0
    shown = capsys.readouterr().err
    assert "1 skipped" in shown and "1 done" in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "w3 minmax"),
        (
            {"group_size": 16, "scale_bits": 3, "zero_point": ZeroPoint.float},
            "w3 g16 minmax float zero, 3-bit scales",
        ),
        ({"outlier_ratio": 0.005}, "w3 minmax, 0.5 % outliers"),
        (
            {"outlier_ratio": 0.01, "outlier_structure": OutlierStructure.column},
            "w3 minmax, 1 % outliers in whole columns",
        ),
        ({"outlier_structure": OutlierStructure.column, "scale_group_size": 4}, "w3 minmax"),
    ],
)
def test_a_scheme_in_words(fields, words):
    assert scheme_label(scheme(**fields)) == words


@pytest.mark.timeout(900)  # with a cold cache it fetches and converts the model first
def test_two_blocks_of_a_real_model(warm_cache):
    """SmolLM2: at 3 bits GPTQ beats RTN in every linear, QuantEase from GPTQ is nowhere worse, and the text
    stays likely.
    """
    try:
        directory = assets.model_directory("smollm2-135m")
    except UserError as error:
        pytest.skip(f"neither cache nor network has SmolLM2: {error}")
    loaded = load_model(ModelConfig("smollm2", str(directory), None, Dtype.float32, Bos.stream, 4), "cpu")
    loaded.model.model.layers = loaded.model.model.layers[:2]
    loaded.model.config.num_hidden_layers = 2
    if getattr(loaded.model.config, "layer_types", None):
        loaded.model.config.layer_types = loaded.model.config.layer_types[:2]
    loaded.model.save_pretrained("two-blocks")
    loaded.tokenizer.save_pretrained("two-blocks")
    overrides = ["model=hub", "model.id=two-blocks", "model.dtype=float32"]
    overrides += ["data=wiki", "data.samples=8", "data.window=256", "data.propagate=float"]
    overrides += [
        "eval.corpora=[wiki]",
        "eval.window=256",
        "eval.windows=2",
        "eval.tasks=[analogies]",
        "eval.limit=8",
    ]
    assert (
        main(
            [
                "run",
                "isolate=false",
                "eval=smoke",
                *overrides,
                "method=rtn,gptq,quantease_gptq",
                "scheme=w3",
                "paths.cache_gib=0",
            ]
        )
        == 0
    )
    error = {
        name: pd.read_parquet(Path("results/runs") / records(name)[0]["run_key"] / "layers.parquet")
        .set_index("layer")
        .error
        for name in ("rtn", "gptq", "quantease_gptq")
    }
    assert len(error["rtn"]) == 14
    assert (error["gptq"] < error["rtn"]).all()
    assert (error["quantease_gptq"] <= error["gptq"] * (1 + 1e-6)).all()
    assert {"perplexity/wiki", "acc/analogies"} <= records("gptq")[0]["metrics"].keys()
