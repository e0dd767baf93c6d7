"""Records as a data frame: what reports and comparisons read. Knows no model and starts no run."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.records import layout
from harness.records.naming import method_name
from harness.records.record import Record, check, read

HALF = re.compile(rb"\\u[dD]|\xed")  # what half a surrogate pair begins with, escaped or not
WHOLE = ("metrics", "baseline", "fallbacks")  # kept as they are; everything else becomes dotted columns


@dataclass(frozen=True)
class Records:
    """What lies below one results directory.

    `frame` has one row per record, sorted by run key, with dotted columns ("scheme.bits",
    "method.solver.damping"). An entry that names a class becomes one column with its target ("method.solver"
    = "methods.gptq.GPTQ") beside those of its fields; "method.name" is what tables call the method, see
    `harness.records.naming`; "place" is the directory below `runs`. None is a null of the record, NaN a field
    that the record lacks.
    """

    frame: pd.DataFrame
    left_out: tuple[tuple[str, str], ...]  # (place below the results directory, why)


def load_records(results_dir: str | Path) -> Records:
    """Read every `runs/*/record.json`; one that cannot be used is listed with its reason, never raised."""
    rows, left_out = [], []
    runs = Path(results_dir, layout.RUNS)
    for path in sorted(runs.glob("[!.]*/"), key=lambda path: path.name):
        try:
            record = _read(path / layout.RECORD)
        except FileNotFoundError:
            left_out.append((f"runs/{path.name}", "no record yet: running or interrupted"))
        except (ValueError, OSError, RecursionError) as error:
            left_out.append((f"runs/{path.name}/record.json", _one_line(error)))
        else:
            flat = dict(flatten({key: value for key, value in record.items() if key not in WHOLE}, ""))
            rows.append(
                flat | {"method.name": method_name(record["method"]), "place": path.name} | _whole(record)
            )
    rows.sort(key=lambda row: row["run_key"])
    columns = sorted({name for row in rows for name in row})
    return Records(pd.DataFrame(rows, columns=columns, dtype=object), tuple(left_out))


def entries_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The records of a frame of objects, one mapping each; several times as fast as `to_dict`, which looks at
    every value.
    """
    names = list(frame.columns)
    return [dict(zip(names, row, strict=True)) for row in frame.to_numpy(dtype=object).tolist()]


def flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every leaf; lists become tuples of texts."""
    if not isinstance(value, dict):
        yield path, tuple(map(_text, value)) if isinstance(value, list) else value
        return
    if "_target_" in value:
        yield path, value["_target_"]
    for key, inner in value.items():
        if key != "_target_":
            yield from flatten(inner, f"{path}.{key}" if path else key)


def _read(path: Path) -> Record:
    """One record, checked as far as the tables rely on it.

    Raises:
        ValueError: the file is no record of a known schema; the message says why.
    """
    content = path.read_bytes()
    try:
        record = read(content)
        if HALF.search(content):  # half characters: no file can hold them
            record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    except ValueError as error:
        raise ValueError(f"not valid JSON, or changed since it was written ({error})") from error
    check(record)
    return record


def _whole(record: Record) -> dict:
    baseline, fallbacks = record.get("baseline"), record.get("fallbacks")
    return {
        "metrics": record.get("metrics") or {},
        "baseline": (baseline.get("metrics") if isinstance(baseline, dict) else None) or {},
        "fallbacks": tuple(_text(entry) for entry in fallbacks) if isinstance(fallbacks, list) else (),
    }


def _text(entry: Any) -> str:
    return entry if isinstance(entry, str) else json.dumps(entry, sort_keys=True)


def _one_line(error: Exception) -> str:
    # without the path, which differs between machines
    text = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join((text or type(error).__name__).split())
