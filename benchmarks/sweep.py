"""What a sweep shares: one command for all points against a cold command for each, on SmolLM2:
`python -m benchmarks.sweep`. Times are those of this machine at this moment.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli import guarded
from harness.foundation.cache import cache_dir
from harness.foundation.errors import UserError

# of the cache: what was downloaded and converted once is there for the cold runs too
LINKED = ("assets", "models", "corpora")
SHARED = ["data.propagate=float", "eval=quick", "eval.corpora=[]", "eval.tasks=[analogies]"]


@dataclass(frozen=True)
class Timed:
    """One command."""

    name: str
    points: int
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Cold runs of each method, and the sweep; all schemes of a method count as the one that was run cold."""
    arguments = _parser().parse_args(argv)
    methods, schemes = arguments.methods.split(","), arguments.schemes.split(",")
    cold = 0.0
    with tempfile.TemporaryDirectory() as directory:
        for timed in sweep_times(methods, schemes, arguments.overrides, Path(directory)):
            print(f"{timed.name}: {timed.seconds:.1f} s for {timed.points} points", flush=True)
            if timed.name == "sweep":
                whole = len(schemes) * cold
                share = f"the sweep costs {timed.seconds / whole:.0%} of them"
                print(f"{timed.points} cold runs at those times: {whole:.1f} s; {share}")
            cold += timed.seconds
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    commas = "comma separated (default: %(default)s)"
    parser.add_argument("--methods", default="rtn,gptq,quantease", help=commas)
    parser.add_argument("--schemes", default="w4,w3,w2,w3g64", help=commas)
    default = f"of every run (default: {' '.join(SHARED)})"
    parser.add_argument("overrides", nargs="*", default=SHARED, help=default)
    return parser


def sweep_times(methods: list[str], schemes: list[str], overrides: list[str], place: Path) -> Iterator[Timed]:
    """Seconds of a cold run of every method under the first scheme, then of the whole sweep; each with a
    cache and results of its own.

    Args:
        overrides: of every run, such as data.samples=64.
        place: an empty directory.

    Raises:
        UserError: a run failed.
    """
    for method in methods:
        cold = [f"method={method}", f"scheme={schemes[0]}", *overrides]
        yield _timed(f"cold {method} {schemes[0]}", 1, cold, place / f"cold-{method}")
    grid = [f"method={','.join(methods)}", f"scheme={','.join(schemes)}", *overrides]
    yield _timed("sweep", len(methods) * len(schemes), grid, place / "sweep")


def _timed(name: str, points: int, overrides: list[str], place: Path) -> Timed:
    cache = place / "cache"
    cache.mkdir(parents=True)
    for part in LINKED:
        if (cache_dir() / part).is_dir():
            (cache / part).symlink_to(cache_dir() / part)
    command = [sys.executable, "-m", "harness.cli", "run", *overrides, f"paths.results={place / 'results'}"]
    start = time.perf_counter()
    ended = subprocess.run(
        command, env=os.environ | {"PTQ_BENCH_CACHE": str(cache)}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise UserError(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
    return Timed(name, points, seconds)


if __name__ == "__main__":
    sys.exit(guarded(main, debug=False))
