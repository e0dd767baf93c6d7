"""The hint "did you mean …?" of all messages about a name that does not exist."""

import difflib
from collections.abc import Iterable


def nearest_name(wrong: str, names: Iterable[str], cutoff: float = 0.6, most: int = 1) -> str:
    """ "did you mean NAME?" (or "NAME or NAME?", the `most` likely ones); "" where no name is alike enough.

    `cutoff` is the least likeness, from 0 to 1, as `difflib.get_close_matches` measures it.
    """
    close = difflib.get_close_matches(wrong, list(names), n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(close)}?" if close else ""
