"""The colour, marker and line of every method: the same in all figures."""

import hashlib

from matplotlib.colors import to_hex, to_rgb

from harness.records.naming import PLUS

# Colours that people with colour blindness can tell apart (after Okabe and Ito); no marker twice, for
# greyscale.
METHODS = {
    "float": ("#222222", ""),
    "rtn": ("#7A7A7A", "s"),
    "gptq": ("#0072B2", "o"),
    "quantease": ("#D55E00", "^"),
    "quantease_gptq": ("#8C2D04", "v"),
    "quantease_further": ("#E69F00", "*"),
    "quantease_further_spqr": ("#E69F00", "d"),
    "spqr": ("#009E73", "D"),
    "gptvq": ("#56B4E9", "H"),
    "gptvq_tuned": ("#56B4E9", "+"),
    "vptq": ("#CC79A7", "P"),
    "vptq_tuned": ("#CC79A7", "X"),
    "vptq_further": ("#A0307A", ">"),
    "smoothquant": ("#3FA7D6", "x"),
    "awq": ("#C99700", "p"),
    "omniquant": ("#6A51A3", "h"),
    "affinequant": ("#A6611A", "<"),
}
OTHERS = ("#1B7837", "#B2182B", "#4D4D9F", "#00868B", "#8B5A8C", "#5B7F00")
OTHER_MARKERS = (">", "d", "*", "8", "H")
DARKNESS = 0.48  # the most that letters may have of the brightness of white
LINES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)))


def colour_and_marker(method: str) -> tuple[str, str]:
    """Fixed for the methods we know; for any other one derived from its name alone.

    A pair ("awq+gptq") has the colour of its transform and the marker of its solver, and figures fill it by
    half.
    """
    if method in METHODS:
        return METHODS[method]
    if is_pair(method):
        first, _, second = method.partition(PLUS)
        return colour_and_marker(first)[0], colour_and_marker(second)[1]
    digest = hashlib.sha256(method.encode("utf-8", "replace")).digest()
    return OTHERS[digest[0] % len(OTHERS)], OTHER_MARKERS[digest[1] % len(OTHER_MARKERS)]


def ink(colour: str) -> str:
    """The colour for letters: pale ones darkened until they can be read on white."""
    red, green, blue = to_rgb(colour)
    darker = min(1.0, DARKNESS / (0.299 * red + 0.587 * green + 0.114 * blue or 1.0))
    return to_hex((darker * red, darker * green, darker * blue))


def is_pair(method: str) -> bool:
    """A transform with a solver, both of them known."""
    halves = method.split(PLUS)
    return len(halves) == 2 and all(half in METHODS for half in halves)


def line_style(variant: int) -> str | tuple:
    """The line of the n-th variant of a figure, counted from 0."""
    return LINES[variant % len(LINES)]
