"""What the metrics of a run are means of: the loss of every window, the outcome of every item, in the order that the protocol fixes."""

import json
from pathlib import Path

import numpy as np


class Items:
    """Reads `runs/<place>/items.json` when asked, each file once. What is missing or damaged counts as not kept."""

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir) / "runs"
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, place: str, metric: str) -> np.ndarray | None:
        """The values behind one metric of the run in this directory, float64 (items,): losses in nats, or outcomes from 0 to 1."""
        if place not in self._read:
            self._read[place] = self._load(place)
        return self._read[place].get(metric)

    def _load(self, place: str) -> dict[str, np.ndarray]:
        try:
            found = json.loads((self._runs / place / "items.json").read_bytes())
            return {name: np.array(values, dtype=np.float64) for name, values in found.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}
