"""`ptq-bench bench scaling`: seconds of QuantEase's sweeps against the width of a layer, and what they mean
for very large models.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console

from harness.benchmarks import scaling
from harness.benchmarks.figures import scaling_figure
from harness.benchmarks.measure import csv_text, machine, write
from harness.commands.bench.options import BenchOptions, console, titled_table, values
from harness.foundation.errors import UserError

DERIVED = ("sweep_seconds", "rate", "product_rate", "share")  # columns of the CSV beside what was measured


def main(argv: Sequence[str]) -> int:
    """Measure, show, write the CSV and the figure."""
    options = _options().parse_args(argv)
    solver, out = scaling.solver_for(options.matmul, options.sweeps), options.out
    if solver.sweeps < 1:
        raise UserError(f"--sweeps {solver.sweeps}: must be at least 1")
    widths = values("--widths", options.widths, int, lambda width: width >= 16)
    budget = scaling.Budget(options.max_seconds, time.perf_counter())
    sizes, ending = [], None
    with Console(stderr=True).status("widths …") as status:
        for size in scaling.measure(widths, solver, options.device, budget):
            if isinstance(size, str):
                ending = size
            else:
                sizes.append(size)
                status.console.print(f"width {size.width}: {size.seconds:.2f} s")
    coefficients = scaling.fit(sizes)
    precision = f"{solver.matmul.name}, {solver.sweeps} sweeps, {machine(options.device)}"
    _show_sizes(sizes, coefficients, precision, ending)
    _show_models(sizes[-1])
    rows = [asdict(size) | {name: getattr(size, name) for name in DERIVED} for size in sizes]
    write(out / "bench_scaling.csv", csv_text(rows))
    points = [(size.width, size.sweep_seconds, size.product_seconds) for size in sizes]
    write(out / "bench_scaling.png", scaling_figure(points, coefficients, precision))
    console.print(f"{out / 'bench_scaling.csv'}, {out / 'bench_scaling.png'}")
    return 0


def _options() -> BenchOptions:
    options = BenchOptions("scaling", "Seconds of a sweep against the width of a layer.")
    options.add("--widths", "512,1024,2048,4096,8192,16384", "comma separated")
    options.add("--max-seconds", 600.0, "begin no width that would end later")
    options.add_argument("--sweeps", type=int, help="fewer than the configured sweeps, for a quick look")
    options.add("--matmul", None, "precision of the products: float32 or tf32 (default: as configured)")
    return options


def _show_sizes(
    sizes: Sequence[scaling.Size], coefficients: tuple[float, float], precision: str, ending: str | None
) -> None:
    solve = ("whole solve, s", "of it set-up, s", "one sweep, s")
    heads = ("width", *solve, "sweep, TFLOP/s", "product, TFLOP/s", "share")
    table = titled_table(f"QuantEase, rows = width, {precision}", (), heads)
    for size in sizes:
        seconds = [f"{value:.4g}" for value in (size.seconds, size.setup_seconds, size.sweep_seconds)]
        rates = [f"{value / 1e12:.3g}" for value in (size.rate, size.product_rate)]
        table.add_row(str(size.width), *seconds, *rates, f"{100 * size.share:.0f} %")
    console.print(table)
    console.print(f"seconds of a sweep ∝ width^{coefficients[1]:.2f} (least squares over all widths)")
    if max(size.share for size in sizes) > 1:
        console.print("above 100 %: blocks of columns in which few weights move skip the product")
    if ending:
        console.print(ending)


def _show_models(largest: scaling.Size) -> None:
    heads = ("blocks", "hours here", "paper, one A100", "widest layer / measured")
    table = titled_table("extrapolated to whole models", ("model",), heads)
    for entry in scaling.extrapolate(largest):
        hours = f"{entry.hours:,.0f} h" if entry.hours >= 10 else f"{entry.hours:.2f} h"
        paper = f"{entry.paper_hours:g} h" if entry.paper_hours else "–"
        table.add_row(entry.model, str(entry.blocks), hours, paper, f"{entry.beyond:.1f}×")
    console.print(table, scaling.caveat(largest), sep="\n")
