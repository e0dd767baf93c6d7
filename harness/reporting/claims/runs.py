"""Records by column, as claims select and match them, and the layer errors beside them."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from harness.records.record import finite
from harness.reporting.claims.reading import LAYERS, Rule
from harness.reporting.keys import HEAD, ColumnKey, without_idle


class Runs:
    """The records, a list per column; a run is a place in these lists. Fields that are null, missing or idle
    are all None.
    """

    def __init__(self, frame: pd.DataFrame):
        self.columns = {
            name: [_plain(value) for value in values] for name, values in without_idle(frame).items()
        }
        self.count = len(frame)
        self._identities: dict[str, list] = {}

    def get(self, column: str, run: int) -> Any:
        return self.columns[column][run] if column in self.columns else None

    @cached_property
    def models(self) -> dict[str, str]:
        """What each model is called, by its identity, in alphabetical order; two of one name are told
        apart.
        """
        names = {model: str(self.get("model.name", run)) for run, model in enumerate(self.model)}
        counts = Counter(names.values())
        unique = {
            model: name if counts[name] == 1 else f"{name} ({model[-8:]})" for model, name in names.items()
        }
        return dict(sorted(unique.items(), key=lambda entry: (entry[1], entry[0])))

    @cached_property
    def model(self) -> list[str]:
        """The identity of the model of every run."""
        columns = ("model.fingerprint", "model.id", "model.name")
        return [
            next((str(found) for found in (self.get(name, run) for name in columns) if found), "")
            for run in range(self.count)
        ]

    def select(self, filters: Mapping[str, Any]) -> list[int]:
        """The runs that pass all filters."""
        named = filters.get("method.name")
        methods = named if isinstance(named, list) else [named]
        found = (
            sorted(run for method in methods for run in self._by_method.get(method, []))
            if named
            else list(range(self.count))
        )
        for column, wanted in filters.items():
            passing = _passing(wanted)
            values = self.identities(column)
            found = [run for run in found if passing(values[run])]
        return found

    @cached_property
    def _by_method(self) -> dict[Any, list[int]]:
        found: dict[Any, list[int]] = {}
        for run, method in enumerate(self.identities("method.name")):
            found.setdefault(method, []).append(run)
        return found

    def identities(self, column: str) -> list:
        """The values of a column such that 3 equals 3.0 and True does not equal 1."""
        if column not in self._identities:
            self._identities[column] = [
                _identity(value) for value in self.columns.get(column, [None] * self.count)
            ]
        return self._identities[column]

    def doubtful(self, run: int) -> bool:
        """Whether the weights had no more bits than this before anyone quantized them."""
        bits, source = finite(self.get("scheme.bits", run)), finite(self.get("model.source_bits", run))
        return bits is not None and source is not None and bits >= source

    def scheme(self, run: int) -> str:
        """The bits and groups of a run in words, e.g. "3 bits g64"; "" for a float one."""
        if self.get("method.name", run) == "float":
            return ""
        return ColumnKey(*(self.get(column, run) for column in HEAD)).in_words(" ")

    def values(self, columns: Sequence[str], run: int) -> tuple:
        return tuple(self.identities(column)[run] for column in columns)


def shared_columns(runs: Runs, rule: Rule) -> list[str]:
    """The columns in which both sides of a comparison must agree, the model and the seed aside.

    All of the calibration and of the scheme, but for what the rule filters or lets vary; and all of the
    method, where both sides are of one method. The float model has neither.
    """
    if rule.against is None or rule.to_float:
        return []
    free = {*rule.side, *rule.against, *rule.vary}
    groups = ("scheme.", "data.", "method.") if same_method(rule) else ("scheme.", "data.")
    return sorted(name for name in runs.columns if name.startswith(groups) and name not in free)


def same_method(rule: Rule) -> bool:
    return rule.against is not None and rule.side.get("method.name") == rule.against.get("method.name")


def sides(runs: Runs, rule: Rule) -> tuple[list[int], list[int]]:
    """The runs that the rule is about, whatever came of them."""
    where = (
        rule.where
        if not rule.to_float
        else {name: value for name, value in rule.where.items() if name.startswith("model.")}
    )
    return runs.select({**rule.where, **rule.side}), runs.select(
        {**where, **rule.against}
    ) if rule.against else []


def usable(runs: Runs, rule: Rule, run: int) -> bool:
    """Whether a run is evidence: it ended, and what it rounded had been finer. What a run costs does not
    depend on the latter.
    """
    of_quality = rule.from_items or rule.kind == LAYERS
    return runs.get("status", run) == "done" and not (of_quality and runs.doubtful(run))


def _passing(wanted: Any) -> Callable[[Any], bool]:
    """The filter for one column: a value, one of a list, or a range."""
    if isinstance(wanted, dict):
        low, high = wanted.get("min", -math.inf), wanted.get("max", math.inf)
        return lambda value: value is not None and finite(value) is not None and low <= finite(value) <= high
    several = {_identity(one) for one in (wanted if isinstance(wanted, list) else [wanted])}
    return lambda value: value in several


def _identity(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str | tuple | None):
        return f"{type(value).__name__} {value!r}"
    return value


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value
