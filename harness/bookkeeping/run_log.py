"""The log file of a run: every INFO line of ours, credentials blotted out."""

import logging
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.foundation.files import disk_errors
from harness.foundation.redaction import RedactingFormatter


@contextmanager
def logging_to(path: Path):
    """Send every INFO line of ours to the run's log; the traceback of a failed run goes here, not to the
    terminal.
    """
    with disk_errors(path):
        handler = logging.FileHandler(path, encoding="utf-8")
    # a full disk is for those to tell who write something that matters
    handler.handleError = lambda record: None
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("harness")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        with suppress(OSError):  # as above: what could not be written is tried again
            handler.close()
