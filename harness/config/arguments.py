"""The words of a command line as flags of Hydra's and overrides: what the shell took apart is put together,
what is no override is told in a line with what to type instead.
"""

import re
import shlex
from collections.abc import Sequence

from harness.config.explaining import likely_keys
from harness.config.shorthand import meant, model_id, options, parsed
from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError

A_WORD = "an override is key=value, such as method=gptq or scheme.bits=3"

FLAGS = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
FLAGS += ("--shell-completion", "-sc")
WITH_A_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn")
WITH_A_VALUE += ("--config-dir", "-cd", "--experimental-rerun")
INFO = ("--info", "-i")  # the value may be left out
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
ALIASES = {"results": "paths.results"}  # as the other commands call it
KEY = re.compile(r"[+~]{0,2}[A-Za-z_][\w$.:/@-]*", re.ASCII)
CHOICES = ("model", "data", "scheme", "method", "eval", "tracker", "experiment", "method/solver")
CHOICES += ("method/transform", "hydra/launcher")


def understood(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(flags, overrides in Hydra's grammar).

    Raises:
        UserError: a word is neither, or stands for nothing; the line says what to type.
    """
    flags, rest = _flags(_whole(words))
    if "--help" in flags or "-h" in flags:
        rest = [word for word in rest if KEY.match(word.partition("=")[0]) and "=" in word]
    return flags, overrides_of(rest)


def overrides_of(words: Sequence[str]) -> list[str]:
    """The overrides that words without flags stand for.

    Raises:
        UserError: as `understood`.
    """
    overrides, words = [], _whole(words)
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        is_key = KEY.fullmatch(key.strip()) and parsed(f"{key.strip()}=1")
        if not is_key or not (equals or key.startswith("~")):
            raise UserError(_no_override(word, words[:index][-1:]))
        overrides += meant(ALIASES.get(key.strip(), key) + equals + value)
    return overrides


def _whole(words: Sequence[str]) -> list[str]:
    """Words that a shell took apart at blanks put together again: `key = value`, `[a, b]` and `a, b`."""
    whole: list[str] = []
    for word in words:
        before = "" if not whole or _is_flag(whole[-1]) else whole[-1]
        is_open = any(
            before.partition("=")[2].startswith(opening) and before.count(opening) > before.count(closing)
            for opening, closing in ("[]", "{}")
        )
        is_new = _is_flag(word) or (KEY.fullmatch(word.partition("=")[0]) and "=" in word)
        if before and (
            word.startswith(("=", ",")) or (not is_new and (is_open or before.endswith(("=", ","))))
        ):
            whole[-1] += word
        else:
            whole.append(word)
    return whole


def _is_flag(word: str) -> bool:
    return bool(re.match(r"--?[A-Za-z]", word)) and not re.match(r"-(inf|nan)\b", word, re.IGNORECASE)


def _flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(flags with their values, the words that are none)."""
    flags, rest, left = [], [], list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        after = left[0] if left and "=" not in left[0] and not _is_flag(left[0]) else None
        if word in ("help", "-?"):
            flags.append("--help")
        elif word in FLAGS or (equals and name in (*WITH_A_VALUE, *INFO)):
            flags.append(word)
        elif word in WITH_A_VALUE:
            flags += [word, *left[:1]]
            del left[:1]
        elif word in INFO:
            flags.append(word)
            flags += [left.pop(0)] if after in INFO_VALUES else []
        elif name.lstrip("-") in ALIASES and _is_flag(word) and (equals or after):
            rest.append(f"{name.lstrip('-')}={value if equals else left.pop(0)}")
        elif _is_flag(word):
            raise UserError(_dashed(name, value if equals else after))
        else:
            rest.append(word)
    return flags, rest


def _dashed(flag: str, value: str | None) -> str:
    """What to type instead of `--flag value`."""
    name, typed = flag.lstrip("-"), flag if value is None else f"{flag}={value}"
    keys = [name] if name in CHOICES or "." in name else likely_keys(name, [])
    if value is None or not keys:
        hint = nearest_name(flag, FLAGS + WITH_A_VALUE + INFO)
        return f"unknown option {flag!r}: {hint or A_WORD}"
    return f"{typed}: overrides are written without dashes: {' or '.join(f'{key}={value}' for key in keys)}"


def _no_override(word: str, before: Sequence[str]) -> str:
    """What to type instead of a word that is no override."""
    belongs = (
        f"if it belongs to {before[0]}, quote both: {shlex.quote(f'{before[0]} {word}')}" if before else ""
    )
    if belongs and "/" in before[0]:
        return f"{word}: {A_WORD}; {belongs}"
    groups = [group for group in CHOICES if word.casefold() in options(group)]
    if groups:
        return f"{word}: {A_WORD}; write {' or '.join(f'{group}={word.casefold()}' for group in groups)}"
    if "=" not in word and model_id(word):
        return f"{word}: {A_WORD}; write model={shlex.quote(word)}"
    return f"{word}: {A_WORD}" + (f"; {belongs}" if belongs else "")
