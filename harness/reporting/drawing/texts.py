"""Texts inside pictures: only letters that the font has, no longer than there is room for."""

import textwrap
from functools import cache

from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from harness.foundation.text import visible
from harness.reporting.drawing.styles import FIGURE
from harness.reporting.labels import SEPARATOR

LONGEST = 60  # letters of a label
ONE_LINE = 18  # letters of a label that stays on one line


def shortened(text: str, length: int = LONGEST) -> str:
    """As much of the text as `length` letters hold. Every text of a record that is drawn comes here."""
    text = drawable(text)
    return textwrap.shorten(text, length, placeholder=" …") if " " in text[:length] else text[:length]


def wrapped(text: str, length: int, lines: int) -> list[str]:
    """The text on at most so many lines of so many letters."""
    return textwrap.wrap(shortened(text, length * lines), length, max_lines=lines, placeholder=" …")


def labelled(text: str) -> str:
    """A label, the longer ones on two lines instead of one with a dot between them."""
    text = shortened(text)
    words = text.split(SEPARATOR)
    if len(text) <= ONE_LINE or len(words) == 1:
        return text
    halves = [
        (SEPARATOR.join(words[:place]), SEPARATOR.join(words[place:])) for place in range(1, len(words))
    ]
    return "\n".join(min(halves, key=lambda lines: max(map(len, lines))))


def drawable(text: str) -> str:
    """The text with an escape in place of every character that the font lacks: two names that differ still
    do.
    """
    return "".join(letter if ord(letter) in _glyphs() else _escape(letter) for letter in visible(text))


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FIGURE["font.family"])).get_charmap())


def _escape(letter: str) -> str:
    code = ord(letter)
    if 0x2400 <= code < 0x2420:  # the picture of a control character
        return repr(chr(code - 0x2400))[1:-1]
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
