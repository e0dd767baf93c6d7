"""What happened inside the runs: the tables of their linears and blocks, read only where something is drawn of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.naming import method_rank
from harness.reporting.frames import entries_of
from harness.reporting.labels import FLOAT, SEPARATOR, column_label, column_of, column_rank, row_labels, row_rank, settings
from harness.reporting.tables import by_model

Models = list[tuple[str, pd.DataFrame]]  # what `labelled` gives
EPOCH_LOSS = "loss_epoch_"  # columns of blocks.parquet, before the number of the epoch


@dataclass(frozen=True)
class Run:
    """One run that is done: how it is called, and where it lies below `runs`."""

    label: str
    method: str
    place: str
    error: float = math.inf  # what its group is about, e.g. its mean over the linears
    scheme: str = ""


@dataclass(frozen=True)
class Group:
    """Runs whose errors may be compared: one model, one calibration, one column of the tables."""

    model: str
    calibration: str
    head: str
    runs: tuple[Run, ...]  # in the order of a table


def labelled(frame: pd.DataFrame) -> Models:
    """(model, its quantized runs that are done, by key) in the order of a report, with the column `label`: what tables call their rows."""
    done = frame[(frame["status"] == "done") & (frame["method.name"] != FLOAT)]
    models = by_model(done) if len(done) else ()
    return [(model, records.assign(label=row_labels(records).labels).sort_values("run_key", kind="stable")) for model, records in models]


def groups_of(models: Models, column: str) -> list[Group]:
    """All groups, in the order of a report.

    Args:
        models: as `labelled` gives them.
        column: of the records; only runs that have a number there are meant. Of several seeds the first run by key stands for all.
    """
    found = []
    for model, records in models:
        if column not in records:
            continue
        used = [name for name in records if name in ("label", "method.name", "place", column) or name.startswith(("data.", "scheme."))]
        cells: dict[tuple, dict[str, Run]] = {}
        for record in entries_of(records.loc[pd.to_numeric(records[column], errors="coerce").notna(), used]):
            head = column_of(record)
            runs = cells.setdefault((settings(record, "data"), head), {})
            if (label := record["label"]) not in runs:
                runs[label] = Run(label, record["method.name"], record["place"], float(record[column]), settings(record, "scheme"))
        ranked = sorted((calibration, column_rank(*head), column_label(*head), runs) for (calibration, head), runs in cells.items())
        for calibration, _, head, runs in ranked:
            ordered = tuple(sorted(runs.values(), key=lambda run: row_rank(run.method, run.label)))
            found.append(Group(model, calibration, head, ordered))
    return found


def fullest(groups: list[Group], count: int) -> list[Group]:
    """The `count` groups with the most runs, in their own order."""
    ranked = sorted(range(len(groups)), key=lambda place: (-len(groups[place].runs), place))[:count]
    return [groups[place] for place in sorted(ranked)]


def plainest(run: Run) -> tuple:
    """Least for the run that stands for a method: few settings of its own, then little error."""
    return run.label.count(SEPARATOR), run.error, row_rank(run.method, run.label)


def chosen(runs: tuple[Run, ...], count: int) -> list[Run]:
    """At most `count` runs, every method once before any twice: the plainest label first, the least error; in the order of a table."""
    ranks: dict[str, int] = {}
    order = []
    for run in sorted(runs, key=plainest):
        ranks[run.method] = ranks.get(run.method, 0) + 1
        order.append(((ranks[run.method], method_rank(run.method), run.label), run))
    kept = {run.label for _, run in sorted(order, key=lambda entry: entry[0])[:count]}
    return [run for run in runs if run.label in kept]


class Profiles:
    """Reads `runs/<place>/layers.parquet` and `blocks.parquet` when asked. What is missing or damaged counts as not kept."""

    def __init__(self, results_dir: str | Path):
        self._runs = Path(results_dir) / "runs"

    def layer_errors(self, place: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By kind of linear ("q_proj"): the indices of the blocks and the relative errors there, the mean where a block has several."""
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
        """Mean training loss, (blocks, epochs); NaN where a block trained for fewer epochs. None where no epoch was kept."""
        table = self.blocks(place)
        if table is None:
            return None
        names = sorted((name for name in table if _epoch(name)), key=_epoch)
        return table[names].to_numpy(dtype=float) if names else None

    def _read(self, place: str, name: str, needed: tuple[str, ...]) -> pd.DataFrame | None:
        try:
            table = pd.read_parquet(self._runs / place / f"{name}.parquet")
            numbers = [column for column in table if column in ("block", "error") or column.startswith(("stats.", EPOCH_LOSS))]
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


def positive(values: np.ndarray) -> np.ndarray:
    """The values with NaN for what a logarithmic scale cannot show."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def first(groups: list[Group], count: int) -> Iterator[tuple[Group, Run]]:
    """The first runs of these groups."""
    runs = ((group, run) for group in groups for run in group.runs)
    yield from (entry for entry, _ in zip(runs, range(count), strict=False))
