"""A run that was cut short goes on at the next block, and ends bit for bit as an undisturbed one: every
method, every way to calibrate.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

from harness.bookkeeping.keys import baseline_of, run_key
from harness.bookkeeping.point import Point
from harness.checkpoints.saved_runs import load_run
from harness.commands.load import check
from harness.config.compose import method_names
from harness.config.run_config import RunConfig, to_run_config
from harness.evaluation import evaluate
from harness.foundation.cache import cache_dir
from harness.planning.plan import kept_blocks
from harness.quantization import pipeline
from harness.quantization.resume import Resume
from harness.run import run as one_run

QUICK = [
    "data=synthetic",
    "eval=smoke",
    "data.samples=4",
    "data.window=32",
    "data.batch_size=2",
    "eval.windows=2",
]
SHORT = {  # steps of the methods that train
    "omniquant": ["method/transform=omniquant_small", "method.transform.epochs=1"],
    "affinequant": ["method/transform=affinequant_small", "method.transform.epochs=2"],
}
SCHEMES = {"spqr": "w3g16s3", "quantease_further_spqr": "w3g16s3"}
# others go the same way
SLOW = (
    "quantease_further_spqr",
    "vptq_v6k4096",
    "vptq_v12k4096",
    "vptq_tuned",
    "vptq_further",
    "shared, tuned",
)
WAYS = {
    "shared": ["method=gptq", "scheme=w3", "data.propagate=float"],
    "shared, transform": ["method=awq", "scheme=w3a16", "data.propagate=float"],
    "shared, tuned": ["method=gptvq_tuned", "scheme=w2", "data.propagate=float"],
    "activations": ["method=smoothquant", "scheme=w4a4"],
    "static activations": ["method=rtn", "scheme=w4a4", "scheme.act_range=tensor", "data.propagate=float"],
    "block errors": ["method=quantease", "scheme=w2", "scheme.outlier_ratio=0.02", "data.block_error=true"],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def composed(*overrides: str) -> RunConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        return to_run_config(
            compose("config", ["model=tiny-llama", "isolate=false", "save=true", *QUICK, *overrides])
        )


def run(config: RunConfig, results: str) -> dict:
    return one_run(Point.of(replace(config, paths=replace(config.paths, results=results))))


def directory(config: RunConfig, results: str) -> Path:
    return Path(results, "runs", run_key(config))


def cut_at(block: int, config: RunConfig, monkeypatch) -> Path:
    """Run until a block is about to be quantized; return what the run has left."""
    whole = pipeline._block

    def cut(walk, module, batches):
        if module.index == block:
            raise KeyboardInterrupt
        return whole(walk, module, batches)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "_block", cut)
        run(config, "cut")
    assert not (directory(config, "cut") / "record.json").exists()
    return directory(config, "cut") / "resume"


def ends_the_same(config: RunConfig) -> None:
    """Go on after a cut, and compare with an undisturbed run."""
    assert run(config, "cut")["status"] == "done"
    assert run(config, "whole")["status"] == "done"
    assert_same_but_for_time(directory(config, "cut"), directory(config, "whole"))


def assert_same_but_for_time(cut: Path, whole: Path) -> None:
    first, second = (
        load_file(directory / "checkpoint" / "quantized.safetensors") for directory in (cut, whole)
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    records = [json.loads((directory / "record.json").read_text()) for directory in (cut, whole)]
    assert [record.pop("attempt") for record in records] == [2, 1]
    for record in records:
        (record.get("transform") or {}).pop("cost", None)  # a ratio of two times
    for name in records[0].keys() - {"seconds", "peak_memory_bytes", "reused", "digest"}:
        assert records[0][name] == records[1][name], name
    assert (cut / "items.json").read_bytes() == (whole / "items.json").read_bytes()
    for table in ("layers", "blocks"):
        if (whole / f"{table}.parquet").exists():
            tables = [
                pd.read_parquet(directory / f"{table}.parquet").drop(
                    columns=["seconds", "stats.cost"], errors="ignore"
                )
                for directory in (cut, whole)
            ]
            pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert not (cut / "resume").exists()


def settings() -> list:
    """Every method under a scheme it takes, and every way through the pipeline."""
    methods = {
        name: [f"method={name}", *SHORT.get(name, []), f"scheme={SCHEMES.get(name, 'w2')}"]
        for name in method_names()
    }
    del methods["float"]
    marks = {name: [pytest.mark.slow] for name in SLOW}
    return [
        pytest.param(overrides, id=name, marks=marks.get(name, []))
        for name, overrides in (methods | WAYS).items()
    ]


@pytest.mark.parametrize("overrides", settings())
def test_bit_identical(overrides, monkeypatch):
    """And whatever kind of weight the method returns, the model that is loaded again gives the numbers of the
    record.
    """
    config = composed(*overrides)
    left = cut_at(2, config, monkeypatch)
    assert len(kept_blocks(left.parent)) == 2
    ends_the_same(config)
    assert all(new == old for _, new, old, _ in check(load_run(directory(config, "cut"))))


@pytest.fixture
def gptq() -> RunConfig:
    return composed("method=gptq", "scheme=w3")


@pytest.mark.parametrize("block", [0, 1])
def test_wherever_it_is_cut(block, gptq, monkeypatch):
    cut_at(block, gptq, monkeypatch)
    ends_the_same(gptq)


def test_cut_between_the_last_block_and_the_evaluation(gptq, monkeypatch):
    run(baseline_of(gptq), "cut")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("harness.run.evaluate", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        run(gptq, "cut")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_block", None)  # not one block is left to do
        assert run(gptq, "cut")["status"] == "done"
    ends_the_same(gptq)


def test_finished_blocks_are_not_computed_again(gptq, monkeypatch):
    cut_at(2, gptq, monkeypatch)
    computed, whole = [], pipeline._block
    monkeypatch.setattr(
        pipeline,
        "_block",
        lambda walk, block, batches: computed.append(block.index) or whole(walk, block, batches),
    )
    run(gptq, "cut")
    assert computed == [2]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "other software"])
def test_what_is_damaged_is_not_believed(damage, gptq, monkeypatch):
    left = cut_at(2, gptq, monkeypatch)
    victim = left / "manifest.json" if damage == "manifest" else min(left.glob("*.safetensors"))
    content = bytearray(victim.read_bytes())
    if damage == "remove":
        victim.unlink()
    elif damage == "truncate":
        victim.write_bytes(content[:-1])
    elif damage == "other software":
        monkeypatch.setattr("harness.run._identity", lambda config, key: {"torch": "another"})
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    ends_the_same(gptq)
    assert "starts anew" in (directory(gptq, "cut") / "log.txt").read_text()


def test_statistics_that_vanished_meanwhile(monkeypatch):
    """A run that lived on shared statistics kept no activations; without the statistics it has to start anew,
    and does.
    """
    config = composed("method=gptq", "scheme=w3", "data.propagate=float")
    run(config, "first")
    cut_at(2, config, monkeypatch)
    shutil.rmtree(cache_dir() / "statistics")
    ends_the_same(config)


def test_an_evaluation_that_fails_discards_nothing(monkeypatch):
    """The blocks and the corpora before it stand; the next attempt asks only for what is missing."""
    config = composed("method=float", "eval.corpora=[synthetic,news]")
    asked, whole = [], evaluate._perplexity

    def fails(corpus, *rest):
        asked.append(corpus)
        if corpus == "news":
            raise RuntimeError("no such luck")
        return whole(corpus, *rest)

    monkeypatch.setattr("harness.bookkeeping.keys.text_sha256", lambda *_: "0" * 64)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_perplexity", fails)
        assert run(config, "cut")["status"] == "failed"
    monkeypatch.setattr(
        evaluate, "_perplexity", lambda corpus, *rest: asked.append(corpus) or whole("synthetic", *rest)
    )
    assert run(config, "cut")["status"] == "done"
    assert asked == ["synthetic", "news", "news"]


def test_a_disk_that_is_full_ends_the_run_and_not_what_it_has(gptq, monkeypatch):
    store, calls = Resume._store, []

    def full(self, tensors):
        calls.append(1)
        if len(calls) == 3:  # the second block
            raise OSError(28, "No space left on device")
        return store(self, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Resume, "_store", full)
        assert run(gptq, "cut")["status"] == "failed"
    ends_the_same(gptq)
