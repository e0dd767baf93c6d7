"""Where the cells of a paper's table come from: from runs, with what the paper printed beside them, or from
the paper alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.records.record import finite
from harness.reporting.cells import NOT_RUN, Cell, Notes
from harness.reporting.labels import FLOAT
from harness.reporting.measures import Measure, Measurement
from harness.reporting.papers.parts import Column, Part
from harness.reporting.papers.published import Shape, beside
from harness.reporting.papers.reference import ANY_MEAN
from harness.reporting.papers.run_command import command
from harness.reporting.tables.run_cells import Grid, float_cell, has_number, method_cell
from harness.reporting.tables.values import COSTS, MEAN, measure, measured, parts

Record = Mapping[str, Any]
LARGE = 1000  # from here on papers write 2.1e5
TABLE = re.compile(r"(.*), Table (\w+)(;.*)?")
UNQUANTIZED = "the float model is not quantized"


class Measured:
    """Cells from records of runs."""

    def __init__(self, shape: Shape):
        self._shape = shape

    def measured(self, record: Record, metric: str) -> Measurement | None:
        return measured(record, metric)

    def cell(self, entries: list[dict], column: Column, part: Part, notes: Notes, place: str) -> Cell:
        """All runs of one configuration.

        Raises:
            ValueError: one of them was measured under another protocol than the column.
        """
        metric = column.value.metric
        entries = [
            entry | {"measurement": _checked(measured(entry, metric), metric, part)} for entry in entries
        ]
        spec = Grid(measure(metric), "", part.model, part.protocols.get(metric, ""), None, metric, notes)
        if all(entry["status"] == "done" and entry["measurement"] is None for entry in entries):
            why = _unmeasured(entries[0], metric)
            return Cell(
                NOT_RUN,
                notes.number(why),
                run_keys=tuple(sorted(entry["run_key"] for entry in entries)),
                why=why,
            )
        cell = method_cell(sorted(entries, key=lambda entry: entry["run_key"]), None, spec, place)
        measured_entry = next((entry for entry in entries if has_number(entry)), None)
        return beside(cell, measured_entry, metric, self._shape, notes) if measured_entry else cell

    def float_cell(
        self, entries: list[dict], others: list[dict], column: Column, part: Part, notes: Notes
    ) -> Cell:
        """The float model's own run, or what runs of others keep of it."""
        metric = column.value.metric
        if metric in COSTS:
            return Cell(NOT_RUN, why=UNQUANTIZED)
        protocol = part.protocols.get(metric, "")
        own = sorted(entries, key=lambda entry: (_under(entry, metric, protocol) is None, entry["run_key"]))
        own = [entry | {"measurement": _under(entry, metric, protocol)} for entry in own]
        kept = [entry | {"metrics": entry["baseline"]} for entry in others]
        reference = next(
            (found for entry in [*own, *kept] if (found := _under(entry, metric, protocol))), None
        )
        if reference is None:
            why = _unmeasured(own[0], metric) if own else f"not run: {command(part.settings, [FLOAT], [])}"
            return Cell(NOT_RUN, notes.number(why), why=why)
        cell = float_cell(
            reference, own, Grid(measure(metric), "", part.model, protocol, None, metric, notes)
        )
        found = next(iter([*own, *others]))
        return beside(cell, dict(found) | {"method.name": FLOAT}, metric, self._shape, notes)

    def caption(self, parts: Sequence[Part]) -> list[str]:
        return []

    def measure(self, metric: str) -> Measure:
        return measure(metric)

    def missing(self, why: str, notes: Notes) -> Cell:
        return Cell(NOT_RUN, notes.number(why), why=why)

    def left_out(self, text: str, notes: Notes) -> None:
        notes.mark(text)


class Printed:
    """Cells as a paper printed them."""

    def measured(self, record: Record, metric: str) -> Measurement | None:
        found = record["metrics"].get(ANY_MEAN if metric.startswith(MEAN) else metric)
        return Measurement(found["value"], None, found["protocol"]) if found else None

    def cell(self, entries: list[dict], column: Column, part: Part, notes: Notes, place: str) -> Cell:
        metric = column.value.metric
        if metric == "bits_per_weight":
            bits = finite(entries[0].get("bits_per_weight"))
            return Cell(NOT_RUN) if bits is None else Cell(f"{bits:g}", value=bits)
        name = ANY_MEAN if metric.startswith(MEAN) else metric
        number = next((entry["metrics"][name] for entry in entries if name in entry["metrics"]), None)
        if number is None or number["protocol"] != part.protocols.get(metric, number["protocol"]):
            return Cell(NOT_RUN, why="the paper does not have it")
        printed, value = number["printed"], finite(number["value"])
        text = printed.text if value is None or value < LARGE else measure(metric).text(value)
        return Cell(
            text,
            notes.number(printed.note) if printed.note else "",
            value=value,
            metric=metric,
            protocol=number["protocol"],
        )

    def float_cell(
        self, entries: list[dict], others: list[dict], column: Column, part: Part, notes: Notes
    ) -> Cell:
        return self.cell(entries, column, part, notes, "") if entries else Cell(NOT_RUN)

    def caption(self, parts: Sequence[Part]) -> list[str]:
        """The sources of what is shown."""
        found = [
            one["printed"].source
            for part in parts
            for metrics in part.records["metrics"]
            for one in metrics.values()
        ]
        return [f"As printed in {_sources(found)}"]

    def measure(self, metric: str) -> Measure:
        """With as many digits as papers print, so that nothing is equal that is not."""
        return replace(measure(metric), decimals=4)

    def missing(self, why: str, notes: Notes) -> Cell:
        return Cell(NOT_RUN, why="the paper does not have it")

    def left_out(self, text: str, notes: Notes) -> None:
        """A paper need not have every line."""


def _checked(measurement: Measurement | None, metric: str, part: Part) -> Measurement | None:
    if measurement is not None and measurement.protocol != part.protocols.get(metric, ""):
        raise ValueError(
            f"two protocols in one column: {part.protocols.get(metric)!r} and {measurement.protocol!r}"
        )
    return measurement


def _under(entry: Record, metric: str, protocol: str) -> Measurement | None:
    found = measured(entry, metric)
    return found if found is not None and found.protocol == protocol else None


def _unmeasured(record: Record, metric: str) -> str:
    """Why a run that is done has no such number, and what would give it one."""
    if metric in COSTS:
        return COSTS[metric].absent
    lacking = [part for part in parts(metric) if part not in record["metrics"]]
    names = ", ".join(part.partition("/")[2] for part in lacking)
    return f"run, but not evaluated on {names}: add {'it' if len(lacking) == 1 else 'them'} to {knob(metric)}"


def knob(metric: str) -> str:
    """What decides whether a metric is measured."""
    return "eval.corpora" if parts(metric)[0].startswith("perplexity/") else "eval.tasks"


def _sources(texts: Sequence[str]) -> str:
    """Sources in words, the tables of one paper together."""
    papers: dict[str, set[str]] = {}
    for text in sorted(set(texts)):
        found = TABLE.fullmatch(text)
        papers.setdefault(found[1] if found else text, set()).update([found[2]] if found else [])
    said = []
    for paper, tables in papers.items():
        numbers = sorted(tables, key=lambda number: (len(number), number))
        listed = ", ".join(numbers[:-1]) + " and " * (len(numbers) > 1) + "".join(numbers[-1:])
        said.append(f"{paper}, Table{'s' * (len(numbers) > 1)} {listed}" if numbers else paper)
    return "; ".join(said)
