"""What a sweep shares: one command for all points against a cold command for each, on SmolLM2."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.foundation.cache import cache_dir
from harness.foundation.errors import UserError

# of the cache: what was downloaded and converted once is there for the cold runs too
LINKED = ("assets", "models", "corpora")


@dataclass(frozen=True)
class Timed:
    """One command."""

    name: str
    points: int
    seconds: float


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
        yield _timed(
            f"cold {method} {schemes[0]}",
            1,
            [f"method={method}", f"scheme={schemes[0]}", *overrides],
            place / f"cold-{method}",
        )
    grid = [f"method={','.join(methods)}", f"scheme={','.join(schemes)}"]
    yield _timed("sweep", len(methods) * len(schemes), [*grid, *overrides], place / "sweep")


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
