"""What runs measured beside their metrics: values of items, errors of layers, losses of blocks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

EPOCH_LOSS = "loss_epoch_"  # columns of blocks.parquet, before the number of the epoch


class Layers:
    """Reads `runs/<place>/layers.parquet` when asked, each file once. What is missing or damaged counts as
    not kept.
    """

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir) / "runs"
        self._read: dict[str, dict[str, float]] = {}

    def of(self, place: str) -> dict[str, float]:
        """The relative output error of every linear of a run, by its name; empty where there are none."""
        if place not in self._read:
            self._read[place] = self._load(place)
        return self._read[place]

    def _load(self, place: str) -> dict[str, float]:
        try:
            found = pd.read_parquet(self._runs / place / "layers.parquet", columns=["layer", "error"])
            return {
                str(layer): float(error) for layer, error in zip(found["layer"], found["error"], strict=True)
            }
        except (OSError, ValueError, TypeError, KeyError):
            return {}


class Profiles:
    """Reads `runs/<place>/layers.parquet` and `blocks.parquet` when asked. What is missing or damaged counts
    as not kept.
    """

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir) / "runs"

    def layer_errors(self, place: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By kind of linear ("q_proj"): the indices of the blocks and the relative errors there, the mean
        where a block has several.
        """
        table = self._read(place, "layers", ("block", "linear", "error"))
        if table is None:
            return {}
        kinds = [str(name).rpartition(".")[2] for name in table["linear"]]
        found = {}
        for kind in dict.fromkeys(kinds):
            errors = table[[name == kind for name in kinds]].groupby("block")["error"].mean()
            found[kind] = errors.index.to_numpy(dtype=float), errors.to_numpy(dtype=float)
        return found

    def blocks(self, place: str) -> pd.DataFrame | None:
        """One row per block, by its index: `error`, and what the transform told, e.g. `stats.loss_before`."""
        return self._read(place, "blocks", ("block", "error"))

    def losses(self, place: str) -> np.ndarray | None:
        """Mean training loss, (blocks, epochs); NaN where a block trained for fewer epochs. None where no
        epoch was kept.
        """
        table = self.blocks(place)
        if table is None:
            return None
        names = sorted((name for name in table if _epoch(name)), key=_epoch)
        return table[names].to_numpy(dtype=float) if names else None

    def _read(self, place: str, name: str, needed: tuple[str, ...]) -> pd.DataFrame | None:
        try:
            table = pd.read_parquet(self._runs / place / f"{name}.parquet")
            numbers = [
                column
                for column in table
                if column in ("block", "error") or column.startswith(("stats.", EPOCH_LOSS))
            ]
            for column in numbers:
                table[column] = pd.to_numeric(table[column], errors="coerce")
            table = table.dropna(subset=["block"]).sort_values(list(needed[:1]), kind="stable")
            return table if len(table) and set(needed) <= set(table.columns) else None
        except Exception:  # readers of a damaged file raise what they like
            return None


def _epoch(column: str) -> int:
    """The number of the epoch whose losses this column holds, 0 if it holds something else."""
    number = column.removeprefix(EPOCH_LOSS) if column.startswith(EPOCH_LOSS) else ""
    return int(number) if number.isdecimal() else 0


class Items:
    """Reads `runs/<place>/items.json` when asked, each file once. What is missing or damaged counts as not
    kept.
    """

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir) / "runs"
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, place: str, metric: str) -> np.ndarray | None:
        """The values behind one metric of the run in this directory, float64 (items,): losses in nats, or
        outcomes from 0 to 1.
        """
        if place not in self._read:
            self._read[place] = self._load(place)
        return self._read[place].get(metric)

    def _load(self, place: str) -> dict[str, np.ndarray]:
        try:
            found = json.loads((self._runs / place / "items.json").read_bytes())
            return {name: np.array(values, dtype=np.float64) for name, values in found.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}
