"""Trackers mirror a run while it happens. They are never the record, and a tracker that fails never fails a run."""

import logging
from pathlib import Path
from typing import Any, Protocol

from harness.config import RunConfig
from harness.naming import method_name
from harness.reports import BlockReport, LayerReport

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Sees a run go by."""

    def start(self, config: RunConfig, description: dict, directory: Path) -> None: ...
    def layer(self, step: int, report: LayerReport) -> None: ...
    def block(self, step: int, report: BlockReport) -> None: ...
    def finish(self, record: dict) -> None: ...


class NullTracker:
    """Tracks nothing."""

    def start(self, config: RunConfig, description: dict, directory: Path) -> None: ...
    def layer(self, step: int, report: LayerReport) -> None: ...
    def block(self, step: int, report: BlockReport) -> None: ...
    def finish(self, record: dict) -> None: ...


class WandbTracker:
    """Weights & Biases: config, one step per linear, a summary with the metrics, tags, group and status."""

    def __init__(self):
        self._run: Any = None

    def start(self, config: RunConfig, description: dict, directory: Path) -> None:
        import wandb

        tracker, run_key = config.tracker, description["run_key"]
        scheme = description["scheme"] or {}
        parts = [f"{letter}{scheme[name]}" for letter, name in (("w", "bits"), ("a", "act_bits"), ("kv", "kv_bits")) if scheme.get(name)]
        bits = " ".join(parts) or "float"
        method = method_name(config.method_config)
        tags = [method, bits, config.model.name, *(tracker.tags or [])]
        self._run = wandb.init(
            id=run_key,
            name=f"{config.model.name} · {method} · {bits} · s{config.seed}",
            project=tracker.project,
            entity=tracker.entity,
            group=tracker.group,
            job_type="quantize" if scheme else "baseline",
            tags=tags,
            config=description,
            dir=directory,
            mode=tracker.mode,
            reinit="finish_previous",
            settings=wandb.Settings(console="off", silent=True, init_timeout=60, disable_git=True, disable_code=True),
        )
        self._run.define_metric("layer/index")
        self._run.define_metric("layer/*", step_metric="layer/index")
        self._run.define_metric("block/index")
        self._run.define_metric("block/*", step_metric="block/index")

    def layer(self, step: int, report: LayerReport) -> None:
        values = {"index": step, "error": report.error, "bits": report.bits, "seconds": report.seconds}
        values |= {"outliers": report.outliers} if report.outliers else {}
        self._run.log({f"layer/{name}": value for name, value in values.items()}, step=step)

    def block(self, step: int, report: BlockReport) -> None:
        values = {"index": report.block, "error": report.error, "seconds": report.seconds} | dict(report.stats)
        self._run.log({f"block/{name}": value for name, value in values.items()}, step=step)

    def finish(self, record: dict) -> None:
        self._run.summary.update({name: metric["value"] for name, metric in record.get("metrics", {}).items()})
        sizes = ("bits_per_weight", "outlier_share", "runtime_overhead", "peak_memory_bytes")
        names = ("status", "reason", "layer_error", "block_error", "seconds", "fallbacks", *sizes)
        self._run.summary.update({name: record[name] for name in names if record.get(name) is not None})
        self._run.finish(exit_code=0 if record["status"] == "done" else 1)


class Guarded:
    """Any tracker, silenced for good after its first failure."""

    def __init__(self, tracker: Tracker):
        self._tracker = tracker

    def start(self, config: RunConfig, description: dict, directory: Path) -> None:
        self._call("start", config, description, directory)

    def layer(self, step: int, report: LayerReport) -> None:
        self._call("layer", step, report)

    def block(self, step: int, report: BlockReport) -> None:
        self._call("block", step, report)

    def finish(self, record: dict) -> None:
        self._call("finish", record)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            getattr(self._tracker, name)(*arguments)
        except Exception as error:  # whatever it is, the run goes on
            log.warning("tracker gave up in %s: %s: %s", name, type(error).__name__, error)
            self._tracker = NullTracker()


def make_tracker(name: str) -> Tracker:
    return Guarded(WandbTracker()) if name == "wandb" else NullTracker()
