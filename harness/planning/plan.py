"""`ptq-bench plan`: the points of a sweep as a table, with what is there, what the rest will take, and where
these numbers come from.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.bookkeeping.endings import skip_reason
from harness.bookkeeping.kept_models import kept_model
from harness.bookkeeping.point import Point
from harness.bookkeeping.token_ids import changed
from harness.bookkeeping.words import label, told_bytes, told_seconds
from harness.foundation.seals import unseal
from harness.models.shape import inspect
from harness.planning.disk import disk_needed
from harness.planning.estimator import Estimate, Estimator
from harness.planning.texts import decided
from harness.records import layout, standing
from harness.records.format import FAILED
from harness.records.record import Record, finite

# what a sweep would compute; with retry=true failed points too
TO_RUN = ("missing", "interrupted", "outdated")
COLOURS = standing.COLOURS | {"illegal": "red", "outdated": "yellow"}


@dataclass(frozen=True)
class State:
    """How a point stands before anything runs."""

    name: str  # illegal, to be skipped, missing, interrupted, outdated, running, or the status of its record
    reason: str = ""  # why it did not or will not run
    detail: str = ""
    kept: float = 0.0  # share of its blocks that a killed attempt has left done
    record: Record | None = None


def state_of(point: Point) -> State:
    """Where the files of its run say that a point stands; before there are any, whether it will be run."""
    if point.error:
        return State("illegal", point.error)
    record = point.record()  # checked, so that a damaged one is told and not run over
    state, record = standing.state_by(record, point.directory)
    if record:
        if reason := changed(record, point.config):
            return State("outdated", reason)
        return State(state, record["reason"] or "", record=record)
    if state == "running":
        return State(state)
    if reason := skip_reason(point.config):
        return State("to be skipped", reason)
    if donor := kept_model(point, intact=False):
        return State("missing", detail=f", only evaluated: run {donor.key} kept the model", kept=1.0)
    if state == "waiting":
        return State("missing")
    kept, blocks = len(kept_blocks(point.directory)), inspect(point.config.model).blocks
    return State(state, detail=f", {kept} of {blocks} blocks kept" if kept else "", kept=kept / blocks)


def states_of(points: Sequence[Point]) -> list[State]:
    """The state of each; a run that stands there already, under another tracker, is not told twice."""
    states = [state_of(point) for point in points]
    keys = [point.key for point in points]
    return [
        State("as above") if key and key in keys[:index] else state
        for index, (key, state) in enumerate(zip(keys, states, strict=True))
    ]


def kept_blocks(directory: Path) -> list:
    """The blocks that a killed attempt has left done."""
    try:
        return list(unseal((directory / layout.RESUME / "manifest.json").read_bytes())["blocks"])
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or not readable: then the run starts anew


def show(points: Sequence[Point], console: Console) -> None:
    """Print the table, the reasons it refers to, and the totals of what would be run."""
    states, estimator = states_of(points), Estimator()
    reasons = list(dict.fromkeys(state.reason for state in states if state.reason))
    shared = set.intersection(*(set(point.overrides) for point in points)) if len(points) > 1 else set()
    table = Table(title=f"{len(points)} points", title_justify="left")
    table.add_column("run key", no_wrap=True)
    for column in ("point", "state"):
        table.add_column(column, overflow="fold")
    for column in ("time", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("overrides", overflow="fold")
    todo = []
    for point, state in zip(points, states, strict=True):
        time, memory = measured(state.record) if state.name == "done" else ("", "")
        if state.name in TO_RUN or (state.name in FAILED and point.config.retry):
            todo.append((point, estimator.estimate(point, state.kept)))
            time, memory = told_seconds(todo[-1][1].seconds), f"~{told_bytes(todo[-1][1].memory.largest)}"
        told = (
            f"{state.name} [{reasons.index(state.reason) + 1}]"
            if state.reason
            else f"{state.name}{state.detail}"
        )
        own = " ".join(override for override in point.overrides if override not in shared)
        name = label(point.config) if point.config else "–"
        table.add_row(
            point.key or "–", escape(name), Text(told, COLOURS.get(state.name, "")), time, memory, escape(own)
        )
    console.print(table)
    for line in [
        *(f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)),
        *summary(points, states, shared),
        *decided(point.config for point in points if point.config),
        *totals(todo),
    ]:
        console.print(escape(line))


def summary(points: Sequence[Point], states: Sequence[State], shared: set[str]) -> list[str]:
    """What all points have in common, and how many there are of each kind."""
    common = [override for override in points[0].overrides if override in shared] if points else []
    tally = ", ".join(f"{count} {name}" for name, count in Counter(state.name for state in states).items())
    return [*([f"all points: {' '.join(common)}"] if common else []), tally]


def totals(todo: Sequence[tuple[Point, Estimate]]) -> list[str]:
    """Time, memory and disk of what would be run, and where the estimates come from."""
    if not todo:
        return ["nothing to run"]
    known = [estimate.seconds for _, estimate in todo if estimate.seconds is not None]
    others = (
        f" and {len(todo) - len(known)} whose methods do not count their work"
        if len(known) < len(todo)
        else ""
    )
    disk = disk_needed([(point.config, inspect(point.config.model)) for point, _ in todo])
    largest = max((estimate.memory for _, estimate in todo), key=lambda memory: memory.largest)
    kind = "GPU memory" if largest.gpu else "memory"
    sources = sorted(set().union(*(estimate.sources for _, estimate in todo)))
    return [
        f"to run: {len(known)} points, {told_seconds(sum(known))} one after another{others}; "
        f"up to ~{told_bytes(largest.largest)} of {kind}; "
        f"disk ~{told_bytes(disk.results)} for results, ~{told_bytes(disk.cache)} for the cache",
        f"times from {', '.join(sources)}; memory and disk from shapes"
        if sources
        else "memory and disk from shapes",
    ]


def measured(record: Record) -> tuple[str, str]:
    """Time and memory of a finished run, "" for what its record has no number of."""
    seconds = finite(record.get("seconds", {}).get("total"))
    peaks = record.get("peak_memory_bytes", {})
    memory = finite(peaks.get("gpu")) or finite(peaks.get("cpu"))
    time = "" if seconds is None else told_seconds(seconds, exact=True)
    return time, "" if memory is None else told_bytes(round(memory))
