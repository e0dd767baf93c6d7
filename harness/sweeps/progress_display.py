"""How far a sweep is, drawn on a terminal."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.records import layout
from harness.records.format import FAILED
from harness.records.standing import COLOURS, ENDED, STATES, Plan, Standing, seconds_left, standing

INTERVAL = 0.5  # seconds between two looks
BAR = 20  # characters
console = Console(stderr=True, highlight=False, soft_wrap=True)


def overview(states: Sequence[tuple[Plan, list[Standing]]]) -> RenderableType:
    """Every sweep: what is done, what runs, what failed and why."""
    parts: list[RenderableType] = []
    for plan, standings in states:
        when = f" · started {plan.started.replace('T', ' ')[:16]}" if plan.started else ""
        parts.append(Text.from_markup(f"[bold]{escape(plan.name)}[/]{when}"))
        parts += [summary_line(standings), running_lines(standings)]
        for entry in standings:
            if entry.state in (*FAILED, "interrupted"):
                why = (
                    f": {escape(entry.reason)}"
                    if entry.reason
                    else ": goes on when the sweep is started again"
                )
                parts.append(
                    Text.from_markup(f"[{COLOURS[entry.state]}]{entry.state}[/] {escape(entry.label)}{why}")
                )
    return Group(*parts)


def summary_line(standings: Sequence[Standing]) -> RenderableType:
    """A bar over all points, how many are in which state, and about how long the rest will take."""
    counts = Counter(entry.state for entry in standings)
    ended = sum(counts[state] for state in ENDED)
    words = [
        f"[{COLOURS.get(state, 'default')}]{counts[state]} {state}[/]" for state in STATES if counts[state]
    ]
    left = seconds_left(standings)
    words += [f"about {clock(left)} left"] if left is not None else []
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(len(standings), ended, width=BAR),
        f"{ended}/{len(standings)}",
        Text.from_markup(", ".join(words)),
    )
    return line


def running_lines(standings: Sequence[Standing]) -> RenderableType:
    """One line for each point that runs."""
    table = Table.grid(padding=(0, 1))
    for tight in (False, True, True, True, True, False):  # a narrow terminal squeezes names and notes
        table.add_column(no_wrap=tight)
    for entry in standings:
        if entry.state == "running":
            bar = ProgressBar(entry.total, entry.done, width=BAR) if entry.total else ""
            count = f"{entry.done}/{entry.total}" if entry.total else ""
            times = "" if entry.seconds is None else clock(entry.seconds)
            times += "" if entry.eta is None else f" eta {clock(entry.eta)}"
            table.add_row(
                _short(entry.label), Text(f"· {entry.stage}"), bar, count, times, _short(entry.note)
            )
    return table


def _short(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 3:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def watch(results: str | Path, points: Sequence[Any], console: Console) -> Iterator[None]:
    """While a sweep runs, print one line for every point that ends, and on a terminal draw those that run.

    Args:
        points: have `key` and `config` (a RunConfig).
    """
    # loads torch, as the sweep has done; `status` need not
    from harness.bookkeeping.words import label, outcome

    over, results = threading.Event(), Path(results)
    left = [
        Awaited(point.key, label(point.config), _version(results, point.key), partial(outcome, point.config))
        for point in points
    ]
    thread = threading.Thread(target=_watch, args=[results, left, console, over], name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class Awaited:
    """A point whose record has not come yet."""

    key: str
    label: str
    before: tuple | None  # the version of a record that was there already
    outcome: Callable[[dict], str]


def _watch(results: Path, left: list[Awaited], console: Console, over: threading.Event) -> None:
    """Look every INTERVAL seconds, and once more when the sweep is over."""
    ended: list[Standing] = []
    drawing = (
        Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else nullcontext()
    )
    with drawing as live:
        last = False
        while not last:
            last = over.wait(INTERVAL)
            new = [point for point in left if _version(results, point.key) != point.before]
            for point in new:
                left.remove(point)
                ended.append(standing(results, point.key, point.label))
                console.print(
                    point.outcome(json.loads(_record(results, point.key).read_text(encoding="utf-8")))
                )
            if live and not last:
                standings = [*ended, *(standing(results, point.key, point.label) for point in left)]
                live.update(Group(running_lines(standings), summary_line(standings)), refresh=True)


def _record(results: Path, key: str) -> Path:
    return layout.run_directory(results, key) / layout.RECORD


def _version(results: Path, key: str) -> tuple | None:
    """Changes whenever the record of a run is replaced; None without one."""
    try:
        found = _record(results, key).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
