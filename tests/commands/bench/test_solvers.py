"""`ptq-bench bench solvers`: what it measures is what is there, what it cannot measure it says."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.benchmarks import layers, measure, solvers, textbook
from harness.cli import main
from harness.commands.bench.solvers import figure_of
from harness.config import compose
from harness.foundation.errors import UserError
from harness.reporting.drawing.marks import front
from methods.gptq import GPTQ
from tests.helpers.problems import correlated_hessian, layer_problem

PNG = b"\x89PNG"


@pytest.fixture
def file(tmp_path) -> Path:
    tensors = {}
    for seed, (name, rows, columns) in enumerate([("narrow", 24, 32), ("wide", 16, 64)]):
        problem = layer_problem(rows, columns, seed, torch.float32)
        tensors |= {
            f"{name}.weight": problem.weight.contiguous(),
            f"{name}.hessian": problem.hessian.contiguous(),
        }
    save_file(tensors, tmp_path / "layers.safetensors")
    return tmp_path / "layers.safetensors"


@pytest.fixture
def run(file, tmp_path):
    """`ptq-bench bench solvers` on two small layers; (exit code, rows of the CSV)."""

    def command(*arguments: str) -> tuple[int, list[dict]]:
        options = ["--layers", str(file), "--no-model", "--repeats", "1", "--out", str(tmp_path / "out")]
        code = main(["bench", "solvers", *options, *arguments])
        path = tmp_path / "out" / "bench_solvers.csv"
        return code, list(csv.DictReader(path.open())) if path.exists() else []

    return command


def test_every_number_is_the_one_of_the_solver(run, tmp_path, capsys):
    code, rows = run("--methods", "rtn,gptq", "--schemes", "w3,w2g16s3", "--outliers", "0")
    assert code == 0 and len(rows) == 2 * 2 * 2
    assert [row["method"] for row in rows[:4]] == ["rtn", "rtn", "gptq", "gptq"]
    problem = layer_problem(24, 32, 0, torch.float32, **vars(compose.scheme_named("w3")))
    rounded = layers.method_named("gptq").solver.solve(problem).weight
    (row,) = (row for row in rows if (row["scheme"], row["method"], row["layer"]) == ("w3", "gptq", "narrow"))
    lost, weight = (problem.weight - rounded.dequantize()).double(), problem.weight.double()
    hessian = problem.hessian.double()
    expected = torch.trace(lost @ hessian @ lost.T) / torch.trace(weight @ hessian @ weight.T)
    assert float(row["error"]) == pytest.approx(expected.item(), rel=1e-9)
    assert float(row["true_bits"]) == 8 * sum(tensor.nbytes for tensor in rounded.tensors().values()) / (
        24 * 32
    )
    assert float(row["seconds"]) > 0 and row["shape"] == "24x32" and row["reason"] == ""
    assert (tmp_path / "out" / "bench_solvers.png").read_bytes().startswith(PNG)
    shown = capsys.readouterr().out
    assert f"{float(row['error']):.5f}" in shown and "column loops" in shown


def test_a_scheme_that_a_method_refuses_is_a_dash_with_its_reason(run, capsys):
    code, rows = run("--methods", "rtn,spqr", "--schemes", "w3", "--outliers", "0,0.05")
    refused = [row for row in rows if row["reason"]]
    assert code == 0 and {(row["method"], row["outlier_ratio"]) for row in refused} == {("rtn", "0.05")}
    assert all(row["error"] == row["seconds"] == "" for row in refused)
    shown = capsys.readouterr().out
    assert f"¹ {refused[0]['reason']}" in shown and "–¹" in shown
    kept = [
        float(row["outliers"]) for row in rows if row["method"] == "spqr" and row["outlier_ratio"] == "0.05"
    ]
    assert all(0.02 < share < 0.08 for share in kept)


def test_groups_that_do_not_fit_a_layer_cost_that_layer_alone(run):
    _, rows = run("--methods", "rtn", "--schemes", "w3g64", "--outliers", "0")
    assert [(row["layer"], bool(row["error"])) for row in rows] == [("narrow", False), ("wide", True)]
    assert "64 do not divide the width 32 of narrow" in rows[0]["reason"]


def test_a_solver_that_fails_is_reported_and_the_others_are_measured(run, monkeypatch, capsys):
    def fail(self, problem):
        raise RuntimeError("no luck\nat all")

    monkeypatch.setattr(GPTQ, "solve", fail)
    code, rows = run("--methods", "rtn,gptq", "--schemes", "w3", "--outliers", "0")
    assert code == 1
    assert {row["reason"] for row in rows if row["method"] == "gptq"} == {
        "failed: RuntimeError: no luck at all"
    }
    assert all(row["error"] for row in rows if row["method"] == "rtn")
    assert "no luck at all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "gtpq"], "--methods gtpq"),
        (["--schemes", "w5x"], "--schemes w5x"),
        (["--bits", "7"], "--bits 7"),
        (["--bits", "two"], "--bits two"),
        (["--outliers", "0.7"], "--outliers 0.7"),
        (["--layers", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--layers", __file__], "--layers"),
    ],
)
def test_wrong_options_get_one_line_and_measure_nothing(arguments, words, run, capsys):
    assert run(*arguments) == (2, [])
    shown = capsys.readouterr().err
    assert words in shown and shown.count("\n") == 1


@pytest.mark.parametrize("damage", ["no hessian", "wrong shape", "integers"])
def test_layer_files_are_checked(damage, tmp_path):
    tensors = {"a.weight": torch.zeros(3, 4), "a.hessian": torch.zeros(4, 4)}
    if damage == "no hessian":
        del tensors["a.hessian"]
    elif damage == "wrong shape":
        tensors["a.hessian"] = torch.zeros(3, 3)
    else:
        tensors = {name: tensor.int() for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "layers.safetensors")
    with pytest.raises(UserError, match="needs"):
        layers.read_layers(tmp_path / "layers.safetensors")


def test_bits_choose_among_the_schemes(run):
    _, rows = run("--methods", "rtn", "--bits", "2", "--outliers", "0")
    assert {row["scheme"] for row in rows} == {"w2", "w2g16s3"}


def test_peak_memory_is_what_was_held_at_once():
    """Three arrays of 48 MB one after the other, never two at a time, and then two: beyond 32 MiB each is
    given back when it is freed.
    """

    def one_at_a_time():
        for _ in range(3):
            torch.ones(12_000_000)

    def two():
        return torch.ones(12_000_000), torch.ones(12_000_000)

    if measure.peak_extra_bytes(lambda: None, "cpu") is None:
        pytest.skip("this system does not say what is resident")
    for work, expected in ((one_at_a_time, 48e6), (two, 96e6)):
        assert measure.peak_extra_bytes(work, "cpu") == pytest.approx(expected, rel=0.15)


def test_the_slow_forms_arrive_at_the_same_errors():
    problem = layer_problem(24, 64, 3, torch.float32)
    rows = textbook.compare(layers.Layer("a", problem.weight, problem.hessian), "cpu")
    assert [row["algorithm"] for row in rows] == ["quantease", "quantease, 1 % outliers", "vptq, its pass"]
    for row in rows:
        assert row["error"] == pytest.approx(row["textbook_error"], rel=0.01), row["algorithm"]
        assert row["ratio"] == row["textbook_seconds"] / row["seconds"] > 0


def test_the_front_holds_what_nothing_beats():
    points = [(2.0, 0.5), (3.0, 0.6), (3.0, 0.2), (4.0, 0.2), (2.5, 0.4), (2.5, 0.4)]
    assert front(points) == [(2.0, 0.5), (2.5, 0.4), (3.0, 0.2)]


def test_the_figure_does_not_change_from_one_run_to_the_next():
    results = [solvers.Result("a", "2x2", "w3", 3, None, "search", 0.0, "rtn", 0.1, 3.03, 0.0, 1.0)]
    results += [
        replace(results[0], method="gptq", error=0.05),
        replace(results[0], method="spqr", error=None, reason="no"),
    ]
    layer = layers.Layer("a", torch.zeros(2, 2), correlated_hessian(2, 0))
    assert figure_of([layer], results) == figure_of([layer], results)
