"""A sweep: expand the grids, check every point before the first one runs, launch what is missing, sum up.

Hydra calls it through `hydra_plugins/ptq_bench_sweeper.py`, so any Hydra launcher can run the points. A
single run is a sweep of one.
"""

import json
import re
import shutil
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.markup import escape

from harness.bookkeeping.endings import skip_reason
from harness.bookkeeping.keys import baseline_of, digest, run_key
from harness.bookkeeping.point import Point
from harness.bookkeeping.words import label
from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic
from harness.planning.findings import BAD, findings
from harness.records import layout
from harness.records.attempts import attempts, holder, myself
from harness.records.format import FINISHED
from harness.sweeps.points import Points
from harness.sweeps.progress_display import console, watch

LOSSES = 3  # attempts that left no record, or launches that began nothing, after which a sweep gives up


class Refused(UserError):
    """Points of the sweep are wrong; nothing was run. One line for each."""


class Unfinished(UserError):
    """The sweep ran, and some points did not end well."""


class Sweep:
    """A sweep with what Hydra gives a sweeper to work with."""

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig):
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @cached_property
    def points(self) -> Points:
        return Points(self.hydra_context.config_loader, self.config)

    def run(self, points: list[Point]) -> None:
        """Run the points that are missing, through the configured Hydra launcher, the float models they are
        compared with first.

        Raises:
            Refused: a point is illegal; no point was run.
            Unfinished: points failed, now or before.
        """
        wrong = [point.error for point in points if point.error]
        if wrong:
            raise Refused("\n".join(dict.fromkeys(wrong)))
        points = list({point.key: point for point in points}.values())  # under two trackers: the last of them
        todo = [point for point in points if not point.settled()]
        if todo:
            look_around(todo)
        baselines = self._baselines(todo)
        if todo:
            write_plan(points, baselines)
            with watch(points[0].config.paths.results, [*baselines, *todo], console):
                self._settle(baselines)
                self._settle(todo)
        for point in points:
            if point.status() in FINISHED:
                # of a process that died between its record and this
                shutil.rmtree(point.directory / layout.RESUME, ignore_errors=True)
        summarise(points, todo)

    def _settle(self, points: list[Point]) -> None:
        """Launch points until each has its record. A launcher may lose some, and other sweeps may be at some:
        the store decides.

        What a launcher returns or raises is no evidence: a job of a cluster may be killed with its point
        half done, be lost from the queue, or still run when the launcher has given up. Hence the loop over
        what the store lacks. It ends for two separate reasons, since two things can go wrong. A point whose
        attempts begin but leave no record (its process dies each time) is given up after LOSSES attempts of
        its own, and the others go on. A launcher that begins nothing (a queue that takes no job) moves no
        number of any point, so launches without effect are counted over all of them. A failed point is
        settled by a record of an attempt later than `before`; older failures are what retry=true is about.
        """
        before = begun = {point.key: attempts(point.directory) for point in points}
        idle = 0
        while left := [
            point
            for point in points
            if not point.settled(before[point.key]) and begun[point.key] - before[point.key] < LOSSES
        ]:
            free = [point for point in left if holder(point.directory) is None]
            if not free:
                time.sleep(1)  # for whoever is at the rest
            elif idle == LOSSES:
                break
            else:
                self._launch(free)
                idle += 1
            now = {point.key: attempts(point.directory) for point in points}
            begun, idle = now, idle if now == begun else 0

    def _launch(self, points: list[Point]) -> None:
        launcher = Plugins.instance().instantiate_launcher(
            self.hydra_context, self.task_function, self.config
        )
        try:
            if launch_points := getattr(launcher, "launch_points", None):
                launch_points([point.plain for point in points])  # as they are: others compose them anew
                return
            for job in launcher.launch([list(point.overrides) for point in points], initial_job_idx=0):
                _ = job.return_value  # raises what a job could not put into a record
        except UserError:
            raise
        except Exception as error:  # of a launcher, whose other jobs may still be at work
            text = " ".join(str(error).split())[:300]
            console.print(
                f"[yellow]launcher[/] {type(error).__name__}: {escape(text)}; going on with what is missing"
            )

    def _baselines(self, points: list[Point]) -> list[Point]:
        """The float models of the points as points of their own, so that no two processes wait for one; the
        rest find theirs alone.
        """
        found = {}
        for point in points:
            if point.config.method.solver is None or skip_reason(point.config):
                continue
            wanted = run_key(baseline_of(point.config))
            overrides = [item for item in point.overrides if not re.match(r"[+~]*method\b", item)]
            if wanted not in found:
                found[wanted] = self.points.point((*overrides, "method=float", "save=false"))
        return [point for key, point in found.items() if point.key == key and not point.settled()]


def look_around(points: list[Point]) -> None:
    """Look once at what the points need of this machine, and print what may go wrong.

    Raises:
        Refused: something will.
    """
    found = findings([point.config for point in points if not skip_reason(point.config)])
    for finding in found:
        if finding.level != BAD:
            console.print(f"[yellow]{finding.level}[/] {escape(finding.text)}")
    bad = [finding.text for finding in found if finding.level == BAD]
    if bad:
        raise Refused("\n".join(bad))


def write_plan(points: list[Point], baselines: list[Point]) -> None:
    """Leave the list of points below the results, for `ptq-bench status`."""
    listed = [{"run_key": point.key, "label": label(point.config)} for point in (*baselines, *points)]
    content = {
        "points": listed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "owner": asdict(myself()),
    }
    name = digest(sorted(entry["run_key"] for entry in listed))
    write_atomic(
        Path(points[0].config.paths.results, layout.SWEEPS, f"{name}.json"),
        json.dumps(content, indent=1) + "\n",
    )


def reuse(points: list[Point]) -> str:
    """What the points that ran took over from others and from attempts that were killed, in words; empty for
    nothing.
    """
    records = [record for point in points if (record := point.record()) and record["status"] == "done"]
    taken = [record.get("reused") or {} for record in records]
    counts = {
        "the float model of {} points": sum(1 for record in records if record["baseline"]),
        "the quantized model of {} points": sum(bool(entry.get("model")) for entry in taken),
        "calibration statistics of {} points": sum(entry.get("statistics", False) for entry in taken),
        "{} blocks that an earlier attempt had finished": sum(entry.get("blocks", 0) for entry in taken),
        "{} evaluations that an earlier attempt had finished": sum(
            entry.get("evaluations", 0) for entry in taken
        ),
    }
    return ", ".join(words.format(count) for words, count in counts.items() if count)


def summarise(points: list[Point], ran: list[Point]) -> None:
    """Say how the sweep ended.

    Raises:
        Unfinished: not every point is done or skipped.
    """
    counts = Counter(point.status() for point in points)
    tally = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{len(points)} points: {tally} ({len(points) - len(ran)} from before)")
    if reused := reuse(ran):
        console.print(f"not computed again: {reused}")
    bad = [point for point in points if point.status() not in FINISHED]
    if bad:
        lines = []
        for point in bad:
            record = point.record() or {}
            lines.append(
                f"{label(point.config)}: {record.get('status', 'missing')}: "
                f"{record.get('reason', 'the run left no record')}"
            )
        again = "" if all(point in ran for point in bad) else "; retry=true runs failed points again"
        raise Unfinished("\n".join([*lines, f"{len(bad)} of {len(points)} points did not finish{again}"]))
