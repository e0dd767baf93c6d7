"""How tables write things: the fields of a configuration and their values, signs of differences."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.foundation.text import visible

FLOAT = "float"
SEPARATOR = " · "
ABSENT = "absent"
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\.([A-Za-z_]\w*)")  # package.module.Class


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
    short = [None if identity(value) is ABSENT else value_text(value) for value in values]
    if len({identity(value) for value in values}) == len(set(short)):
        return short
    return [None if identity(value) is ABSENT else visible(str(value)) for value in values]


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
        name for name in record if name.startswith(group + ".") and identity(record[name]) is not ABSENT
    ]
    rest = [
        f"{visible(name.removeprefix(group + '.'))}={value_text(record[name])}"
        for name in fields
        if name != f"{group}.name"
    ]
    return SEPARATOR.join([value_text(record.get(f"{group}.name")), *rest])


def signed(text: str) -> str:
    """A formatted difference with its sign, the typographic minus; none on what rounds to zero."""
    if not text.strip("-0."):
        return text.lstrip("-")
    return "−" + text[1:] if text.startswith("-") else "+" + text


def present(value: Any) -> bool:
    """Whether a field is there and not null."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def identity(value: Any) -> Any:
    """What tells values apart: 1 and 1.0 are one number, true is something else; `ABSENT` for NaN."""
    if isinstance(value, float) and math.isnan(value):
        return ABSENT
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value),
        value,
    )
