"""Conditions of a table on records: which records meet them, and the command that makes records that do."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from harness.naming import PLUS
from harness.reporting.labels import FLOAT, present
from harness.reporting.table_specs import Columns, Lines, Spec, Where

OF_QUANTIZED = ("scheme.", "data.", "method.")  # the float model has none of it


class Masks:
    """Which records of a frame meet a condition; every comparison is made once."""

    def __init__(self, frame: pd.DataFrame):
        self._frame = frame
        self._methods = frame["method.name"].to_numpy(dtype=object)
        self._float = self._methods == FLOAT
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def of(self, *wheres: Where) -> np.ndarray:
        """bool (records,): all of these conditions, those that do not concern it aside for the float model."""
        result = np.ones(len(self._frame), dtype=bool)
        for where in wheres:
            for name, wanted in where.items():
                met = self._one(name, wanted)
                result &= met | self._float if name.startswith(OF_QUANTIZED) else met
        return result

    def lines(self, spec: Spec, lines: Lines, method: str = "") -> np.ndarray:
        """bool (records,): the records of these methods, of one of them, that the lines and the table mean."""
        names = [method] if method else lines.methods
        key = ("method.name", repr(names))
        if key not in self._known:
            every = ~self._float if "*" in names else np.array([one in names for one in self._methods], dtype=bool)
            self._known[key] = every
        return self._known[key] & self.of(spec.where, lines.where)

    def union(self, spec: Spec, rows: Sequence[Lines], columns: Sequence[Columns]) -> np.ndarray:
        """bool (records,): all that stand in any cell, but for the float model's."""
        result = np.zeros(len(self._frame), dtype=bool)
        for lines in rows:
            result |= self.lines(spec, lines) & np.logical_or.reduce([self.of(group.where) for group in columns])
        return result & ~self._float

    def _one(self, name: str, wanted: Any) -> np.ndarray:
        key = (name, repr(wanted))
        if key not in self._known:
            values = wanted if isinstance(wanted, list) else [wanted]
            found = self._frame[name].to_numpy(dtype=object) if name in self._frame else [None] * len(self._frame)
            kinds = {(type(value), value) for value in found}  # many records, few different values
            met = {kind for kind in kinds if any(_is(kind[1], one) for one in values)}
            self._known[key] = np.array([(type(value), value) in met for value in found], dtype=bool)
        return self._known[key]


def _is(value: Any, wanted: Any) -> bool:
    """Whether a field of a record is what a condition wants; null and 0 are also what a record without the field has."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return wanted is None or (not isinstance(wanted, str) and wanted == 0)
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def command(record: Mapping[str, Any], methods: Sequence[str], wheres: Sequence[Where]) -> str:
    """The command that would fill cells, on the model of this record."""
    origin = str(record.get("model.id"))
    model = f"model={record['model.name']}" if origin.startswith(("asset:", "tiny:")) else f"model=hub model.id={origin}"
    if all(PLUS not in method for method in methods):
        names = f"method={','.join(methods)}"
    else:
        names = " or ".join(f"method={transform} method/solver={solver}" for transform, _, solver in (m.partition(PLUS) for m in methods))
    said = [_scheme(where) for where in wheres]
    schemes = list(dict.fromkeys(scheme for scheme, _ in said if scheme))
    values: dict[str, dict[str, None]] = {}
    for key, value in ((key, value) for _, rest in said for key, value in rest):
        values.setdefault(key, {})[str(value)] = None
    rest = [f"{key}={','.join(found)}" for key, found in values.items()]
    return " ".join(filter(None, ("ptq-bench run", model, names, f"scheme={','.join(schemes)}" if schemes else "", *rest)))


def _scheme(where: Where) -> tuple[str, list[tuple[str, Any]]]:
    """(the name of a scheme in conf/scheme or "", the overrides that say the rest)."""
    plain = {name: wanted[0] if isinstance(wanted, list) else wanted for name, wanted in where.items()}
    bits, group, act = (plain.get(f"scheme.{name}") for name in ("bits", "group_size", "act_bits"))
    name = f"w{bits}" + (f"g{group}" if group else "") + (f"a{act}" if act else "")
    said = {"scheme.bits", "scheme.group_size", "scheme.act_bits"} if name in known_schemes() else set()
    rest = [(key, value) for key, value in plain.items() if key not in said and present(value) and value]
    return (name if said else "", rest)


@cache
def known_schemes() -> frozenset[str]:
    return frozenset(file.name.removesuffix(".yaml") for file in files("conf.scheme").iterdir() if file.name.endswith(".yaml"))
