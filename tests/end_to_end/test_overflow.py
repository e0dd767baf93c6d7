"""Activations that float16 cannot hold: one cause, one status, one remedy, whatever the method."""

import json
from pathlib import Path

import pytest
import torch

from harness.cli import main
from harness.models import tiny

LIMIT = "beyond 65504, the largest number of this type"
CAUSE = f"not finite in float16: {LIMIT}; try model.dtype=bfloat16 or float32"


@pytest.fixture
def loud(tmp_path, monkeypatch):
    """A model whose weights fit float16 and whose activations do not."""
    monkeypatch.chdir(tmp_path)
    model, tokenizer = tiny.tiny_model("llama", dtype=torch.float32)
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.up_proj.weight.mul_(1e4)
            block.mlp.down_proj.weight.mul_(1e3)
    model.save_pretrained("loud")
    tokenizer.save_pretrained("loud")


def ended(*overrides):
    """Records of what was run, by method."""
    quick = ["data=synthetic", "eval=smoke", "data.samples=4", "eval.windows=2", "scheme=w4g32"]
    main(["run", "isolate=false", "model=hub", "model.id=loud", *quick, *overrides])
    records = [json.loads(path.read_text()) for path in Path("results/runs").glob("*/record.json")]
    return {record["method"]["name"]: record for record in records}


@pytest.mark.parametrize("propagate", ["quantized", "float"])
def test_the_float_model_is_at_fault_and_no_method(loud, propagate):
    records = ended("model.dtype=float16", "method=float,rtn,gptq,awq", f"data.propagate={propagate}")
    assert {record["status"] for record in records.values()} == {"failed"} and len(records) == 4
    assert records["float"]["reason"] == f"the float model's logits are {CAUSE}"
    assert all(CAUSE in record["reason"] for record in records.values())


def test_the_remedy_helps(loud):
    records = ended("model.dtype=bfloat16", "method=rtn,gptq")
    assert [record["status"] for record in records.values()] == ["done"] * 3


def test_overflow_that_only_calibration_meets_is_no_method_s_fault_either(loud, monkeypatch):
    """The float model passed its evaluation."""
    from harness.evaluation import perplexity

    monkeypatch.setattr("harness.run.refusing_overflow", lambda model: torch.no_grad())
    monkeypatch.setattr(perplexity, "window_losses", lambda *_: torch.zeros(2))
    records = ended("model.dtype=float16", "method=rtn,gptq,smoothquant", "data.propagate=float")
    statuses = {name: record["status"] for name, record in records.items() if name != "float"}
    assert set(statuses.values()) == {"failed"} and len(statuses) == 3
    assert all(CAUSE in records[name]["reason"] for name in statuses)
