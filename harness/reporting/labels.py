"""How tables call things: rows and columns from the configuration, numbers from their size.

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
from harness.reporting.frames import finite

FLOAT = "float"
SEPARATOR = " · "
LETTERS = {"scheme.group_size": "g", "scheme.scale_bits": "s", "scheme.act_bits": "a", "scheme.kv_bits": "kv"}
HEAD = ("scheme.bits", *LETTERS)  # what the head of a column says
SWITCHES = {  # a field, and those without which (without all of which) it means nothing
    "scheme.scale_group_size": ("scheme.scale_bits",),
    "scheme.outlier_structure": ("scheme.outlier_ratio",),
    "scheme.act_symmetric": ("scheme.act_bits", "scheme.kv_bits"),
    "scheme.act_range": ("scheme.act_bits", "scheme.kv_bits"),
}
USUAL = 0.75  # share of the records from which a value goes without saying
ABSENT = "absent"
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\.([A-Za-z_]\w*)")  # package.module.Class


class Rows(NamedTuple):
    """What to call the rows of a table, record by record, and what goes without saying in them."""

    labels: list[str]
    usual: str  # "" or e.g. "zero_point=integer"


def row_labels(records: pd.DataFrame, told: Sequence[Collection[str]] | None = None) -> Rows:
    """Call every record after its method and every other field that varies, e.g. "gptq · range=minmax".

    Fields of a method vary when they differ among the records of that method; fields of the scheme and of the
    calibration when they differ among all of them. Of the latter, a value that at least `USUAL` of the
    records share is said once for the whole table. The model, the evaluation and the seed are not part of a
    row's name.

    Args:
        told: for each record the fields that its place in the table says already; None: those of `HEAD`.
    """
    told = [HEAD] * len(records) if told is None else told
    is_float = (records["method.name"] == FLOAT).to_list()
    everywhere = frozenset.intersection(*map(frozenset, told)) if told else frozenset()
    records = without_idle(records)
    quantized = records[records["method.name"] != FLOAT]
    shared = varying(
        quantized,
        [name for name in records if name.startswith(("scheme.", "data.")) and name not in everywhere],
    )
    own = [
        name
        for name in records
        if name.startswith("method.") and name != "method.name" and name not in everywhere
    ]
    by_method = {method: shared + varying(group, own) for method, group in quantized.groupby("method.name")}
    names = short_names(sorted({name for fields in by_method.values() for name in fields}))
    texts = {name: value_texts(records[name]) for name in names}
    usual = {}
    for name in shared:
        untold = [
            text
            for text, said, skip in zip(texts[name], told, is_float, strict=True)
            if not skip and name not in said
        ]
        usual[name] = _usual(untold) if untold else None
    phrases = {name: [_phrase(name, names[name], text) for text in found] for name, found in texts.items()}
    labels = []
    for place, method in enumerate(records["method.name"]):
        fields = [name for name in by_method.get(method, []) if name not in told[place]]
        said = [phrases[name][place] for name in fields if texts[name][place] != usual.get(name)]
        labels.append(SEPARATOR.join([visible(method), *filter(None, said)]))
    return Rows(
        labels,
        SEPARATOR.join(filter(None, (_phrase(name, names[name], text) for name, text in usual.items()))),
    )


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
        idle |= {
            column: records[column].mask(values, math.nan)
            for column, values in off.items()
            if column in records
        }
    return records.assign(**idle)


def _phrase(column: str, name: str, text: str | None) -> str:
    """One field in a label, "" where it is absent; "1 % outliers · columns" and not "outlier_ratio=0.01 ·
    outlier_structure=column".
    """
    if text is None:
        return ""
    if column in HEAD:  # said like the head of a column does
        return (
            f"{text} bits"
            if column == "scheme.bits"
            else ""
            if text == "none"
            else f"{LETTERS[column]}{text}"
        )
    if column == "method.setting":  # of a number that a paper printed: its own words
        return text
    if column == "scheme.outlier_ratio":
        return f"{100 * float(text):g} % outliers"
    if column == "scheme.outlier_structure":
        return {"column": "columns"}.get(text, text)
    return f"{name}={text}"


def varying(records: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The columns in which these records differ.

    A field that only some records have counts, unless it belongs to a part that is already known to differ:
    the damping of an initial solution says nothing beside the fact that some runs have no initial solution.
    """
    found: list[str] = []
    for name in sorted(columns):
        values = {_identity(value) for value in records[name]}
        inherited = name in SWITCHES or any(name.startswith(parent + ".") for parent in found)
        if len(values - {ABSENT}) > 1 or (len(values) > 1 and not inherited):
            found.append(name)
    return found


