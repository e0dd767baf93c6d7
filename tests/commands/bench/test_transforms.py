"""`ptq-bench bench transforms`: every column is there, what was not run is extrapolated as it says, nonsense
is refused in one line.
"""

import csv
import math
from pathlib import Path

import pytest
import torch

from harness.benchmarks import random_block, transforms
from harness.cli import main
from harness.models.families import family_of, skeleton
from methods.awq import AWQ
from methods.contracts.scheme import Scheme

SMALL = ["--shape", "tiny", "--scheme", "w3a16", "--samples", "4", "--tokens", "16", "--batch-size", "2"]


@pytest.fixture
def run(tmp_path):
    """`ptq-bench bench transforms` on a tiny block; (exit code, rows of the CSV)."""

    def command(*arguments: str) -> tuple[int, list[dict]]:
        code = main(["bench", "transforms", *SMALL, "--out", str(tmp_path), *arguments])
        path = Path(tmp_path / "bench_transforms.csv")
        return code, list(csv.DictReader(path.open())) if path.exists() else []

    return command


def test_every_transform_has_its_row_and_every_column_its_number(run, capsys):
    code, rows = run("--epochs", "2")
    assert code == 0 and [row["transform"] for row in rows] == [
        "smoothquant",
        "awq",
        "omniquant",
        "affinequant",
    ]
    for row in rows:
        learned = row["transform"] in ("omniquant", "affinequant")
        assert float(row["seconds"]) > 0 and int(row["peak_bytes"]) > 0 and row["blocks"] == "3"
        assert all(bool(row[name]) is learned for name in ("epochs_run", "epochs", "epoch_seconds", "cost"))
        expected = float(row["seconds"]) + (18 * float(row["epoch_seconds"]) if learned else 0)
        assert float(row["block_seconds"]) == pytest.approx(expected) and expected > 0
        assert float(row["model_hours"]) == pytest.approx(3 * expected / 3600)
    assert (rows[-1]["epochs_run"], rows[-1]["epochs"]) == ("2", "20")
    shown = capsys.readouterr().out
    assert (
        "2 of 20" in shown
        and f"{float(rows[-1]['cost']):.3g}" in shown
        and "4 × 16 tokens in batches of 2" in shown
    )
    assert "8.65 h, 21.2 GB" in shown and "A100 80 GB" in shown


def test_more_epochs_than_configured_are_not_run(run):
    _, (row,) = run("--transforms", "omniquant_small", "--epochs", "99")
    assert row["epochs_run"] == row["epochs"] and int(row["epochs"]) < 99
    assert row["block_seconds"] == row["seconds"]


def test_hours_of_a_model_by_hand():
    fields = dict(
        transform="x", shape="opt-6.7b", scheme="w4a16g128", samples=128, tokens=2048, batch_size=1, blocks=32
    )
    result = transforms.Result(**fields, epochs_run=2, epochs=20, seconds=130.0, epoch_seconds=50.0)
    assert result.block_seconds == 130 + 18 * 50
    assert result.model_hours == pytest.approx(32 * 1030 / 3600)
    searched = transforms.Result(**fields, seconds=90.0)
    assert searched.block_seconds == 90 and searched.model_hours == pytest.approx(0.8)
    assert transforms.Result(**fields, reason="no").model_hours is None


def test_the_first_step_is_not_in_the_seconds_of_an_epoch():
    run = transforms._Run(None, None, [], None, None)
    run.ends = [100.0, 101.0, 103.0, 106.0]
    assert run.step_seconds == 2.0


def test_a_transform_that_fails_or_refuses_costs_its_row_alone(run, monkeypatch, capsys):
    def fail(self, *arguments):
        raise RuntimeError("no luck\nat all")

    monkeypatch.setattr(AWQ, "apply_", fail)
    code, rows = run("--transforms", "awq,smoothquant")
    assert (
        code == 1 and rows[0]["reason"] == "failed: RuntimeError: no luck at all" and not rows[0]["seconds"]
    )
    assert rows[1]["seconds"] and "awq: failed" in capsys.readouterr().out
    monkeypatch.setattr(
        AWQ,
        "skip_reason",
        lambda self, scheme, seams: "not with this scheme" if isinstance(scheme, Scheme) else None,
    )
    code, rows = run("--transforms", "awq")
    assert code == 0 and rows[0]["reason"] == "not with this scheme"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--transforms", "affine"], "--transforms affine"),
        (["--scheme", "w5x"], "--scheme w5x"),
        (["--scheme", "w4a16g128"], "groups of 128 do not divide the width 64 of tiny"),
        (["--samples", "3"], "--samples 3: must be whole batches of 2"),
        (["--samples", "2"], "at least two"),
        (["--samples", "0"], "--samples 0"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--epochs", "0"], "--epochs 0"),
        (["--tokens", "1"], "--tokens 1"),
    ],
)
def test_wrong_options_get_one_line_and_measure_nothing(arguments, words, run, capsys):
    assert run(*arguments) == (2, [])
    shown = capsys.readouterr().err
    assert words in shown and shown.count("\n") == 1


def test_the_random_block_is_the_same_every_time_and_has_large_channels():
    state = torch.random.get_rng_state()
    (block, samples), (again, others) = (
        random_block.random_lesson("tiny", 4, 16, 2, "cpu") for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(block.module.parameters(), again.module.parameters(), strict=True)
    )
    assert len(samples) == 2 and samples[0].hidden.shape == (2, 16, 64)
    assert torch.equal(samples[1].hidden, others[1].hidden) and not torch.equal(
        samples[0].hidden, samples[1].hidden
    )
    assert torch.equal(block.run(samples[1].hidden, samples[1].call), samples[1].target)
    sizes = torch.cat([sample.hidden for sample in samples]).std((0, 1))
    assert (sizes > 8).sum() == math.ceil(0.01 * 64) and sizes.median() < 1.3


@pytest.mark.parametrize(
    ("name", "parameters"), [("llama-7b", 202_383_360), ("opt-6.7b", 201_379_840), ("smollm2", 3_540_096)]
)
def test_shapes_have_as_many_parameters_in_a_block_as_the_models(name, parameters):
    """LLaMA-7B: 4 w^2 + 3 w 11008 + 2 w; OPT-6.7B: 12 w^2 + 13 w, with biases and both norms; w = 4096."""
    config = random_block.SHAPES[name].config(2048)
    block = family_of(config).block_list(skeleton(config, torch.float32))[0]
    assert sum(parameter.numel() for parameter in block.parameters()) == parameters
