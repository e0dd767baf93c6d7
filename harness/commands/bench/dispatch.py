"""`ptq-bench bench`: measure solvers and transforms on this machine. Times are those of this machine at this
moment; compare numbers of one run with each other, not with those of another.
"""

from harness.foundation.errors import UserError

BENCHMARKS = {
    "solvers": "error, true bits, seconds and memory of every solver on the same real layers",
    "scaling": "seconds of QuantEase's sweeps against the width of a layer, and those of very large models",
    "transforms": "seconds and memory of the transforms on one random block, and those of its model",
}


def main(argv: list[str]) -> int:
    """Run the benchmark that the first argument names; 1 where something that was measured failed."""
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, BENCHMARKS))
        print(__doc__, *(f"  {name:<{width}}  {what}" for name, what in BENCHMARKS.items()), sep="\n")
        print("\nptq-bench bench NAME --help says more.")
        return 0
    if name not in BENCHMARKS:
        raise UserError(f"bench {name}: no such benchmark; choose among {', '.join(BENCHMARKS)}")
    if name == "solvers":
        from harness.commands.bench.solvers import main as benchmark
    elif name == "scaling":
        from harness.commands.bench.scaling import main as benchmark
    else:
        from harness.commands.bench.transforms import main as benchmark
    return benchmark(rest)
