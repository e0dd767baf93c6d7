"""Trackers mirror a run for people to look at. They are never the record: a tracker that is absent, fails or
hangs costs the run nothing.

`ptq-bench sync` mirrors finished runs again from their files, through the same calls; so nothing that a
tracker misses is lost.
"""

from pathlib import Path
from typing import Protocol

from harness.config.run_config import RunConfig
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.tracking.mirror import Mirror
from harness.tracking.trackio_run import TrackioRun
from harness.tracking.wandb_run import WandbRun

BACKENDS = {"wandb": WandbRun, "trackio": TrackioRun}


class Tracker(Protocol):
    """Sees a run go by. No call raises, and none but `finish` waits for anything."""

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


def make_tracker(name: str) -> Tracker:
    """The tracker that `tracker.name` asks for, harmless whatever happens in it."""
    return NullTracker() if name == "none" else Mirror(BACKENDS[name]())
