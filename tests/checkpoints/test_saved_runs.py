"""`ptq-bench load`: what a run saved comes back whole, and what cannot come back says why in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import processors

from harness import run as run_module
from harness.checkpoints import checkpoint
from harness.checkpoints.saved_runs import load_run
from harness.cli import main
from harness.commands.load import check, continued, describe, probe
from harness.foundation.errors import UserError
from harness.foundation.seals import read_record, seal
from tests.helpers.tiny_models import tokens

POINT = [
    "isolate=false",
    "model=tiny-llama",
    "data=synthetic",
    "eval=smoke",
    "data.samples=4",
    "eval.windows=2",
    "data.window=64",
]
TOKENS = tokens(2)

VARIANTS = {  # the kinds of weights that a solver can return, by the shortest way to them
    "uniform": ["method=gptq", "scheme=w3"],
    "groups": ["method=gptq", "scheme=w4g32", "scheme.zero_point=float"],
    "coded scales": ["method=gptq", "scheme=w3g16s3"],
    "unstructured outliers": ["method=quantease", "scheme=w3", "scheme.outlier_ratio=0.02"],
    "outlier columns": [
        "method=quantease",
        "scheme=w3",
        "scheme.outlier_ratio=0.05",
        "scheme.outlier_structure=column",
    ],
    "activations": ["method=rtn", "scheme=w4a4", "scheme.kv_bits=8"],
    "static activations": ["method=gptq", "scheme=w8a8", "scheme.act_range=tensor"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results with one saved run, its float baseline, and one that was not saved."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTQ_BENCH_CACHE", str(place / "cache"))
        for overrides in (["scheme=w3", "save=true"], ["scheme=w2"]):
            assert main(["run", *POINT, "method=gptq", *overrides, f"paths.results={place / 'results'}"]) == 0
    return place / "results"


def keys(results: Path, saved: bool | None = None) -> list[str]:
    found = [path.parent for path in sorted(results.glob("runs/*/record.json"))]
    wanted = [path for path in found if json.loads((path / "record.json").read_text())["method"]["solver"]]
    return [path.name for path in wanted if saved is None or (path / "checkpoint").is_dir() == saved]


@pytest.fixture
def saved(finished):
    return keys(finished, saved=True)[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loaded_model_gives_the_logits_of_the_one_that_was_saved(variant, tmp_path, monkeypatch):
    """Bit for bit, with the model caught on its way to the disk."""
    caught = {}

    def save(model, *arguments):
        caught["logits"] = model(TOKENS).logits
        checkpoint.save(model, *arguments)

    monkeypatch.setattr(run_module, "save", save)
    assert main(["run", *POINT, *VARIANTS[variant], "save=true", f"paths.results={tmp_path}"]) == 0
    (key,) = keys(tmp_path)
    record = json.loads((tmp_path / "runs" / key / "record.json").read_text())
    if record["status"] == "skipped":
        pytest.skip(record["reason"])
    loaded = load_run(key, tmp_path)
    assert torch.equal(loaded.model(TOKENS).logits, caught["logits"])
    assert loaded.bits_per_weight() == pytest.approx(record["bits_per_weight"], rel=1e-12)
    assert all(new == old for _, new, old, _ in check(loaded))
    if "activations" in variant:
        told = {
            "activations": "4 bits per token, keys and values 8 bits per token",
            "static activations": "8 bits per tensor",
        }
        assert dict(describe(loaded))["activations"] == told[variant]
    if "outlier" in variant:
        assert 0 < record["outlier_share"] <= 0.06
        assert f"{100 * record['outlier_share']:.3g} %" in dict(describe(loaded))["outliers"]


def test_a_run_is_found_by_key_prefix_and_directory(finished, saved, tmp_path):
    expected = load_run(saved, finished).model(TOKENS).logits
    for name in (saved[:5], finished / "runs" / saved, finished / "runs" / saved / "checkpoint"):
        loaded = load_run(name, finished)
        assert torch.equal(loaded.model(TOKENS).logits, expected) and loaded.record["run_key"] == saved
    assert load_run(saved, finished.parent).record["run_key"] == saved, "results below results"
    copy = shutil.copytree(finished / "runs" / saved / "checkpoint", tmp_path / "elsewhere")
    alone = load_run(copy)
    assert alone.record is None and torch.equal(alone.model(TOKENS).logits, expected)
    assert "method" not in dict(describe(alone))
    with pytest.raises(UserError, match="needs the record"):
        check(alone)


def test_what_is_shown(finished, saved, capsys):
    assert (
        main(
            [
                "load",
                saved,
                "--results",
                str(finished),
                "--device",
                "cpu",
                "--text",
                "Once upon a",
                "--tokens",
                "5",
                "--check",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    record = json.loads((finished / "runs" / saved / "record.json").read_text())
    for words in (
        "tiny-llama (tiny:llama)",
        "gptq",
        "w3 search",
        f"{record['bits_per_weight']:.4f}",
        "stored as uniform",
        "MB",
        "finite",
    ):
        assert words in shown, words
    assert "Once upon a" in shown and "perplexity/synthetic" in shown and "the same" in shown


def test_a_text_goes_on_greedily(finished, saved):
    loaded = load_run(saved, finished)
    given = loaded.tokenizer("Once").input_ids
    for _ in range(4):  # one full forward pass for every token
        given = [*given, loaded.model(torch.tensor([given]), use_cache=False).logits[0, -1].argmax().item()]
    assert continued(loaded, "Once", 4) == loaded.tokenizer.decode(given, skip_special_tokens=True)


def test_a_text_that_is_to_go_on_does_not_end_in_eos(finished, saved):
    loaded = load_run(saved, finished)
    expected = continued(loaded, "Once", 4), probe(loaded, "Once")
    loaded.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert loaded.tokenizer("Once").input_ids[-1] == 2
    assert continued(loaded, "Once", 4) == expected[0]
    assert torch.equal(probe(loaded, "Once"), expected[1])


def test_another_number_than_the_record_fails_the_check(finished, saved, tmp_path, capsys):
    copy = shutil.copytree(finished / "runs" / saved, tmp_path / "runs" / saved)
    record = read_record((copy / "record.json").read_bytes())
    record["metrics"]["perplexity/synthetic"]["value"] *= 1.01
    (copy / "record.json").write_bytes(seal(record))
    assert main(["load", str(copy), "--check"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_model_that_gives_no_numbers_is_refused(finished, saved):
    loaded = load_run(saved, finished)
    loaded.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        probe(loaded, "a")


def test_the_beginning_of_two_keys_names_both(tmp_path, capsys):
    for key in ("feed01", "feed02", "feed03", "feed04", "beef01"):
        (tmp_path / "deeper" / "runs" / key).mkdir(parents=True)
    assert main(["load", "feed", "--results", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "ambiguous" in shown and "feed01" in shown and "and 1 more" in shown and "beef" not in shown


def test_what_cannot_be_loaded_says_why_in_one_line(finished, saved, tmp_path, capsys):
    unsaved, baseline = keys(finished, saved=False)[0], None
    for path in finished.glob("runs/*/record.json"):
        if not json.loads(path.read_text())["method"]["solver"]:
            baseline = path.parent.name
    (tmp_path / "empty").mkdir()
    for run, words in {
        "feedfeed": "no run whose key begins so",
        "": "is empty",
        "./nowhere": "no such directory",
        unsaved: "save=true",
        baseline: "float model",
        str(tmp_path / "empty"): "no run ended here",
    }.items():
        assert main(["load", run, "--results", str(finished)]) == 2, run
        shown = capsys.readouterr().err
        assert words in shown and shown.count("\n") == 1, (run, shown)
    assert main(["load", saved, "--results", str(finished), "--tokens", "0"]) == 2
    broken = shutil.copytree(finished / "runs" / saved, tmp_path / "broken")
    (broken / "checkpoint" / "quantized.safetensors").write_bytes(b"no tensors")
    assert main(["load", str(broken)]) == 2
    assert "quantized.safetensors: damaged" in capsys.readouterr().err
