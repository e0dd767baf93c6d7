"""Which trackers hold a run as it now is: `mirrored.json` in its directory, written when a mirror was closed
properly.
"""

import hashlib
import json
from pathlib import Path

from harness.config.groups import TrackerConfig
from harness.foundation.files import write_atomic
from harness.records import layout


def mark(directory: Path, tracker: TrackerConfig, record: bytes) -> None:
    """Note that this tracker holds `record`."""
    write_atomic(
        directory / layout.MIRRORED,
        json.dumps(_marks(directory) | {_place(tracker): _digest(record)}, indent=1) + "\n",
    )


def marked(directory: Path, tracker: TrackerConfig) -> bool:
    """Does this tracker hold the record that lies in `directory`? Not if the run was computed again since."""
    return _marks(directory).get(_place(tracker)) == _digest((directory / layout.RECORD).read_bytes())


def _marks(directory: Path) -> dict[str, str]:
    try:
        found = json.loads((directory / layout.MIRRORED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # unknown: mirrored again, which does no harm
    return found if isinstance(found, dict) else {}


def _place(tracker: TrackerConfig) -> str:
    return " ".join(filter(None, (tracker.name, tracker.mode, tracker.entity, tracker.project)))


def _digest(record: bytes) -> str:
    return hashlib.sha256(record).hexdigest()[:16]
