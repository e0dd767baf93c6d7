"""A sweep: expand the grids, check every point before the first one runs, launch what is missing, sum up.

Hydra calls it through `hydra_plugins/ptq_bench_sweeper.py`, so any Hydra launcher can run the points. A single run is a sweep of one.
"""

import itertools
import shlex
from collections import Counter
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.table import Table

from harness.config import RunConfig, to_run_config
from harness.errors import UserError
from harness.keys import run_key
from harness.preflight import check, skip_reason
from harness.progress import console, label
from harness.records import FAILED, FINISHED, Store


class Refused(UserError):
    """Points of the sweep are wrong; nothing was run. One line for each."""


class Unfinished(UserError):
    """The sweep ran, and some points did not end well."""


@dataclass(frozen=True)
class Point:
    """One combination of overrides, with its configuration or with what is wrong with it."""

    overrides: tuple[str, ...]
    config: RunConfig | None = None
    key: str | None = None
    error: str | None = None

    def status(self) -> str:
        """illegal, missing, or the status of the record."""
        if self.error:
            return "illegal"
        record = Store(self.config.paths.results).record(self.key)
        return record["status"] if record else "missing"

    def state(self) -> str:
        """The status, with the reason where there is one to give before anything runs."""
        status = self.status()
        refusal = skip_reason(self.config) if status in ("missing", "skipped") else None
        if refusal:
            return f"{'to be skipped' if status == 'missing' else status}: {refusal}"
        return self.error or status


@dataclass(frozen=True)
class Sweep:
    """What Hydra gives a sweeper to work with."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def run(self, points: list[Point]) -> None:
        """Run the points that are missing, through the configured Hydra launcher.

        Raises:
            Refused: a point is illegal; no point was run.
            Unfinished: points failed, now or before.
        """
        wrong = [point.error for point in points if point.error]
        if wrong:
            raise Refused("\n".join(dict.fromkeys(wrong)))
        todo = [point for point in points if self._to_run(point)]
        if todo:
            launcher = Plugins.instance().instantiate_launcher(self.hydra_context, self.task_function, self.config)
            for job in launcher.launch([list(point.overrides) for point in todo], initial_job_idx=0):
                _ = job.return_value  # raises what a job could not put into a record
        summarise(points, todo)

    def _to_run(self, point: Point) -> bool:
        if point.status() in FAILED:
            return point.config.retry
        return not Store(point.config.paths.results).finished(point.key, point.config.save)

    def points(self, grids: list[str], arguments: list[str]) -> list[Point]:
        """Every distinct point of the union of grids, in the order written; `arguments` go to each grid and win over it."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        combinations = []
        for grid in grids:
            combinations += expand(parser.parse_overrides([*shlex.split(grid), *arguments]))
        points = [self._point(overrides) for overrides in dict.fromkeys(combinations)]
        return list({point.key or point.overrides: point for point in points}.values())

    def _point(self, overrides: tuple[str, ...]) -> Point:
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        try:
            config = to_run_config(composed)
            check(config)
            return Point(overrides, config, run_key(config))
        except UserError as error:
            return Point(overrides, error=str(error))

    @staticmethod
    def show(points: list[Point]) -> None:
        """The grid as a table, one row per point with its state."""
        table = Table(title=f"{len(points)} points")
        for column in ("run key", "point", "state", "overrides"):
            table.add_column(column, overflow="fold")
        for point in points:
            name = label(point.config) if point.config else "–"
            table.add_row(point.key or "–", name, point.state(), " ".join(point.overrides))
        console.print(table)
        console.print(", ".join(f"{count} {status}" for status, count in Counter(point.status() for point in points).items()))


def expand(overrides) -> list[tuple[str, ...]]:
    """The grid that parsed overrides span. Of two overrides of one key the later one counts.

    Raises:
        UserError: a sweep that is no list of values, such as interval(0, 1).
    """
    axes = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise UserError(f"{override.input_line}: only lists of values can be swept, such as {key}=1,2,3")
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            axes[key] = [override.input_line]
    return list(itertools.product(*axes.values()))


def summarise(points: list[Point], ran: list[Point]) -> None:
    """Say how the sweep ended.

    Raises:
        Unfinished: not every point is done or skipped.
    """
    counts = Counter(point.status() for point in points)
    tally = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{len(points)} points: {tally} ({len(points) - len(ran)} from before)")
    bad = [point for point in points if point.status() not in FINISHED]
    if bad:
        lines = []
        for point in bad:
            record = Store(point.config.paths.results).record(point.key) or {}
            lines.append(f"{label(point.config)}: {record.get('status', 'missing')}: {record.get('reason', 'the run left no record')}")
        again = "" if all(point in ran for point in bad) else "; retry=true runs failed points again"
        raise Unfinished("\n".join([*lines, f"{len(bad)} of {len(points)} points did not finish{again}"]))
