"""The one exception that users are meant to read, and what is said in more than one place."""

TOO_LARGE = (
    "beyond 65504, the largest number of this type; try model.dtype=bfloat16 or float32"  # for float16
)


class UserError(Exception):
    """Something the user can fix. The message is one line: what is wrong, where, and the knob to turn."""


def overflow(what: str, dtype: str) -> str:
    """One cause, one remedy, wherever it is noticed: numbers that are not finite in a dtype."""
    remedies = {"float16": TOO_LARGE, "bfloat16": "try model.dtype=float32"}
    return f"{what} are not finite in {dtype}: {remedies.get(dtype, 'the weights make no working model')}"
