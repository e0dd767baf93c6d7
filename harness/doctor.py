"""`ptq-bench doctor`: what this machine has, and what will be missed, one line per finding with the knob to turn."""

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from harness import assets
from harness.records import versions

OK, NOTE, BAD = "ok", "note", "bad"
COLOURS = {OK: "green", NOTE: "yellow", BAD: "red"}


def main(argv: list[str]) -> int:
    """Print the findings; 1 if one of them stops a run."""
    parser = argparse.ArgumentParser(prog="ptq-bench doctor", description=__doc__)
    parser.add_argument("--results", default="results", help="directory that runs will write to (paths.results)")
    findings = list(check(parser.parse_args(argv).results))
    console = Console(highlight=False)
    for level, text in findings:
        console.print(f"[{COLOURS[level]}]{level:<4}[/] {text}", soft_wrap=True)
    return int(any(level == BAD for level, _ in findings))


def check(results: str) -> Iterator[tuple[str, str]]:
    """(level, finding) pairs."""
    yield OK, ", ".join(f"{name} {version}" for name, version in versions().items())
    yield from _device()
    for name, path in {"results (paths.results)": Path(results), "cache (PTQ_BENCH_CACHE)": assets.cache_dir()}.items():
        yield from _directory(name, path)
    for name in ("smollm2-135m", "wiki", "news", "analogies"):
        cached = assets.is_cached(name)
        yield (OK, f"asset {name}: cached") if cached else (NOTE, f"asset {name}: not here yet; ptq-bench assets --fetch {name}")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        yield OK, "hub: forbidden (HF_HUB_OFFLINE=1); models and data sets must be cached or mirrored"
    else:
        yield OK, "hub: asked where a model or data set is not cached; HF_HUB_OFFLINE=1 forbids it"


def _device() -> Iterator[tuple[str, str]]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield OK, f"cpu: {torch.get_num_threads()} threads, {memory:.0f} GiB of memory"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        yield OK, f"gpu: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    else:
        yield NOTE, "gpu: none visible; everything runs on the CPU (models of a few hundred million weights are practical)"


def _directory(name: str, path: Path) -> Iterator[tuple[str, str]]:
    place = path.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        yield BAD, f"{name}: {place} cannot be written"
        return
    free = shutil.disk_usage(place).free / 2**30
    yield (OK if free > 5 else NOTE), f"{name}: {path.absolute()}, {free:.0f} GiB free"
