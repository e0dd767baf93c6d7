"""A tracker at arm's length: a thread of its own tells the backend, so that the run neither waits for it nor
hears of its troubles.

The run only puts what it has to tell into a queue. At the end it waits a little, for a mirror that is on the
move: SHARE of the time the run took, or FLOOR seconds for a short run (offline and on an idle machine, wandb
needs 1.5 s to be imported and started, which goes on beside the run, and 0.3 s after the last block). It does
not wait at all for a call that is under way since STUCK seconds, but for an import: beside a run that keeps
Python busy that takes long, and is over in a moment once the run is. A mirror left behind loses nothing:
`ptq-bench sync` mirrors the run from its files.
"""

import logging
import queue
import threading
import time
from pathlib import Path
from typing import Any

from harness.config.run_config import RunConfig
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.tracking.story import Backend, Story

log = logging.getLogger(__name__)

SHARE = 0.01  # of the run's seconds
FLOOR = 2.0  # seconds
STUCK = 5.0  # seconds


class Mirror:
    """Tells a backend of a run as it goes by."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._calls: queue.SimpleQueue[tuple[str, tuple]] = queue.SimpleQueue()
        self._over = threading.Event()  # closed properly, or given up
        # busy: with the call under way; infinity: with none that could hang
        self._began = self._busy_since = time.monotonic()

    def start(self, config: RunConfig, description: dict, directory: Path) -> None:
        self._began = self._busy_since = time.monotonic()
        self._tell("load")
        self._tell("start", description, directory)
        threading.Thread(
            target=self._serve, args=[Story(self._backend, config.tracker)], name="tracker", daemon=True
        ).start()

    def layer(self, step: int, report: LayerReport) -> None:
        self._tell("layer", step, report)

    def block(self, step: int, report: BlockReport) -> None:
        self._tell("block", step, report)

    def finish(self, record: dict) -> None:
        """Wait for the mirror as long as the run can afford. It reads the record back from disk, so that must
        be committed.
        """
        now = time.monotonic()
        stuck = now - self._busy_since > STUCK
        self._tell("finish")
        if not self._over.wait(0 if stuck else max(FLOOR, SHARE * (now - self._began))):
            log.warning(
                "the tracker is too slow and was left behind; "
                "`ptq-bench sync` mirrors this run from its files"
            )

    def _tell(self, name: str, *arguments: Any) -> None:
        if not self._over.is_set():
            self._calls.put((name, arguments))

    def _serve(self, story: Story) -> None:
        name = "load"
        try:
            while name != "finish":
                self._busy_since = float("inf")
                name, arguments = self._calls.get()
                self._busy_since = float("inf") if name == "load" else time.monotonic()
                getattr(story, name)(*arguments)
        except Exception as error:  # whatever it is, the run goes on
            reason = " ".join(str(error).split())
            log.warning(
                "tracker gave up in %s: %s: %s; `ptq-bench sync` mirrors runs later",
                name,
                type(error).__name__,
                reason,
            )
        finally:
            self._over.set()
