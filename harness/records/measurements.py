"""What runs measured beside their metrics: values of items, errors of layers, losses of blocks.

All are read when asked for. What is missing or damaged counts as not kept: a record stands without it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from harness.records import layout

EPOCH_LOSS = "loss_epoch_"  # columns of blocks.parquet, before the number of the epoch


def read_table(path: Path, needed: Sequence[str] = (), only: bool = False) -> pd.DataFrame | None:
    """A table that a run left; None where there is none that can be read and has the columns it needs.

    Args:
        only: read no other columns.
    """
    try:
        table = pd.read_parquet(path, columns=list(needed) if only else None)
    except Exception:  # readers of a damaged file raise what they like
        return None
    return table if set(needed) <= set(table.columns) else None


class Layers:
    """Errors of linears below one results directory; each file is read once."""

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir, layout.RUNS)
        self._read: dict[str, dict[str, float]] = {}

    def of(self, run: str) -> dict[str, float]:
        """The relative output error of every linear of a run, by its name; empty where there are none."""
        if run not in self._read:
            self._read[run] = self._load(run)
        return self._read[run]

    def _load(self, run: str) -> dict[str, float]:
        table = read_table(self._runs / run / layout.LAYERS, ("layer", "error"), only=True)
        if table is None:
            return {}
        try:
            return {
                str(name): float(error) for name, error in zip(table["layer"], table["error"], strict=True)
            }
        except (ValueError, TypeError):
            return {}


class Profiles:
    """Errors and losses along the blocks, of the runs below one results directory."""

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir, layout.RUNS)

    def layer_errors(self, run: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By kind of linear ("q_proj"): the indices of the blocks and the relative errors there, the mean
        where a block has several.
        """
        table = self._read(run, layout.LAYERS, ("block", "linear", "error"))
        if table is None:
            return {}
        kinds, profiles = [str(name).rpartition(".")[2] for name in table["linear"]], {}
        for kind in dict.fromkeys(kinds):
            errors = table[[name == kind for name in kinds]].groupby("block")["error"].mean()
            profiles[kind] = errors.index.to_numpy(dtype=float), errors.to_numpy(dtype=float)
        return profiles

    def blocks(self, run: str) -> pd.DataFrame | None:
        """One row per block, by its index: `error`, and what the transform told, e.g. `stats.loss_before`."""
        return self._read(run, layout.BLOCKS, ("block", "error"))

    def losses(self, run: str) -> np.ndarray | None:
        """Mean training loss, (blocks, epochs); NaN where a block trained for fewer epochs. None where no
        epoch was kept.
        """
        table = self.blocks(run)
        if table is None:
            return None
        names = sorted((name for name in table if _epoch(name)), key=_epoch)
        return table[names].to_numpy(dtype=float) if names else None

    def _read(self, run: str, name: str, needed: tuple[str, ...]) -> pd.DataFrame | None:
        """A table sorted by block, with numbers where numbers belong."""
        table = read_table(self._runs / run / name, needed)
        if table is None:
            return None
        try:
            for column in table:
                if column in ("block", "error") or column.startswith(("stats.", EPOCH_LOSS)):
                    table[column] = pd.to_numeric(table[column], errors="coerce")
        except (TypeError, ValueError):  # not even something that is no number: lists, mappings
            return None
        table = table.dropna(subset=["block"]).sort_values("block", kind="stable")
        return table if len(table) else None


def _epoch(column: str) -> int:
    """The number of the epoch whose losses this column holds, 0 if it holds something else."""
    number = column.removeprefix(EPOCH_LOSS) if column.startswith(EPOCH_LOSS) else ""
    return int(number) if number.isdecimal() else 0


class Items:
    """What metrics are means of, below one results directory; each file is read once."""

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir, layout.RUNS)
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, run: str, metric: str) -> np.ndarray | None:
        """The values behind one metric of the run in this directory, float64 (items,): losses in nats, or
        outcomes from 0 to 1.
        """
        if run not in self._read:
            self._read[run] = self._load(run)
        return self._read[run].get(metric)

    def _load(self, run: str) -> dict[str, np.ndarray]:
        try:
            items = json.loads((self._runs / run / layout.ITEMS).read_bytes())
            return {name: np.array(values, dtype=np.float64) for name, values in items.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}
