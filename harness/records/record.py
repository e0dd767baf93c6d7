"""What a run leaves in its record.json: a `Description` from before the run, its `Ending`, and its `Results`.

Values are as JSON has them; numbers that it lacks are the strings "inf", "-inf" and "nan".
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NotRequired, Self, TypedDict

from harness.foundation.seals import read_record
from harness.records.format import RECORD, STATUSES
from harness.records.protocol import Protocol, parse

NAMED = {"model": True, "method": True, "eval": False, "data": False, "scheme": False}  # groups; with a name?


class Description(TypedDict):
    """What is known before a run starts. Groups of settings are as the configuration has them."""

    schema: int
    run_key: str
    attempt: NotRequired[int]  # the first records have none
    model: dict[str, Any]  # with its fingerprint
    data: dict[str, Any] | None  # this and the scheme: None for the float model
    scheme: dict[str, Any] | None
    method: dict[str, Any]
    eval: dict[str, Any]
    seed: int
    versions: dict[str, str]  # whatever could explain a different number on another machine


class Ending(TypedDict):
    """How a run ended."""

    status: str  # one of STATUSES
    reason: str | None  # of any other status than done


class Results(TypedDict):
    """What a run that is done has found; other records hold none of it."""

    family: NotRequired[str]  # of the model's architecture
    token_ids: NotRequired[dict[str, str]]  # hashes of what was calibrated with and evaluated on
    metrics: dict[str, dict[str, Any]]  # name -> `Metric.entry`
    baseline: dict[str, Any] | None  # run key and metrics of the float model
    bits_per_weight: float | None  # this and the error: None for the float model
    outlier_share: float
    layer_error: dict[str, float] | None  # mean and max over linears
    block_error: NotRequired[dict[str, float]]  # mean and max over blocks, where it was measured
    runtime_overhead: NotRequired[dict[str, float]]  # multiply-adds per token, and their share
    transform: NotRequired[dict[str, dict[str, float]] | None]  # name -> mean, max, min over blocks
    fallbacks: list[str]  # "layer: what was done instead of what was asked"
    reused: NotRequired[dict[str, Any]]  # of attempts before, and of the cache
    seconds: dict[str, float]
    peak_memory_bytes: dict[str, int]


class Record(Description, Ending, Results, total=False):
    """All of it."""


@dataclass(frozen=True)
class Metric:
    """A number and what it takes to compare it with another.

    `value` is inf for the perplexity of a model that has diverged; `stderr` is None where it cannot be given
    (one window or item, a value that is not finite); `n` counts tokens scored or items asked.
    """

    value: float
    stderr: float | None
    protocol: Protocol
    n: int

    def entry(self) -> dict[str, Any]:
        """As records have it: the protocol as a sentence and in fields."""
        protocol = {"protocol": str(self.protocol), "protocol_fields": asdict(self.protocol)}
        return {"value": self.value, "stderr": self.stderr, "n": self.n} | protocol

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Self:
        """The metric of such an entry; it is enough if that has the sentence."""
        return cls(entry["value"], entry["stderr"], parse(entry["protocol"]), entry["n"])


def read(content: bytes) -> Record:
    """The record that a file holds; what it says is not looked at, see `check`.

    Raises:
        ValueError: it is damaged, or no JSON object.
    """
    record = read_record(content)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def check(record: Record) -> None:
    """Make sure of all that readers of many records rely on.

    Raises:
        ValueError: this is no record of a known schema; the message says why.
    """
    if record.get("schema") != RECORD:
        raise ValueError(f"unknown schema {record.get('schema')!r}; this version reads schema {RECORD}")
    if record.get("status") not in STATUSES:
        raise ValueError(f"unknown status {record.get('status')!r}")
    for group, named in NAMED.items():
        settings = record.get(group)
        if named and not (isinstance(settings, dict) and isinstance(settings.get("name"), str)):
            raise ValueError(f"{group}.name is missing")
        if not isinstance(settings, dict | None):
            raise ValueError(f"{group} is not a mapping")
    if not isinstance(record.get("run_key"), str):
        raise ValueError("run_key is missing")
    _check_metrics(record.get("metrics"))
    if isinstance(record.get("baseline"), dict):
        _check_metrics(record["baseline"].get("metrics"))


def _check_metrics(metrics: Any) -> None:
    """A number without its protocol is refused: it could be compared with anything."""
    if not isinstance(metrics, dict | None):
        raise ValueError("metrics is not a mapping")
    for name, metric in (metrics or {}).items():
        if not isinstance(metric, dict) or number(metric.get("value")) is None:
            raise ValueError(f"metric {name!r} has no value")
        if not isinstance(metric.get("protocol"), str):
            raise ValueError(f"metric {name!r} has no protocol")


def number(value: Any) -> float | None:
    """A float, infinities and NaN included (records write them as strings); None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def finite(value: Any) -> float | None:
    """A finite float, or None."""
    result = number(value)
    return result if result is not None and math.isfinite(result) else None
