"""Runs that are done with numbers that are none: NaN and infinities in every place where a record has one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.foundation.seals import seal
from harness.quantization.layer_reports import LayerReport
from harness.records.store import jsonable
from tests.helpers.invented_records import TASK, WIKI, keep_items, metric, record
from tests.helpers.told_runs import leave, reports

SPOILS = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "None": None,
    "words": "not a number",
    "zero": 0.0,
}
SPOILT = (  # what a record measured; the values of metrics beside them
    *("bits_per_weight", "outlier_share", "layer_error", "block_error", "runtime_overhead", "transform"),
    *("seconds", "peak_memory_bytes"),
)
METRICS = {
    "perplexity/wiki": (17.25, WIKI),
    "acc/analogies": (0.5, TASK),
    "acc_norm/analogies": (0.4, TASK),
    "odd/thing": (1.0, WIKI),
}


def good(key: str, method: str, bits: int | None = 3, **changes) -> dict:
    """A record with every part that a run may leave."""
    metrics = {name: metric(value, value / 10, protocol) for name, (value, protocol) in METRICS.items()}
    found = record(key, method, bits, metrics=metrics, **changes) | {
        "attempt": 1,
        "baseline": {"run_key": "f" * 16, "metrics": metrics} if bits else None,
        "outlier_share": 0.01,
        "block_error": {"mean": 0.1, "max": 0.3},
        "runtime_overhead": {"multiply_adds": 1000.0, "share": 0.02},
        "transform": {"cost": {"mean": 2.0, "max": 3.0, "min": 1.0}},
    }
    return found


def spoilt(found: dict, value: Any) -> dict:
    """The record with `value` in the place of every number that was measured; None and words only where no
    reader may rely on a number.
    """
    metrics = {
        name: entry | {"stderr": value} | ({"value": value} if isinstance(value, float) else {})
        for name, entry in found["metrics"].items()
    }
    parts = {name: _everywhere(found[name], value) for name in SPOILT}
    baseline = found["baseline"] and found["baseline"] | {"metrics": metrics}
    return found | parts | {"metrics": metrics, "baseline": baseline}


def leave_spoilt(results: Path, found: dict, value: Any) -> Path:
    """Such a run with all its files, each of them spoilt."""
    number = value if isinstance(value, float) else float("nan")
    told = []
    for report in reports():
        changes = {"error": number, "seconds": number}
        if isinstance(report, LayerReport):
            changes |= {"bits": number, "outliers": number, "damping": number}
        else:
            changes |= {"stats": dict.fromkeys(report.stats, number), "losses": [number] * 3}
        told.append(replace(report, **changes))
    directory = leave(results, {"run_key": found["run_key"]}, told)
    (directory / "record.json").write_bytes(seal(jsonable(spoilt(found, value))))
    kept = 0 if value is None else 100
    keep_items(results, directory.name, {name: [number] * kept for name in METRICS})
    return directory


def leave_good(results: Path, found: dict) -> Path:
    """The same with numbers everywhere."""
    directory, draws = leave(results, found, reports()), np.random.default_rng(0)
    keep_items(results, directory.name, {name: draws.random(100) for name in METRICS})
    return directory


def _everywhere(part: Any, value: Any) -> Any:
    if isinstance(part, dict):
        return {name: _everywhere(inner, value) for name, inner in part.items()}
    return value
