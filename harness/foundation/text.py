"""Characters that would vanish on a page, made visible."""

import unicodedata


def visible(text: str) -> str:
    """The text with nothing hidden in it: control, formatting and separator characters, line breaks too, get
    a visible form.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if ord(character) < 32:
        return chr(0x2400 + ord(character))  # the picture of the control character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"):
        return f"\\u{ord(character):04x}"
    return character
