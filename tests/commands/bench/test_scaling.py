"""`ptq-bench bench scaling`: the fit, the extrapolation to large models, and where a measurement ends."""

import csv
import math
import time

import pytest

from harness.benchmarks import scaling
from harness.benchmarks.figures import scaling_figure
from harness.cli import main
from harness.foundation.errors import UserError

PNG = b"\x89PNG"


def made_up(width: int) -> scaling.Size:
    """Sweeps of 2e-9 * width^3 seconds, products twice as fast."""
    return scaling.Size(width, 10, 10 * 2e-9 * width**3 + 1e-8 * width**2, 1e-8 * width**2, 1e-9 * width**3)


def test_the_fit_finds_the_power_and_the_share():
    sizes = [made_up(width) for width in (512, 1024, 4096)]
    constant, exponent = scaling.fit(sizes)
    assert exponent == pytest.approx(3) and constant == pytest.approx(math.log(2e-9))
    assert sizes[0].share == pytest.approx(0.5) and sizes[0].rate == pytest.approx(1e9)
    with pytest.raises(UserError, match="two widths"):
        scaling.fit(sizes[:1])


def test_the_extrapolation_is_the_sum_over_all_linears():
    opt, falcon = scaling.extrapolate(made_up(4096))
    square, down = 9216**2 * 9216, 9216 * 36864**2
    operations = 2 * (4 * square + 36864 * 9216**2 + down) * 10
    expected = 64 * (operations / 1e9 + 1e-8 * 12 * 9216**2) / 3600
    assert opt.hours == pytest.approx(expected) and opt.beyond == 9 and opt.paper_hours is None
    assert falcon.paper_hours == 3 and falcon.blocks == 80


@pytest.mark.parametrize(
    ("model", "embeddings", "billions"),
    [("OPT-66B", 50272 * 9216, 65.7), ("Falcon-180B", 2 * 65024 * 14848, 179.5)],
)
def test_the_shapes_of_large_models_add_up(model, embeddings, billions):
    """To the published number of parameters."""
    blocks, linears = scaling.MODELS[model]
    assert (blocks * sum(rows * columns for rows, columns in linears) + embeddings) / 1e9 == pytest.approx(
        billions, abs=0.05
    )


def test_scaling_measures_fits_and_draws(tmp_path, capsys):
    code = main(["bench", "scaling", "--widths", "32,64,128", "--sweeps", "3", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "bench_scaling.csv").open()))
    assert code == 0 and [row["width"] for row in rows] == ["32", "64", "128"]
    for row in rows:
        share = 2 * int(row["width"]) ** 3 / float(row["sweep_seconds"]) / float(row["product_rate"])
        assert float(row["share"]) == pytest.approx(share)
    assert (tmp_path / "bench_scaling.png").read_bytes().startswith(PNG)
    for words in ("Falcon-180B", "3 h", "Extrapolated from width 128", "width^"):
        assert words in shown, words


def test_the_budget_and_the_memory_end_a_measurement_with_a_sentence(monkeypatch):
    solver = scaling.solver_for(None, 2)
    spent = scaling.Budget(0.0, time.perf_counter())
    first, ending = scaling.measure([64, 32, 128], solver, "cpu", spent)
    assert first.width == 32 and ending.startswith("not measured: 64, 128") and "--max-seconds" in ending
    monkeypatch.setattr(scaling, "available_bytes", lambda device: scaling.COPIES * 4 * 40**2)
    first, ending = scaling.measure([32, 64], solver, "cpu", scaling.Budget(60, time.perf_counter()))
    assert first.width == 32 and "GiB" in ending


def test_a_precision_that_there_is_not_is_refused(capsys):
    assert main(["bench", "scaling", "--matmul", "float7"]) == 2
    assert main(["bench", "scaling", "--widths", "1"]) == 2
    assert main(["bench", "scaling", "--sweeps", "0", "--widths", "32,64"]) == 2
    shown = capsys.readouterr().err
    assert "solver.matmul" in shown and "--widths 1" in shown and "sweeps" in shown


def test_the_figure_does_not_change_from_one_run_to_the_next():
    points = [(512, 2e-3, 1e-3), (1024, 1.4e-2, 8e-3)]
    assert scaling_figure(points, (-20.0, 2.9), "cpu") == scaling_figure(points, (-20.0, 2.9), "cpu")
