"""The range of every number that a person can set, written with its field and checked in one place.

    damping: Damping                         or   Annotated[float, Within(0, 1e3)]

A dataclass calls `check_bounds(self)` in its `__post_init__`. What is not a number (NaN) is within no range,
and no range reaches to infinity: what would be meant by it is said with null.
"""

import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated


@dataclass(frozen=True)
class Within:
    """From `least` to `most`, both included unless said otherwise."""

    least: float
    most: float
    or_else: str = ""  # what to write for something else than a number in this range
    above: bool = False  # `least` itself is too small
    below: bool = False  # `most` itself is too large

    def holds(self, value: float) -> bool:
        return (
            self.least <= value <= self.most
            and not (self.above and value == self.least)
            and not (self.below and value == self.most)
        )

    def __str__(self) -> str:
        if self.above or self.below:
            low = f"above {self.least}" if self.above else f"at least {self.least}"
            words = f"{low} and {'below' if self.below else 'at most'} {self.most}"
        else:
            words = f"between {self.least} and {self.most}"
        return f"must be {words}" + (f", or {self.or_else}" if self.or_else else "")


Count = Annotated[int, Within(1, 10**6)]  # of things that there is at least one of
CountOrZero = Annotated[int, Within(0, 10**6)]
Size = Annotated[int, Within(1, 2**24)]  # rows, columns or tokens that go together
Share = Annotated[float, Within(0, 1)]
Tolerance = Annotated[float, Within(0, 1)]  # relative: 0 goes on to the end
Factor = Annotated[float, Within(0, 1000)]
PositiveFactor = Annotated[float, Within(0, 1000, above=True)]
Rate = Annotated[float, Within(0, 100, above=True)]  # of learning
Damping = Annotated[float, Within(0, 1000)]  # of the mean diagonal: beyond, the Hessian is not seen any more
Seed = Annotated[int, Within(0, 2**63 - 1)]


def check_bounds(settings: object, prefix: str = "") -> None:
    """
    Args:
        settings: an instance of a dataclass.
        prefix: of the names of its fields in a message, such as "scheme.".

    Raises:
        ValueError: a field is out of its range; the message names it. None is checked by no range.
    """
    for name, bound in bounds_of(type(settings)).items():
        value = getattr(settings, name)
        if value is not None and not bound.holds(value):
            raise ValueError(f"{prefix}{name}={value}: {bound}")


@cache
def bounds_of(schema: type) -> dict[str, Within]:
    """The range of every field of a dataclass that has one."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {name: bound for name, hint in hints.items() for bound in _bounds_in(hint)}


def _bounds_in(hint: object) -> list[Within]:
    """Those of a type, or of the members of a union."""
    annotations = getattr(hint, "__metadata__", ())
    inner = () if annotations else typing.get_args(hint)
    return [entry for entry in annotations if isinstance(entry, Within)] + [
        bound for member in inner for bound in _bounds_in(member)
    ]
