"""The store: one directory per run, whose `record.json` is the truth and appears last.

    results/runs/<run_key>/
        config.yaml  layers.parquet  [blocks.parquet]  items.json  log.txt  record.json  [checkpoint/]

Every file appears by write-temp, fsync, rename. A directory without a record is an unfinished run.
"""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from harness.foundation.errors import UserError
from harness.foundation.files import sync, write_atomic
from harness.foundation.seals import seal
from harness.records import layout
from harness.records.format import FAILED, FINISHED, STATUSES
from harness.records.record import Record, read


class Store:
    """The records below one results directory."""

    def __init__(self, results: str | Path):
        self.runs = Path(results, layout.RUNS)

    def directory(self, run_key: str) -> Path:
        return self.runs / run_key

    def record(self, run_key: str) -> Record | None:
        """The record of a run, or None while there is none.

        Raises:
            UserError: the file is there but is no record.
        """
        path = self.directory(run_key) / layout.RECORD
        try:
            return _of(run_key, read(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path}: unreadable record ({error}); delete its directory to run the point again"
            ) from error

    def finished(self, run_key: str, save: bool) -> bool:
        """Has the run left everything that is asked of it, its checkpoint too if `save` and there is anything
        to keep?
        """
        record = self.record(run_key)
        if not record or record["status"] not in FINISHED:
            return False
        keeps = save and record["status"] == "done" and record["method"]["solver"] is not None
        return not keeps or (self.directory(run_key) / layout.CHECKPOINT).exists()

    def open(self, run_key: str) -> Path:
        """The directory of a run about to start, made if need be.

        Raises:
            UserError: the directory cannot be written.
        """
        directory = self.directory(run_key)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            sync(self.runs)  # a power cut may take a new directory, whatever was synced in it
        except OSError as error:
            raise UserError(
                f"{directory}: {error.strerror}; choose another place with paths.results=DIR"
            ) from error
        return directory

    def commit(
        self,
        run_key: str,
        record: Record,
        items: dict[str, list[float]],
        tables: dict[str, list[dict]],
        config_yaml: str,
    ) -> Record:
        """Write everything a run leaves; the record last, so that its presence vouches for the rest.

        A failure replaces no finished record: then nothing is written. Returns the record that stands.

        Args:
            items: what each metric is the mean of, for paired comparisons of two runs.
            tables: by name, e.g. `layers` with one row per linear; empty ones leave no file.
        """
        before = self.record(run_key)
        if before and before["status"] in FINISHED and record["status"] in FAILED:
            return before
        directory = self.open(run_key)
        write_atomic(directory / layout.CONFIG, config_yaml)
        if items:
            write_atomic(directory / layout.ITEMS, json.dumps(jsonable(items)) + "\n")
        for name, rows in tables.items():
            if rows:
                write_atomic(directory / f"{name}.parquet", pd.DataFrame(rows).to_parquet(index=False))
        write_atomic(directory / layout.RECORD, seal(jsonable(record)))
        return record


def _of(run_key: str, record: Record) -> Record:
    """The record, if it is one of this run."""
    if not record.keys() >= {"run_key", "status", "reason"}:
        raise ValueError("not a record")
    if record["run_key"] != run_key or record["status"] not in STATUSES:
        raise ValueError(f"not a record of this run, or with the status {record['status']!r}")
    return record


def jsonable(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become the strings "inf", "-inf" and "nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(entry) for entry in value]
    return value
