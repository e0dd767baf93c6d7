"""`ptq-bench bench solvers`: error, true bits, seconds and memory of every solver on the same real layers."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from harness.benchmarks import solvers, textbook, whole_model
from harness.benchmarks.figures import solvers_figure
from harness.benchmarks.layers import Layer, read_layers, real_layers, solver_names
from harness.benchmarks.measure import csv_text, machine, write
from harness.commands.bench.options import BenchOptions, chosen, console, titled_table, values
from harness.config.compose import scheme_named, scheme_names
from harness.foundation.errors import UserError

SCHEMES = "w4,w3,w2,w3g16s3,w2g16s3"


def main(argv: Sequence[str]) -> int:
    """Measure, show, write the CSV and the figure; 1 where a solver failed."""
    options = _options().parse_args(argv)
    work, device, out = _work(options), options.device, options.out
    with Console(stderr=True).status("") as status:
        results = list(solvers.measure(work, status.update))
    write(out / "bench_solvers.csv", csv_text(map(asdict, results)))
    view, notes = solvers.table(results, f"layer error tr((W−Q)H(W−Q)ᵀ) / tr(WHWᵀ), {machine(device)}")
    console.print(view, *notes, sep="\n")
    if any(result.error for result in results):
        write(out / "bench_solvers.png", figure_of(work.layers, results))
        console.print(f"{out / 'bench_solvers.csv'}, {out / 'bench_solvers.png'}")
    widest = max(work.layers, key=lambda layer: layer.weight.shape[1])
    _show_comparisons(widest.to(device), device)
    for sentence in () if options.no_model else whole_model.whole_model():
        console.print(sentence)
    return 1 if any(result.reason.startswith("failed") for result in results) else 0


def _options() -> BenchOptions:
    options = BenchOptions("solvers", "Every solver on the same real layers.")
    layers = "safetensors file with NAME.weight and NAME.hessian (default: three layers of SmolLM2)"
    options.add_argument("--layers", type=Path, metavar="FILE", help=layers)
    options.add("--methods", None, "comma separated (default: all)")
    options.add("--schemes", SCHEMES, "names of conf/scheme, comma separated")
    options.add("--bits", None, "of the schemes only those of so many bits, comma separated (default: all)")
    options.add("--outliers", "0,0.01", "shares of float16 entries, comma separated")
    options.add("--repeats", 3, "solves per median, fewer of slow ones")
    slow = "leave out the whole-model times, which take minutes"
    options.add_argument("--no-model", action="store_true", help=slow)
    return options


def _work(options: Namespace) -> solvers.Work:
    names, methods = chosen("--schemes", options.schemes, scheme_names()), solver_names()
    schemes = [(name, scheme_named(name)) for name in names]
    bits = options.bits and values("--bits", options.bits, int)
    work = solvers.Work(
        layers=read_layers(options.layers) if options.layers else real_layers(),
        schemes=[(name, scheme) for name, scheme in schemes if not bits or scheme.bits in bits],
        outliers=values("--outliers", options.outliers, float, lambda ratio: 0 <= ratio <= 0.5),
        methods=chosen("--methods", options.methods, methods) if options.methods else methods,
        device=options.device,
        repeats=max(1, options.repeats),
    )
    if not work.schemes:
        raise UserError(f"--bits {options.bits}: no scheme of --schemes {options.schemes} has so many")
    return work


def figure_of(layers: Sequence[Layer], results: Sequence[solvers.Result]) -> bytes:
    panels = []
    for layer in layers:
        methods: dict[str, list[tuple[float, float]]] = {}
        for result in results:
            if result.layer == layer.name and result.error:
                methods.setdefault(result.method, []).append((result.true_bits, result.error))
        panels += [(layer.title, methods)] if methods else []
    schemes = ", ".join(dict.fromkeys(result.scheme for result in results))
    shares = dict.fromkeys(f"{100 * result.outlier_ratio:g} %" for result in results)
    marks = "filled: the method's own best · grey: the best of all"
    return solvers_figure(panels, f"{schemes}; outliers {', '.join(shares)} · {marks}")


def _show_comparisons(layer: Layer, device: str) -> None:
    heads = "seconds", "error", "loop: seconds", "error", "ratio"
    table = titled_table("against the papers' column loops in torch, float32", ("algorithm", "layer"), heads)
    for row in textbook.compare(layer, device):
        own, loop = (f"{row['seconds']:.3f}", f"{row['error']:.6f}"), f"{row['textbook_seconds']:.3f}"
        other = loop, f"{row['textbook_error']:.6f}", f"{row['ratio']:.1f}×"
        table.add_row(f"{row['algorithm']}: {row['what']}", row["layer"], *own, *other)
    console.print(table)
