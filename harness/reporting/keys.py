"""What the rows and columns of tables stand for: a method with its settings, a scheme. Labels are made from
these and never read back.

No method and no field of a configuration need be known here: a row is called after its method and whatever
else varies, so that a new field shows itself. Known by name are what the head of a column says, and outliers,
which have words of their own.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from harness.foundation.text import visible
from harness.records.naming import method_rank
from harness.records.record import finite
from harness.reporting.labels import (
    ABSENT,
    FLOAT,
    SEPARATOR,
    identity,
    present,
    short_names,
    value_text,
    value_texts,
)

LETTERS = {"scheme.group_size": "g", "scheme.scale_bits": "s", "scheme.act_bits": "a", "scheme.kv_bits": "kv"}
HEAD = ("scheme.bits", *LETTERS)  # what the head of a column says
RATIO, STRUCTURE = "scheme.outlier_ratio", "scheme.outlier_structure"
SWITCHES = {  # a field, and those without which (without all of which) it means nothing
    "scheme.scale_group_size": ("scheme.scale_bits",),
    STRUCTURE: (RATIO,),
    "scheme.act_symmetric": ("scheme.act_bits", "scheme.kv_bits"),
    "scheme.act_range": ("scheme.act_bits", "scheme.kv_bits"),
}
USUAL = 0.75  # share of the records from which a value goes without saying


class ColumnKey(NamedTuple):
    """The part of a scheme that the head of a column says; None for what it lacks."""

    bits: Any
    group: Any = None
    scale: Any = None
    act: Any = None
    kv: Any = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "ColumnKey":
        return cls(*(value if present(value) else None for value in map(record.get, HEAD)))

    @property
    def label(self) -> str:
        """The head of a column: "3", "4 g32" with groups of 32 columns, "3 g16 s3" with scales of 3 bits,
        "4 a4" with activations of 4.
        """
        bits = "own format" if self.bits is None else value_text(self.bits)
        return " ".join(filter(None, (bits, self._extras)))

    @property
    def activations(self) -> str:
        """What the label says of activations, e.g. "a4 kv8"; "" where they are float."""
        return _lettered({"a": self.act, "kv": self.kv})

    @property
    def _extras(self) -> str:
        if self.bits is None:
            return self.activations
        return _lettered(dict(zip(LETTERS.values(), self[1:], strict=True)))

    def in_words(self, joint: str = ", ") -> str:
        """As people say it: "2 bits, g64"."""
        if finite(self.bits) is None:
            return self.label
        return joint.join(filter(None, (f"{value_text(self.bits)} bits", self._extras)))

    @property
    def preset(self) -> str:
        """What its file in conf/scheme is called, where it has one: "w3g64a8"."""
        letters = (("w", self.bits), ("g", self.group), ("a", self.act))
        return "".join(f"{letter}{value}" for letter, value in letters if value)

    @property
    def rank(self) -> tuple:
        """Many bits before few; whole channels before groups, wide groups before narrow ones, what is float
        before what is coarser.
        """
        sizes = (-_magnitude(self.bits, 0), *(-_magnitude(value, math.inf) for value in self[1:]))
        return (*sizes, *map(str, self))


class RowKey(NamedTuple):
    """A method, and (field, what a label says of it) of everything else that tells a row from others."""

    method: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        return SEPARATOR.join([visible(self.method), *(text for _, text in self.settings)])

    @property
    def outliers(self) -> tuple[str, str]:
        """(structure, share) of the outliers, e.g. ("columns", "1 % outliers"); "" for what goes unsaid."""
        said = dict(self.settings)
        return said.get(STRUCTURE, ""), said.get(RATIO, "")

    @property
    def without_outliers(self) -> "RowKey":
        rest = tuple(entry for entry in self.settings if entry[0] not in (RATIO, STRUCTURE))
        return RowKey(self.method, rest)

    @property
    def rank(self) -> tuple:
        return row_rank(self.method, self.label)


class RowKeys(NamedTuple):
    """The keys of the rows that records stand in, record by record, and what goes without saying in them."""

    keys: list[RowKey]
    usual: str  # "" or e.g. "zero_point=integer"

    @property
    def labels(self) -> list[str]:
        return [key.label for key in self.keys]


def row_keys(records: pd.DataFrame, stated: Sequence[Collection[str]] | None = None) -> RowKeys:
    """Call every record after its method and every other field that varies, e.g. "gptq · range=minmax".

    Fields of a method vary when they differ among the records of that method; fields of the scheme and of the
    calibration when they differ among all of them. Of the latter, a value that at least `USUAL` of the
    records share is said once for the whole table. The model, the evaluation and the seed are not part of a
    row's name.

    Args:
        stated: for each record the fields that its position in the table says already; None: those of `HEAD`.
    """
    stated = [HEAD] * len(records) if stated is None else stated
    records = without_idle(records)
    by_method, shared = _varying_fields(records, stated)
    names = short_names(sorted({name for fields in by_method.values() for name in fields}))
    texts = {name: value_texts(records[name]) for name in names}
    quantized = [method != FLOAT for method in records["method.name"]]
    usual = {}
    for name in shared:
        asked = zip(texts[name], stated, quantized, strict=True)
        usual[name] = _usual([text for text, said, counts in asked if counts and name not in said])
    phrases = {name: [_phrase(name, names[name], text) for text in values] for name, values in texts.items()}
    keys = []
    for index, method in enumerate(records["method.name"]):
        fields = [name for name in by_method.get(method, []) if name not in stated[index]]
        said = [name for name in fields if texts[name][index] != usual.get(name)]
        settings = ((name, phrases[name][index]) for name in said)
        keys.append(RowKey(method, tuple(entry for entry in settings if entry[1])))
    common = (_phrase(name, names[name], text) for name, text in usual.items())
    return RowKeys(keys, SEPARATOR.join(filter(None, common)))


def _varying_fields(
    records: pd.DataFrame, told: Sequence[Collection[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """(by quantized method the fields that vary in its rows, those of them that all methods have)."""
    everywhere = frozenset.intersection(*map(frozenset, told)) if told else frozenset()
    asked = [name for name in records if name not in everywhere]
    quantized = records[records["method.name"] != FLOAT]
    shared = varying(quantized, [name for name in asked if name.startswith(("scheme.", "data."))])
    own = [name for name in asked if name.startswith("method.") and name != "method.name"]
    return {
        method: shared + varying(group, own) for method, group in quantized.groupby("method.name")
    }, shared


def without_idle(records: pd.DataFrame) -> pd.DataFrame:
    """The records without the fields that are switched off, or mean nothing beside one that is: as in records
    that never had them.
    """
    idle = {}
    for name, switches in SWITCHES.items():
        off = {
            switch: [not present(value) or value == 0 for value in records[switch]]
            for switch in switches
            if switch in records
        }
        if off:
            off[name] = [all(values) for values in zip(*off.values(), strict=True)]
        known = {column: values for column, values in off.items() if column in records}
        idle |= {column: records[column].mask(values, math.nan) for column, values in known.items()}
    return records.assign(**idle)


def varying(records: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The columns in which these records differ.

    A field that only some records have counts, unless it belongs to a part that is already known to differ:
    the damping of an initial solution says nothing beside the fact that some runs have no initial solution.
    """
    differing: list[str] = []
    for name in sorted(columns):
        values = {identity(value) for value in records[name]}
        inherited = name in SWITCHES or any(name.startswith(parent + ".") for parent in differing)
        if len(values - {ABSENT}) > 1 or (len(values) > 1 and not inherited):
            differing.append(name)
    return differing