def _usual(texts: Sequence[str | None]) -> str | None:
    """The text that nearly all of these share, or None."""
    text, count = Counter(texts).most_common(1)[0]
    return text if count >= USUAL * len(texts) else None


def short_names(columns: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each dotted name that no other one shares."""
    endings = {
        name: [".".join(name.split(".")[-count:]) for count in range(1, name.count(".") + 2)]
        for name in columns
    }
    shared = {
        ending: sum(ending in other for other in endings.values())
        for name in columns
        for ending in endings[name]
    }
    return {name: visible(next((e for e in endings[name] if shared[e] == 1), name)) for name in columns}


def value_texts(values: Sequence[Any]) -> list[str | None]:
    """The values of one field, short unless that would make two of them look the same; None where the field
    is absent.
    """
    short = [None if _identity(value) is ABSENT else value_text(value) for value in values]
    if len({_identity(value) for value in values}) == len(set(short)):
        return short
    return [None if _identity(value) is ABSENT else visible(str(value)) for value in values]


def value_text(value: Any) -> str:
    """One value of a configuration; a class is called by its name in lower case."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return visible(",".join(value)) or "none"
    target = TARGET.fullmatch(value) if isinstance(value, str) else None
    return target[2].lower() if target else visible(str(value))


def settings(record: Mapping[str, Any], group: str) -> str:
    """One group of a record's configuration on one line, e.g. "wiki · samples=32 · window=512"."""
    fields = [
        name for name in record if name.startswith(group + ".") and _identity(record[name]) is not ABSENT
    ]
    rest = [
        f"{visible(name.removeprefix(group + '.'))}={value_text(record[name])}"
        for name in fields
        if name != f"{group}.name"
    ]
    return SEPARATOR.join([value_text(record.get(f"{group}.name")), *rest])


def column_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of `HEAD` in a record, None for what it lacks."""
    return tuple(value if present(value) else None for value in map(record.get, HEAD))


def column_label(bits: Any, *others: Any) -> str:
    """The head of a column: "3", "4 g32" with groups of 32 columns, "3 g16 s3" with scales of 3 bits, "4 a4"
    with activations of 4.

    Args:
        others: what `column_of` gives behind the bits.
    """
    extras = [
        (letter, value) for letter, value in zip(LETTERS.values(), others, strict=True) if value is not None
    ]
    if bits is None:
        extras = [(letter, value) for letter, value in extras if letter in ("a", "kv")]
    return " ".join(
        [
            "own format" if bits is None else value_text(bits),
            *(f"{letter}{value_text(value)}" for letter, value in extras),
        ]
    )


def activations_in(head: str) -> str:
    """What a `column_label` says of activations, e.g. "a4 kv8"; "" where they are float."""
    return re.search(r"((?<!\S)a\d+)? ?((?<!\S)kv\d+)?$", head)[0].strip()


def column_rank(bits: Any, *others: Any) -> tuple:
    """Many bits before few; whole channels before groups, wide groups before narrow ones, what is float
    before what is coarser.
    """
    sizes = (-_magnitude(bits, 0), *(-_magnitude(value, math.inf) for value in others))
    return (*sizes, str(bits), *map(str, others))


def row_rank(method: str, label: str) -> tuple:
    """Methods in their usual order, then numbers inside labels by value."""
    pieces = tuple(
        (0, float(piece), "") if piece.isdecimal() else (1, 0.0, piece)
        for piece in re.split(r"([0-9]{1,15})", label)
    )
    return (method_rank(method), pieces, label)


def signed(text: str) -> str:
    """A formatted difference with its sign, the typographic minus; none on what rounds to zero."""
    if not text.strip("-0."):
        return text.lstrip("-")
    return "−" + text[1:] if text.startswith("-") else "+" + text


def present(value: Any) -> bool:
    """Whether a field is there and not null."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _identity(value: Any) -> Any:
    """What tells values apart: 1 and 1.0 are one number, true is something else."""
    if isinstance(value, float) and math.isnan(value):
        return ABSENT
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value),
        value,
    )


def _magnitude(value: Any, default: float) -> float:
    return default if finite(value) is None else float(value)
