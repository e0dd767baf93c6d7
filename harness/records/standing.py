"""How far the runs of a results directory are, read from their files alone: no model, no lock, nothing
written, no torch loaded.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records import layout
from harness.records.attempts import attempts, holder
from harness.records.format import FAILED, FINISHED
from harness.records.naming import method_name
from harness.records.record import Record, finite

ENDED = (*FINISHED, *FAILED)
STATES = (*ENDED, "running", "interrupted", "waiting")
COLOURS = {"done": "green", "running": "cyan", "interrupted": "yellow"} | dict.fromkeys(FAILED, "red")


@dataclass(frozen=True)
class Standing:
    """One point, as its files tell it."""

    key: str
    label: str
    state: str  # one of STATES
    seconds: float | None = None  # of a finished run in all, of a running one since its attempt began
    reason: str | None = None  # why it failed
    stage: str = ""  # this and the rest: of a running one
    done: int = 0
    total: int = 0
    eta: float | None = None  # seconds to the end of the stage
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """The points of a sweep."""

    name: str
    started: str  # ISO time, "" for a directory without the list of a sweep
    points: list[tuple[str, str]]  # run key, label


def plans(results: Path) -> list[Plan]:
    """The sweeps that were started on a results directory, oldest first; without any list, all its runs as
    one.
    """
    found = []
    for path in (results / layout.SWEEPS).glob("*.json"):
        content = _json(path)
        if content:
            points = [(point["run_key"], point["label"]) for point in content["points"]]
            found.append(Plan(path.stem, content.get("started", ""), points))
    if not found and (results / layout.RUNS).is_dir():
        keys = sorted(path.name for path in (results / layout.RUNS).iterdir() if path.is_dir())
        found = [Plan("all runs", "", [(key, "") for key in keys])] if keys else []
    return sorted(found, key=lambda plan: (plan.started, plan.name))


def state_of(directory: Path) -> tuple[str, Record | None]:
    """One of `STATES`, and the record where that is what says it.

    An attempt that is alive is later news than the record of one before it; a record of the last attempt
    stands, whoever is still cleaning up behind it.
    """
    return state_by(_json(directory / layout.RECORD), directory)


def state_by(record: Record | None, directory: Path) -> tuple[str, Record | None]:
    """The same for who has read the record."""
    begun = attempts(directory)
    alive = bool(begun) and holder(directory) is not None
    if record and record.get("status") in ENDED and (record.get("attempt", begun) >= begun or not alive):
        return record["status"], record
    if alive:
        return "running", None
    started = begun or (directory / layout.RESUME).exists()
    return "interrupted" if started else "waiting", None


def standing(results: Path, key: str, label: str = "") -> Standing:
    """Where one point is, with what a person wants to know of it."""
    directory = layout.run_directory(results, key)
    state, record = state_of(directory)
    if record:
        seconds = finite((record.get("seconds") or {}).get("total"))
        return Standing(key, label or _label(record), state, seconds, record.get("reason"))
    if state == "running":
        return _running(directory, key, label, attempts(directory))
    return Standing(key, label or key, state)


def _running(directory: Path, key: str, label: str, attempt: int) -> Standing:
    path = directory / layout.PROGRESS
    progress = _json(path)
    if not progress or progress.get("attempt") != attempt:
        return Standing(key, label or key, "running", stage="starting")
    try:
        age = max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        age = 0.0
    done, total, eta = progress["done"], progress["total"], None
    if 0 < done <= total:
        eta = max(0.0, progress["stage_seconds"] * (total - done) / done - age)
    name = label or progress["label"]
    return Standing(
        key,
        name,
        "running",
        progress["seconds"] + age,
        None,
        progress["stage"],
        done,
        total,
        eta,
        progress.get("note", ""),
    )


def seconds_left(standings: Sequence[Standing]) -> float | None:
    """An estimate from the mean of the runs that are done; None while there is nothing to go by, or nothing
    that runs.
    """
    done = [entry.seconds for entry in standings if entry.state == "done" and entry.seconds]
    running = [entry.seconds or 0.0 for entry in standings if entry.state == "running"]
    if not done or not running:
        return None
    mean = sum(done) / len(done)
    waiting = sum(entry.state in ("waiting", "interrupted") for entry in standings)
    return (mean * waiting + sum(max(0.0, mean - seconds) for seconds in running)) / len(running)


def _label(record: Record) -> str:
    """A run in a few words, where no list of a sweep has it in more."""
    scheme = record.get("scheme") or {}
    sizes = [
        f"{letter}{scheme[name]}"
        for letter, name in (("w", "bits"), ("g", "group_size"), ("a", "act_bits"))
        if scheme.get(name)
    ]
    return " ".join([record["model"]["name"], method_name(record["method"]), *sizes])


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none, or one that is being replaced or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
