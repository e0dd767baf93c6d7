"""What stands in a column of a paper's table: a metric, the mean of several, or a cost, each with the
conditions it was taken under.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.records.record import finite, number
from harness.reporting.labels import settings
from harness.reporting.measures import BLOCK_ERROR, LAYER_ERROR, Measure, Measurement, measure_of

MEAN = "mean:"
JOIN = " + "
GUESSED = {  # the share of right answers that guessing gives; nothing where the answer is written freely
    **dict.fromkeys(("piqa", "winogrande", "boolq"), 1 / 2),
    **dict.fromkeys(("analogies", "arc_easy", "arc_challenge", "hellaswag"), 1 / 4),
}


@dataclass(frozen=True)
class Cost:
    """A number of records that is no metric. `field` is its column, "" where runs do not record it, and
    `absent` says so.
    """

    label: str
    field: str
    measure: Measure
    absent: str = "the records do not hold it"
    calibrated: bool = False  # comparable on the same calibration only


COSTS = {
    "bits_per_weight": Cost("bits", "bits_per_weight", Measure("bits", "Bits per weight", "", 0, decimals=2)),
    "outlier_share": Cost(
        "outliers, %", "outlier_share", Measure("share", "Outliers", "", 0, scale=100, decimals=2)
    ),
    "layer_error.mean": Cost("layer error", "layer_error.mean", LAYER_ERROR, calibrated=True),
    "block_error.mean": Cost(
        "block error",
        "block_error.mean",
        BLOCK_ERROR,
        "not measured: data.block_error=true does",
        calibrated=True,
    ),
    "seconds.quantize": Cost(
        "quantize, s", "seconds.quantize", Measure("cost", "Seconds", "", 0, digits=3, decimals=1)
    ),
    "hours.quantize": Cost(
        "quantize, h", "seconds.quantize", Measure("cost", "Hours", "", 0, scale=1 / 3600, digits=2)
    ),
    "seconds.total": Cost(
        "whole run, s", "seconds.total", Measure("cost", "Seconds", "", 0, digits=3, decimals=1)
    ),
    "peak_memory_bytes.cpu": Cost(
        "peak memory, GiB",
        "peak_memory_bytes.cpu",
        Measure("cost", "Memory", "", 0, scale=2**-30, decimals=2),
    ),
    "peak_memory_bytes.gpu": Cost(
        "peak GPU memory, GiB",
        "peak_memory_bytes.gpu",
        Measure("cost", "Memory", "", 0, scale=2**-30, decimals=2),
        "ran without a GPU",
    ),
    "inference_memory": Cost(
        "memory at inference, GB",
        "",
        Measure("cost", "Memory", "", 0),
        "runs do not record the memory of a quantized model in use",
    ),
    "tokens_per_second": Cost(
        "tok/s", "", Measure("cost", "Speed", "", 0), "runs do not record the speed of decoding"
    ),
}


def measure(metric: str) -> Measure:
    """Unit, direction and digits of one value."""
    if metric in COSTS:
        return COSTS[metric].measure
    return measure_of(parts(metric)[0])[0]


def parts(metric: str) -> list[str]:
    """The metrics that a value is the mean of: one, unless it is a mean."""
    return metric.removeprefix(MEAN).split(",") if metric.startswith(MEAN) else [metric]


def chance(metric: str) -> float:
    """The share of right answers that guessing gives in a task, or on the mean of several."""
    shares = [GUESSED.get(measure_of(part)[1], 0.0) for part in parts(metric)]
    return sum(shares) / len(shares)


def measured(record: Mapping[str, Any], metric: str) -> Measurement | None:
    """One value of a record, None where it has none. A mean is there only where all its metrics are."""
    if metric in COSTS:
        return _cost(record, COSTS[metric], metric)
    entries = [record["metrics"].get(part) for part in parts(metric)]
    if not all(entries):
        return None
    spreads = [finite(entry.get("stderr")) for entry in entries]
    spread = None if None in spreads else math.sqrt(sum(error * error for error in spreads)) / len(entries)
    protocol = JOIN.join(entry["protocol"] for entry in entries)
    values = [number(entry["value"]) for entry in entries]
    return Measurement(sum(values) / len(entries), spread, protocol)


def _cost(record: Mapping[str, Any], cost: Cost, metric: str) -> Measurement | None:
    value = finite(record.get(cost.field)) if record["status"] == "done" and cost.field else None
    if value is None or (value == 0 and metric.endswith(".gpu")):
        return None
    return Measurement(value, None, f"calibrated on {settings(record, 'data')}" if cost.calibrated else "")
