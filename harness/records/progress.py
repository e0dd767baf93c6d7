"""What is told of a run: its name in a few words, where it is, and how it ended."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from harness.foundation.files import ASIDE

INTERVAL = 1.0  # seconds between two notes of a stage


class Stages:
    """Where one run is, in a small file that anyone may read: the sweep that draws the bars, `ptq-bench
    status`, who asks what died.
    """

    def __init__(self, path: Path, label: str, attempt: int):
        self._path, self._told = path, {"label": label, "attempt": attempt, "stage": None}
        self._start = self._stage_start = time.monotonic()
        self._next = 0.0

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Tell that `done` of `total` steps of a stage are over; written at most once a second, and when a
        stage begins or ends.
        """
        now = time.monotonic()
        if stage != self._told["stage"]:
            self._stage_start = self._next = now
        self._told |= {"stage": stage, "done": done, "total": total, "note": note}
        if now >= self._next or done == total:
            self._next = now + INTERVAL
            self._write({"stage_seconds": now - self._stage_start, "seconds": now - self._start})

    def _write(self, times: dict[str, float]) -> None:
        aside = self._path.with_name(f"{ASIDE}{self._path.name}")
        with suppress(OSError):  # a full disk is for those to tell who write something that matters
            aside.write_text(json.dumps(self._told | times))
            os.replace(aside, self._path)
