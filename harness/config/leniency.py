"""Values as people write them, for the type that is asked for: none for null, 1e3 for 1000."""

import types
import typing
from typing import Any


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if is_union else (hint,)


def meant_as(value: Any, hint: Any) -> Any:
    """The value that was meant for a field of this type, where there is no doubt; else the value itself."""
    of = members(hint)
    if (
        isinstance(value, str)
        and value.lower() == "none"
        and type(None) in of
        and {int, float, bool} & set(of)
    ):
        return None
    if isinstance(value, float) and value.is_integer() and int in of and float not in of:
        return int(value)
    return value
