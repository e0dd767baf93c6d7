"""`ptq-bench bench transforms`: seconds and memory of the transforms on one random block of a known shape,
and what they mean for the model.
"""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console

from harness.benchmarks import transforms
from harness.benchmarks.measure import csv_text, machine, write
from harness.commands.bench.options import BenchOptions, chosen, console
from harness.config.compose import scheme_names, transform_names


def main(argv: Sequence[str]) -> int:
    """Measure, show, write the CSV; 1 where a transform failed."""
    options = _options().parse_args(argv)
    work = transforms.Work(
        transforms=chosen("--transforms", options.transforms, transform_names()),
        shape=options.shape,
        scheme_name=chosen("--scheme", options.scheme, scheme_names())[0],
        samples=options.samples,
        tokens=options.tokens,
        batch_size=options.batch_size,
        epochs=options.epochs,
        device=options.device,
    )
    with Console(stderr=True).status("") as status:
        results = list(transforms.measure(work, status.update))
    derived = ("block_seconds", "model_hours")
    rows = [asdict(result) | {name: getattr(result, name) for name in derived} for result in results]
    write(options.out / "bench_transforms.csv", csv_text(rows))
    view, notes = transforms.table(results, work, machine(options.device))
    console.print(view, *notes, options.out / "bench_transforms.csv", sep="\n")
    return 1 if any(result.reason.startswith("failed") for result in results) else 0


def _options() -> BenchOptions:
    options = BenchOptions("transforms", "Transforms on one random block of a known shape.")
    known = "names of conf/method/transform, comma separated"
    options.add("--transforms", "smoothquant,awq,omniquant,affinequant", known)
    shape = "of the block (default: %(default)s)"
    options.add_argument("--shape", default="llama-7b", choices=list(transforms.SHAPES), help=shape)
    options.add("--scheme", "w4a16g128", "a name of conf/scheme; groups must fit the shape")
    options.add("--samples", 128, "windows of calibration text")
    options.add("--tokens", 2048, "of a window")
    options.add("--batch-size", 1, "windows of one step")
    options.add("--epochs", 1, "how many to run; the rest is extrapolated")
    return options
