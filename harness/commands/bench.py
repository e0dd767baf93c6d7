"""`ptq-bench bench solvers`: error, true bits, seconds and memory of every solver on the same real layers.
`ptq-bench bench scaling`: seconds of QuantEase's sweeps against the width of a layer, and what they mean for
very large models. `ptq-bench bench transforms`: seconds and memory of the transforms on one random block of
a known shape, and what they mean for the model.

Times are those of this machine at this moment; compare numbers of one run with each other, not with those of
another.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.benchmarks import scaling, solvers, textbook, transforms, whole_model
from harness.benchmarks.figures import scaling_figure, solvers_figure
from harness.benchmarks.layers import Layer, read_layers, real_layers, solver_names
from harness.benchmarks.measure import csv_text, machine, write
from harness.config.compose import scheme_named, scheme_names, transform_names
from harness.foundation.errors import UserError

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
TRANSFORMS = "smoothquant,awq,omniquant,affinequant"
SCHEMES, WIDTHS = "w4,w3,w2,w3g16s3,w2g16s3", "512,1024,2048,4096,8192,16384"


def main(argv: list[str]) -> int:
    """Run the benchmark that the arguments name; 1 where a solver failed."""
    arguments = parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is visible")
    return arguments.run(arguments)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ptq-bench bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="WHAT")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    shared.add_argument(
        "--out",
        type=Path,
        default=Path("reports"),
        help="directory of the CSV and the figure (default: %(default)s)",
    )
    one = commands.add_parser("solvers", parents=[shared], help="every solver on the same real layers")
    one.set_defaults(run=bench_solvers)
    one.add_argument(
        "--layers",
        type=Path,
        help="safetensors file with NAME.weight and NAME.hessian (default: three layers of SmolLM2)",
    )
    one.add_argument("--methods", help="comma separated (default: all)")
    one.add_argument(
        "--schemes", default=SCHEMES, help="names of conf/scheme, comma separated (default: %(default)s)"
    )
    one.add_argument(
        "--bits", help="of the schemes only those of so many bits, comma separated (default: all)"
    )
    one.add_argument(
        "--outliers",
        default="0,0.01",
        help="shares of float16 entries, comma separated (default: %(default)s)",
    )
    one.add_argument(
        "--repeats", type=int, default=3, help="solves per median, fewer of slow ones (default: %(default)s)"
    )
    one.add_argument(
        "--no-model", action="store_true", help="leave out the whole-model times, which take minutes"
    )
    two = commands.add_parser(
        "scaling", parents=[shared], help="seconds of a sweep against the width of a layer"
    )
    two.set_defaults(run=bench_scaling)
    two.add_argument("--widths", default=WIDTHS, help="comma separated (default: %(default)s)")
    two.add_argument(
        "--max-seconds",
        type=float,
        default=600,
        help="begin no width that would end later (default: %(default)s)",
    )
    two.add_argument("--sweeps", type=int, help="fewer than the configured sweeps, for a quick look")
    two.add_argument("--matmul", help="precision of the products: float32 or tf32 (default: as configured)")
    three = commands.add_parser(
        "transforms", parents=[shared], help="transforms on one random block of a known shape"
    )
    three.set_defaults(run=bench_transforms)
    three.add_argument(
        "--transforms",
        default=TRANSFORMS,
        help="names of conf/method/transform, comma separated (default: %(default)s)",
    )
    three.add_argument(
        "--shape",
        default="llama-7b",
        choices=list(transforms.SHAPES),
        help="of the block (default: %(default)s)",
    )
    three.add_argument(
        "--scheme",
        default="w4a16g128",
        help="a name of conf/scheme; groups must fit the shape (default: %(default)s)",
    )
    three.add_argument(
        "--samples", type=int, default=128, help="windows of calibration text (default: %(default)s)"
    )
    three.add_argument("--tokens", type=int, default=2048, help="of a window (default: %(default)s)")
    three.add_argument("--batch-size", type=int, default=1, help="windows of one step (default: %(default)s)")
    three.add_argument(
        "--epochs",
        type=int,
        default=1,
        help="how many to run; the rest is extrapolated (default: %(default)s)",
    )
    return top


def bench_solvers(arguments: argparse.Namespace) -> int:
    schemes = [(name, scheme_named(name)) for name in chosen("--schemes", arguments.schemes, scheme_names())]
    bits = arguments.bits and values("--bits", arguments.bits, int)
    work = solvers.Work(
        layers=read_layers(arguments.layers) if arguments.layers else real_layers(),
        schemes=[(name, scheme) for name, scheme in schemes if not bits or scheme.bits in bits],
        outliers=values("--outliers", arguments.outliers, float, lambda ratio: 0 <= ratio <= 0.5),
        methods=chosen("--methods", arguments.methods, solver_names())
        if arguments.methods
        else solver_names(),
        device=arguments.device,
        repeats=max(1, arguments.repeats),
    )
    if not work.schemes:
        raise UserError(f"--bits {arguments.bits}: no scheme of --schemes {arguments.schemes} has so many")
    with Console(stderr=True).status("") as status:
        results = list(solvers.measure(work, status.update))
    write(arguments.out / "bench_solvers.csv", csv_text(map(asdict, results)))
    view, notes = solvers.table(
        results, f"layer error tr((W−Q)H(W−Q)ᵀ) / tr(WHWᵀ), {machine(arguments.device)}"
    )
    console.print(view, *notes, sep="\n")
    if any(result.error for result in results):
        write(arguments.out / "bench_solvers.png", figure_of(work.layers, results))
        console.print(f"{arguments.out / 'bench_solvers.csv'}, {arguments.out / 'bench_solvers.png'}")
    show_comparisons(
        max(work.layers, key=lambda layer: layer.weight.shape[1]).to(arguments.device), arguments.device
    )
    for sentence in () if arguments.no_model else whole_model.whole_model():
        console.print(sentence)
    return 1 if any(result.reason.startswith("failed") for result in results) else 0


def figure_of(layers: Sequence[Layer], results: Sequence[solvers.Result]) -> bytes:
    panels = []
    for layer in layers:
        methods: dict[str, list[tuple[float, float]]] = {}
        for result in results:
            if result.layer == layer.name and result.error:
                methods.setdefault(result.method, []).append((result.true_bits, result.error))
        panels += [(layer.title, methods)] if methods else []
    schemes = ", ".join(dict.fromkeys(result.scheme for result in results))
    ratios = ", ".join(
        f"{100 * ratio:g} %" for ratio in dict.fromkeys(result.outlier_ratio for result in results)
    )
    return solvers_figure(
        panels, f"{schemes}; outliers {ratios} · filled: the method's own best · grey: the best of all"
    )


def show_comparisons(layer: Layer, device: str) -> None:
    table = Table(
        title="against the papers' column loops in torch, float32",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for head in ("algorithm", "layer", "seconds", "error", "loop: seconds", "error", "ratio"):
        table.add_column(head, justify="left" if head in ("algorithm", "layer") else "right")
    for row in textbook.compare(layer, device):
        numbers = row["seconds"], row["error"], row["textbook_seconds"], row["textbook_error"], row["ratio"]
        formats = ("{:.3f}", "{:.6f}", "{:.3f}", "{:.6f}", "{:.1f}×")
        table.add_row(
            f"{row['algorithm']}: {row['what']}",
            row["layer"],
            *(f.format(n) for f, n in zip(formats, numbers, strict=True)),
        )
    console.print(table)


def bench_scaling(arguments: argparse.Namespace) -> int:
    solver = scaling.solver_for(arguments.matmul, arguments.sweeps)
    if solver.sweeps < 1:
        raise UserError(f"--sweeps {solver.sweeps}: must be at least 1")
    widths = values("--widths", arguments.widths, int, lambda width: width >= 16)
    budget = scaling.Budget(arguments.max_seconds, time.perf_counter())
    sizes, ending = [], None
    with Console(stderr=True).status("widths …") as status:
        for found in scaling.measure(widths, solver, arguments.device, budget):
            if isinstance(found, str):
                ending = found
            else:
                sizes.append(found)
                status.console.print(f"width {found.width}: {found.seconds:.2f} s")
    coefficients = scaling.fit(sizes)
    precision = f"{solver.matmul.name}, {solver.sweeps} sweeps, {machine(arguments.device)}"
    show_scaling(sizes, coefficients, precision, ending)
    rows = [
        asdict(s)
        | {"sweep_seconds": s.sweep_seconds, "rate": s.rate, "product_rate": s.product_rate, "share": s.share}
        for s in sizes
    ]
    write(arguments.out / "bench_scaling.csv", csv_text(rows))
    points = [(size.width, size.sweep_seconds, size.product_seconds) for size in sizes]
    write(arguments.out / "bench_scaling.png", scaling_figure(points, coefficients, precision))
    console.print(f"{arguments.out / 'bench_scaling.csv'}, {arguments.out / 'bench_scaling.png'}")
    return 0


def show_scaling(
    sizes: Sequence[scaling.Size], coefficients: tuple[float, float], precision: str, ending: str | None
) -> None:
    table = Table(
        title=f"QuantEase, rows = width, {precision}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for head in (
        "width",
        "whole solve, s",
        "of it set-up, s",
        "one sweep, s",
        "sweep, TFLOP/s",
        "product, TFLOP/s",
        "share",
    ):
        table.add_column(head, justify="right")
    for size in sizes:
        seconds = [f"{value:.4g}" for value in (size.seconds, size.setup_seconds, size.sweep_seconds)]
        rates = [f"{value / 1e12:.3g}" for value in (size.rate, size.product_rate)]
        table.add_row(str(size.width), *seconds, *rates, f"{100 * size.share:.0f} %")
    console.print(
        table, f"seconds of a sweep ∝ width^{coefficients[1]:.2f} (least squares over all widths)", sep="\n"
    )
    if max(size.share for size in sizes) > 1:
        console.print("above 100 %: blocks of columns in which few weights move skip the product")
    if ending:
        console.print(ending)
    model = Table(title="extrapolated to whole models", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("model", "blocks", "hours here", "paper, one A100", "widest layer / measured"):
        model.add_column(head, justify="left" if head == "model" else "right")
    for entry in scaling.extrapolate(sizes[-1]):
        paper = f"{entry.paper_hours:g} h" if entry.paper_hours else "–"
        model.add_row(
            entry.model,
            str(entry.blocks),
            f"{entry.hours:,.0f} h" if entry.hours >= 10 else f"{entry.hours:.2f} h",
            paper,
            f"{entry.beyond:.1f}×",
        )
    console.print(model, scaling.caveat(sizes[-1]), sep="\n")


def bench_transforms(arguments: argparse.Namespace) -> int:
    work = transforms.Work(
        transforms=chosen("--transforms", arguments.transforms, transform_names()),
        shape=arguments.shape,
        scheme_name=chosen("--scheme", arguments.scheme, scheme_names())[0],
        samples=arguments.samples,
        tokens=arguments.tokens,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        device=arguments.device,
    )
    with Console(stderr=True).status("") as status:
        results = list(transforms.measure(work, status.update))
    rows = [
        asdict(result) | {"block_seconds": result.block_seconds, "model_hours": result.model_hours}
        for result in results
    ]
    write(arguments.out / "bench_transforms.csv", csv_text(rows))
    view, notes = transforms.table(results, work, machine(arguments.device))
    console.print(view, *notes, arguments.out / "bench_transforms.csv", sep="\n")
    return 1 if any(result.reason.startswith("failed") for result in results) else 0


def chosen(flag: str, text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"{flag} {name}: no such name; choose among {', '.join(known)}")
    return names


def values(flag: str, text: str, kind: type, fits: Callable = lambda value: True) -> list:
    """Numbers, comma separated.

    Raises:
        UserError: one is no number, or not in its range.
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{flag} {text}: needs numbers, comma separated") from None
    if not all(map(fits, found)):
        raise UserError(f"{flag} {text}: out of range")
    return found
