"""What a run costs: seconds by stage, and peak memory."""

import time
from contextlib import contextmanager

from harness.quantization.layer_reports import Walked


def seconds_of(clock: "Clock", walked: Walked) -> dict[str, float]:
    """Seconds by stage; the walk is `transform`, `quantize` (in the solver) and `calibrate` (forward passes,
    Hessians, scoring).
    """
    seconds = clock.seconds()
    walk = seconds.pop("walk", None)
    if walk is None:
        return seconds
    solving, rewriting = (
        sum(report.seconds for report in reports) for reports in (walked.layers, walked.blocks)
    )
    parts = {"calibrate": walk - solving - rewriting, "quantize": solving} | (
        {"transform": rewriting} if rewriting else {}
    )
    return seconds | {name: round(value, 3) for name, value in parts.items()}


def highest(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """Of two peaks of memory, by kind."""
    return {kind: max(now.get(kind, 0), before.get(kind, 0)) for kind in sorted(now.keys() | before.keys())}


class Clock:
    """Seconds by stage."""

    def __init__(self):
        self.stages: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str):
        start = time.perf_counter()
        yield
        self.stages[stage] = time.perf_counter() - start

    def add(self, stage: str, seconds: float) -> None:
        """A stage that measures itself, former attempts included."""
        self.stages[stage] = seconds

    def seconds(self) -> dict[str, float]:
        """Of every stage, and their sum: what the run costs, however often it was cut short."""
        return {name: round(value, 3) for name, value in self.stages.items()} | {
            "total": round(sum(self.stages.values()), 3)
        }
