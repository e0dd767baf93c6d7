"""Conditions of a table on records: which records meet them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.reporting.labels import FLOAT
from harness.reporting.papers.specs import Columns, Lines, Spec, Where

OF_QUANTIZED = ("scheme.", "data.", "method.")  # the float model has none of it


class Masks:
    """Which records of a frame meet a condition; every comparison is made once."""

    def __init__(self, frame: pd.DataFrame):
        self._frame = frame
        self._methods = frame["method.name"].to_numpy(dtype=object)
        self._float = self._methods == FLOAT
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def of(self, *wheres: Where) -> np.ndarray:
        """bool (records,): all of these conditions; of the float model those that concern it."""
        result = np.ones(len(self._frame), dtype=bool)
        for where in wheres:
            for name, wanted in where.items():
                met = self._one(name, wanted)
                result &= met | self._float if name.startswith(OF_QUANTIZED) else met
        return result

    def lines(self, spec: Spec, lines: Lines, method: str = "") -> np.ndarray:
        """bool (records,): the records of these methods, or of one, that the lines and the table mean."""
        names = [method] if method else lines.methods
        key = ("method.name", repr(names))
        if key not in self._known:
            every = (
                ~self._float
                if "*" in names
                else np.array([one in names for one in self._methods], dtype=bool)
            )
            self._known[key] = every
        return self._known[key] & self.of(spec.where, lines.where)

    def union(self, spec: Spec, rows: Sequence[Lines], columns: Sequence[Columns]) -> np.ndarray:
        """bool (records,): all that stand in any cell, but for the float model's."""
        result = np.zeros(len(self._frame), dtype=bool)
        for lines in rows:
            result |= self.lines(spec, lines) & np.logical_or.reduce(
                [self.of(group.where) for group in columns]
            )
        return result & ~self._float

    def _one(self, name: str, wanted: Any) -> np.ndarray:
        key = (name, repr(wanted))
        if key not in self._known:
            values = wanted if isinstance(wanted, list) else [wanted]
            found = (
                self._frame[name].to_numpy(dtype=object) if name in self._frame else [None] * len(self._frame)
            )
            kinds = {(type(value), value) for value in found}  # many records, few different values
            met = {kind for kind in kinds if any(_is(kind[1], one) for one in values)}
            self._known[key] = np.array([(type(value), value) in met for value in found], dtype=bool)
        return self._known[key]


def _is(value: Any, wanted: Any) -> bool:
    """Whether a field of a record is what a condition wants; null and 0 are also what a record without the
    field has.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return wanted is None or (not isinstance(wanted, str) and wanted == 0)
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