def row_rank(method: str, label: str) -> tuple:
    """Methods in their usual order, then numbers inside labels by value."""
    pieces = tuple(
        (0, float(piece), "") if piece.isdecimal() else (1, 0.0, piece)
        for piece in re.split(r"([0-9]{1,15})", label)
    )
    return (method_rank(method), pieces, label)


def _phrase(column: str, name: str, text: str | None) -> str:
    """One field in a label, "" where it is absent; "1 % outliers · columns" and not "outlier_ratio=0.01 ·
    outlier_structure=column".
    """
    if text is None:
        return ""
    if column == "scheme.bits":  # said like the head of a column does
        return f"{text} bits"
    if column in LETTERS:
        return "" if text == "none" else f"{LETTERS[column]}{text}"
    if column == "method.setting":  # of a number that a paper printed: its own words
        return text
    if column == RATIO:
        return f"{100 * float(text):g} % outliers"
    if column == STRUCTURE:
        return {"column": "columns"}.get(text, text)
    return f"{name}={text}"


def _usual(texts: Sequence[str | None]) -> str | None:
    """The text that nearly all of these share, or None."""
    (text, count), *_ = Counter(texts).most_common(1) or [(None, 0)]
    return text if count >= USUAL * len(texts) else None


def _lettered(values: Mapping[str, Any]) -> str:
    return " ".join(f"{letter}{value_text(value)}" for letter, value in values.items() if value is not None)


def _magnitude(value: Any, default: float) -> float:
    return default if finite(value) is None else float(value)
