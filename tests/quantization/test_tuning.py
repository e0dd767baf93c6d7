"""Tuning inside the walk over the blocks: what is reported, stored and handed on is the tuned block."""

from dataclasses import replace

import pytest
import torch

from harness.checkpoints.linear import QuantizedLinear
from harness.config.compose import method_config, method_names
from harness.config.groups import DataConfig, Propagate
from harness.config.method_builder import build_method
from harness.models import tiny
from harness.models.families import family_of
from harness.quantization.blocks import ModelBlocks
from harness.quantization.hessian_cache import StatisticsCache
from harness.quantization.layer_reports import BlockReport
from harness.quantization.pipeline import quantize
from harness.quantization.walk import Walk
from methods.contracts.method import Method
from tests.helpers.problems import scheme
from tests.helpers.tiny_models import tokens
from tests.methods.test_centroid_tuning import SOLVER, TUNING


def walk(tmp_path, tuning, propagate="float", true_sequential=True, cache_gib=0.0, block_error=False):
    model, _ = tiny.tiny_model("llama")
    source = ModelBlocks(model, family_of(model.config))
    data = DataConfig("synthetic", 16, 64, 2, Propagate[propagate], true_sequential, block_error, None)
    cache = StatisticsCache(tmp_path, "key", len(source), source.statistics_bytes(), cache_gib)
    way = Walk(source, Method("m", SOLVER, tuning=tuning), scheme(bits=2), data, cache)
    reports = list(quantize(way, lambda: tokens(16, 64)))
    return model, source, reports


@torch.no_grad()
def block_errors(source, float_source) -> list[float]:
    """Mean squared error of every block on the float model's activations."""
    entry, errors = float_source.capture(tokens(16, 64), 16)[0], []
    hidden = entry.hidden
    for block, exact, call in zip(source, float_source, entry.calls, strict=True):
        target = exact.run(hidden, call)
        errors.append((block.run(hidden, call) - target).square().mean().item())
        hidden = target
    return errors


@pytest.mark.parametrize(
    "propagate, true_sequential", [("float", False), ("quantized", False), ("quantized", True)]
)
def test_every_block_comes_closer_to_the_float_one(tmp_path, propagate, true_sequential):
    model, _ = tiny.tiny_model("llama")
    exact = ModelBlocks(model, family_of(model.config))
    errors = [
        block_errors(walk(tmp_path, tuning, propagate, true_sequential)[1], exact)
        for tuning in (None, TUNING)
    ]
    assert all(tuned < 0.98 * plain for plain, tuned in zip(*errors, strict=True))


def test_reports_are_of_the_weights_in_the_model(tmp_path):
    model, _, reports = walk(tmp_path, TUNING)
    _, _, before = walk(tmp_path, None)
    assert [report.layer for report in reports] == [report.layer for report in before]
    for old, new in zip(before, reports, strict=True):
        linear = model.get_submodule(new.layer)
        assert isinstance(linear, QuantizedLinear) and torch.equal(
            linear.quantized.dequantize(), linear.weight
        )
        assert new.error != old.error and new.bits == old.bits and new.fallback is None


@pytest.mark.parametrize("name", [name for name in method_names() if method_config(name).get("tuning")])
def test_what_is_stored_is_what_the_model_computes_with(name, tmp_path, monkeypatch):
    """Of every tuned method: what training moved has been rounded as it is stored."""
    method = build_method(method_config(name))
    monkeypatch.setitem(globals(), "SOLVER", method.solver)
    model, _, reports = walk(tmp_path, replace(method.tuning, steps=4))
    for report in reports:
        linear = model.get_submodule(report.layer)
        assert torch.equal(linear.quantized.dequantize(), linear.weight), report.layer


def test_statistics_on_disk_do_not_make_it_skip_the_tuning(tmp_path):
    first, second = (walk(tmp_path, TUNING, cache_gib=1.0)[2] for _ in range(2))
    assert [report.error for report in first] == [report.error for report in second]


@pytest.mark.parametrize("propagate", ["float", "quantized"])
def test_its_errors_reach_the_log_and_the_report_of_the_block(propagate, tmp_path, caplog):
    """And to measure blocks does not change a weight."""
    with caplog.at_level("INFO", "harness.quantization.tuning"):
        reports = walk(tmp_path, TUNING, propagate, block_error=True)[2]
    blocks = [report for report in reports if isinstance(report, BlockReport)]
    told = [message.split(" tuning error ") for message in caplog.messages]
    assert [name for name, _ in told] == [block.name for block in blocks] and len(blocks) == 3
    for block, (_, errors) in zip(blocks, told, strict=True):
        before, after = (block.row()[f"stats.tuning_error_{when}"] for when in ("before", "after"))
        assert after < before and errors == f"{before:.6g} to {after:.6g}"
    plain = walk(tmp_path, None, propagate, block_error=True)[2]
    assert not any("stats.tuning_error_before" in r.row() for r in plain if isinstance(r, BlockReport))
    linears = [report.error for report in reports if not isinstance(report, BlockReport)]
    assert linears == [report.error for report in walk(tmp_path, TUNING, propagate)[2]]


def test_norms_are_set_in_the_model(tmp_path):
    model, _, _ = walk(tmp_path, TUNING)
    untouched, _, _ = walk(tmp_path, None)
    norms = [name for name, _ in untouched.named_parameters() if "layernorm" in name]
    assert norms and all(
        not torch.equal(model.get_parameter(name), untouched.get_parameter(name)) for name in norms
    )


def test_a_yaml_may_name_a_tuning_or_not():
    solver = {"_target_": "methods.rtn.RTN"}
    fields = {"steps": 1, "learning_rate": 0.1, "norm_learning_rate": None, "batches_per_step": 1, "seed": 0}
    tuning = {"_target_": "methods.centroid_tuning.CentroidTuning"} | fields
    assert build_method({"name": "a", "solver": solver, "tuning": tuning}).tuning.steps == 1
    assert build_method({"name": "a", "solver": solver, "tuning": None}).tuning is None
    assert build_method({"name": "a", "solver": solver}).tuning is None
    with pytest.raises(Exception, match="nothing to do"):
        build_method({"name": "a", "solver": None, "tuning": tuning})
