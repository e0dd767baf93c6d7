"""What a tracker is told of a run, and in which order; the same for a run that goes on and for one read back
from its files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.config.groups import TrackerConfig
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.records import layout
from harness.records.format import FINISHED
from harness.records.naming import method_name
from harness.records.record import Record, number, read
from harness.tracking.marks import mark

CONFIG = ("schema", "run_key", "attempt", "model", "data", "scheme", "method", "eval", "seed", "versions")
SUMMARY = (
    *(
        "status",
        "reason",
        "family",
        "bits_per_weight",
        "outlier_share",
        "layer_error",
        "block_error",
        "transform",
    ),
    *("runtime_overhead", "seconds", "peak_memory_bytes", "fallbacks"),
)
COLUMNS = ("layer", "block", "linear", "shape", "error", "bits", "outliers", "seconds", "fallback")
ARTIFACT = (layout.RECORD, layout.LAYERS)  # never weights


@dataclass(frozen=True)
class Identity:
    """Who a run is to a tracker."""

    id: str  # run key and attempt: mirrored twice, it is one run
    name: str
    group: str | None
    job_type: str  # baseline | quantize
    tags: list[str]
    config: dict


@dataclass(frozen=True)
class Ending:
    """What is known when a run is over."""

    status: str
    summary: dict
    layers: list[list]  # rows under COLUMNS, one per linear
    files: list[Path]

    @property
    def exit_code(self) -> int:
        return int(self.status not in FINISHED)


class Backend(Protocol):
    """One run in one tracker. Every call may raise or take its time."""

    def load(self) -> None: ...  # import the package
    # an absolute path
    def open(self, identity: Identity, tracker: TrackerConfig, directory: Path) -> None: ...
    def log(self, values: dict[str, float], step: int) -> None: ...
    def close(self, ending: Ending) -> None: ...


@dataclass
class Story:
    """Tells a backend one run: load, start, layers and blocks as they come, finish."""

    backend: Backend
    tracker: TrackerConfig
    directory: Path | None = None
    rows: list[list] = field(default_factory=list)

    def load(self) -> None:
        self.backend.load()

    def start(self, description: dict, directory: Path) -> None:
        # a backend's service may work from wherever the first run of this process was started
        self.directory = directory.absolute()
        self.backend.open(identity(description, self.tracker), self.tracker, self.directory)

    def layer(self, step: int, report: LayerReport) -> None:
        shape = f"{report.out_features}x{report.in_features}"
        facts = (
            report.layer,
            report.block,
            report.linear,
            shape,
            report.error,
            report.bits,
            report.outliers,
            report.seconds,
        )
        self.rows.append([*facts, report.fallback])
        names = ("error", "bits", "outliers", "seconds", "damping")
        self._log("layer", {"index": step} | {name: getattr(report, name) for name in names}, step)

    def block(self, step: int, report: BlockReport) -> None:
        """`step`: how many layers came before; a tracker's steps must not go back."""
        values = {
            "index": report.block,
            "error": report.error,
            "seconds": report.seconds,
            "extra_bytes": report.extra_bytes,
        }
        self._log("block", values | {"multiply_adds": report.multiply_adds} | dict(report.stats), step)

    def finish(self) -> None:
        """Close the run with the record that lies in its directory, and note there that it is mirrored."""
        content = (self.directory / layout.RECORD).read_bytes()
        record = read(content)
        files = [self.directory / name for name in ARTIFACT if (self.directory / name).exists()]
        self.backend.close(Ending(record["status"], summary_values(record), self.rows, files))
        mark(self.directory, self.tracker, content)

    def _log(self, group: str, values: Mapping[str, Any], step: int) -> None:
        # NaN: absent
        told = {
            f"{group}/{name}": value for name, value in values.items() if value is not None and value == value
        }
        self.backend.log(told, step)


def identity(description: dict, tracker: TrackerConfig) -> Identity:
    """Who the run is that a description or a whole record describes."""
    scheme, model = description["scheme"] or {}, description["model"]["name"]
    parts = [
        f"{letter}{scheme[name]}"
        for letter, name in (("w", "bits"), ("a", "act_bits"), ("kv", "kv_bits"))
        if scheme.get(name)
    ]
    bits, method = " ".join(parts) or "float", method_name(description["method"])
    return Identity(
        id=f"{description['run_key']}-{description.get('attempt', 1)}",
        name=f"{model} · {method} · {bits} · s{description['seed']}",
        group=tracker.group,
        job_type="quantize" if scheme else "baseline",
        tags=list(dict.fromkeys([method, bits, model, *(tracker.tags or [])])),
        config={name: description[name] for name in CONFIG if name in description},
    )


def summary_values(record: Record) -> dict:
    """What tables of runs show: metrics with their standard errors, differences to the float model, size,
    time, memory, how it ended.
    """
    metrics = record.get("metrics") or {}
    floats = (record.get("baseline") or {}).get("metrics", {})
    found = _numbers({name: metric["value"] for name, metric in metrics.items()})
    found |= _numbers({f"{name}_stderr": metric.get("stderr") for name, metric in metrics.items()})
    references = _numbers({name: metric["value"] for name, metric in floats.items()})
    found |= {f"delta/{name}": found[name] - references[name] for name in found if name in references}
    return found | {name: _plain(record[name]) for name in SUMMARY if record.get(name) not in (None, [])}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What of these is a number, those included that a record writes as words."""
    numbers = {name: number(value) for name, value in values.items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _plain(part: Any) -> Any:
    """A part of a record with numbers where it says "nan" or "inf", so that a column has one type."""
    if isinstance(part, dict):
        return {name: _plain(value) for name, value in part.items()}
    return float(part) if part in ("nan", "inf", "-inf") else part
