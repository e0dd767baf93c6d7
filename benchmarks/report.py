"""Seconds and peak memory of a report on thousands of invented runs, in processes of its own:
`python -m benchmarks.report --records 10000`.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import pandas as pd
import psutil

from harness.foundation.seals import seal

METHODS = ("rtn", "gptq", "quantease", "spqr", "awq", "omniquant", "affinequant", "vptq", "gptvq")
METHODS += ("smoothquant",)
BITS, GROUPS, RATIOS, CORPORA = (4, 3, 2), (None, 128, 64), (0.0, 0.005, 0.01, 0.02), ("wikitext2", "c4")
TASKS = ("piqa", "arc_easy")
WINDOWS, ITEMS, LAYERS = 16, 100, 28
PAUSE = 1.0  # seconds between two looks at the memory


@dataclass(frozen=True)
class Made:
    records: int
    seconds: float
    peak_bytes: int
    files: dict[str, int]  # name → bytes


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000, help="how many runs (default: %(default)s)")
    records = parser.parse_args(argv).records
    with tempfile.TemporaryDirectory() as directory:
        made = measure(records, Path(directory))
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in made.files.items())
    memory = f"{made.peak_bytes / 2**30:.2f} GiB at the peak"
    print(f"{made.records} records: {made.seconds:.1f} s, {memory}; {sizes}")
    return 0


def measure(records: int, directory: Path) -> Made:
    """Invent so many runs below `directory`, report on them in every format, and say what it took."""
    for entry in _records(records):
        _write(directory / "results" / "runs", entry)
    start = time.perf_counter()
    options = [f"paths.results={directory / 'results'}", f"paths.reports={directory / 'reports'}"]
    command = [sys.executable, "-m", "harness.cli", "report", *options]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(PAUSE)
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read())
    files = [path for path in sorted((directory / "reports" / "report").iterdir()) if path.is_file()]
    return Made(records, seconds, peak, {path.name: path.stat().st_size for path in files})


def _memory(session: int) -> int:
    """Bytes of main memory that all processes of a session hold, each shared page counted once (Linux;
    elsewhere 0).
    """
    total = 0
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):  # it has ended meanwhile
            if os.getsid(process.pid) == session:
                total += getattr(process.memory_full_info(), "pss", 0)
    return total


def _records(count: int) -> Iterator[dict]:
    """Full factorial designs, one model and seed after the other, until there are enough."""
    made = 0
    for model, seed in product(range(count), range(3)):
        for method, bits, group, ratio in product(METHODS, BITS, GROUPS, RATIOS):
            if made == count:
                return
            yield _record(made, model, seed, method, bits, group, ratio)
            made += 1


def _record(
    number: int, model: int, seed: int, method: str, bits: int, group: int | None, ratio: float
) -> dict:
    luck = random.Random(number)
    losses = {
        f"perplexity/{corpus}": [luck.gauss(3 + 3 / bits**2, 0.2) for _ in range(WINDOWS)]
        for corpus in CORPORA
    }
    outcomes = {
        f"acc/{task}": [float(luck.random() < 0.4 + bits / 12) for _ in range(ITEMS)] for task in TASKS
    }
    metrics = {name: _metric(values, name, math.exp(fmean(values))) for name, values in losses.items()}
    metrics |= {name: _metric(values, name, fmean(values)) for name, values in outcomes.items()}
    return _settings(number, model, seed, method, bits, group, ratio) | {
        "items": losses | outcomes,
        "metrics": metrics,
        "baseline": None,
        "bits_per_weight": bits + 16 / (group or 4096) + 32 * ratio,
        "outlier_share": ratio,
        "layer_error": {"mean": luck.random() / 4**bits, "max": 0.2},
        "seconds": {"load": 1.0, "quantize": luck.uniform(1, 900), "evaluate": 40.0, "total": 1000.0},
        "peak_memory_bytes": {"cpu": luck.randrange(2**33), "gpu": 0},
        "versions": {"ptq_bench": "0.1.0"},
        "fallbacks": [],
    }


def _settings(
    number: int, model: int, seed: int, method: str, bits: int, group: int | None, ratio: float
) -> dict:
    return {
        "schema": 1,
        "run_key": f"{number:016x}",
        "status": "done",
        "reason": None,
        "model": {
            "name": f"model-{model}",
            "id": f"some/model-{model}",
            "fingerprint": f"sha256:{model:064x}",
            "dtype": "float16",
        },
        "data": {"name": "c4", "samples": 128, "window": 2048, "propagate": "quantized"},
        "scheme": {
            "bits": bits,
            "group_size": group,
            "range": "minmax",
            "outlier_ratio": ratio,
            "outlier_structure": "unstructured",
        },
        "method": {
            "name": method,
            "transform": None,
            "solver": {"_target_": f"methods.{method}.{method.upper()}"},
        },
        "eval": {
            "name": "quick",
            "corpora": list(CORPORA),
            "window": 512,
            "windows": WINDOWS,
            "tasks": list(TASKS),
        },
        "seed": seed,
    }


def _metric(values: list[float], name: str, value: float) -> dict:
    return {
        "value": value,
        "stderr": 0.02 * value,
        "protocol": f"{name}, 16 windows or 100 items, seed 0",
        "n": len(values),
    }


def _write(runs: Path, entry: dict) -> None:
    directory = runs / entry["run_key"]
    directory.mkdir(parents=True)
    (directory / "items.json").write_text(json.dumps(entry.pop("items")))
    layers = [
        {"layer": f"layers.{block}.q_proj", "block": block, "linear": "q_proj", "error": 0.01 * (block + 1)}
        for block in range(LAYERS)
    ]
    pd.DataFrame(layers).to_parquet(directory / "layers.parquet", index=False)
    (directory / "record.json").write_bytes(seal(entry))


if __name__ == "__main__":
    sys.exit(main())
