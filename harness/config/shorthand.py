"""What people type, as the overrides that it stands for in Hydra's grammar.

    model=./my-checkpoint           model=hub model.id=./my-checkpoint
    eval.tasks=piqa,hellaswag       eval.tasks=[piqa,hellaswag]: one run with both; [piqa],[hellaswag] sweeps
    paths.results=/data/run=3       paths.results='/data/run=3': a text is any text, whatever its characters
    method=GPTQ                     method=gptq

A value that the grammar cannot read is taken as text, so that the type of its key decides, and names it.
"""

import os
import re
import typing
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from harness.config.compose import CONF
from harness.config.leniency import members
from harness.config.run_config import GROUPS, SCALARS
from harness.foundation.errors import UserError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
HUB_PAGE = re.compile(r"https?://(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)")
NOTHING = ("none", "null", "~")
PARTS = {f"method.{part}": f"method/{part}" for part in ("solver", "transform", "tuning")}


def meant(override: str) -> list[str]:
    """The overrides, mostly one, that a `key=value` as people type it stands for. What they stand for, stands
    for itself.

    Raises:
        UserError: a value is missing, or a bracket not closed; the line says what to type.
    """
    key, equals, value = (part.strip() for part in override.partition("="))
    name = key.lstrip("+~").partition("@")[0]
    if not (equals and name) or key.startswith("~"):
        return [override]
    part = name.replace("/", ".")
    if part in PARTS and value.lower() in NOTHING:
        return [f"++{part}=null"]  # whether there is one to leave out or not
    if name in PARTS and all(word.strip() in options(PARTS[name]) for word in value.split(",")):
        key, name = key.replace(".", "/"), PARTS[name]
    if (CONF / name).is_dir():  # a group of conf/config.yaml has its option already: nothing to add
        return _choice(key if "/" in name else key.lstrip("+"), name, value)
    known = _kinds()
    if key.startswith("+") and name in known:
        key = f"++{name}"  # whether the option has it or only the schema
    return [f"{key}={known.get(name, _any)(name, value)}"]


@lru_cache(maxsize=4096)
def parsed(override: str) -> Override | None:
    """None where the grammar cannot read it."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def quoted(text: str) -> str:
    """A text as one value of the grammar, whatever is in it."""
    return QuotedString(text, Quote.single).with_quotes()


@cache
def _kinds() -> dict[str, Callable[[str, str], str]]:
    """How the value of a key of the schema is read."""
    kinds: dict[str, Callable[[str, str], str]] = {"method.name": _text, **dict.fromkeys(SCALARS, _any)}
    for group, schema in GROUPS.items():
        for name, hint in typing.get_type_hints(schema).items():
            nullable, plain = type(None) in members(hint), set(members(hint)) - {type(None)}
            if group == "paths" and plain == {str}:
                kinds[f"{group}.{name}"] = _one_text
            elif plain == {str}:
                kinds[f"{group}.{name}"] = _text_or_null if nullable else _text
            elif plain == {list[str]}:
                kinds[f"{group}.{name}"] = _list_or_null if nullable else _list
            else:
                kinds[f"{group}.{name}"] = _any
    return kinds


def _text(key: str, value: str, nothing: str = "") -> str:
    """Any text, or several to sweep over. `nothing`: the words for "no value", where the key allows it."""
    if not value:
        raise UserError(f"{key}=: give it a value" + (f", or {key}=null for none" if nothing else ""))
    if _sweeps_by_function(key, value):
        return value
    pieces = [value] if os.path.lexists(os.path.expanduser(value)) else parts(value, brackets=False)
    return ",".join("null" if part.lower() in nothing.split() else _word(part) for part in pieces)


def _one_text(key: str, value: str) -> str:
    """A text where a sweep over several would mean nothing: a comma is a character of it."""
    if not value:
        raise UserError(f"{key}=: give it a value")
    return _word(value)


def _text_or_null(key: str, value: str) -> str:
    return _text(key, value, " ".join(NOTHING))


def _list(key: str, value: str, nothing: str = "[]") -> str:
    """A list, or several, each in brackets, to sweep over."""
    if not value:
        raise UserError(f"{key}=: give it a value, or {key}=[] for none")
    if value.lower() in NOTHING:
        return nothing
    if _sweeps_by_function(key, value):
        return value
    pieces = parts(value)
    if pieces is None:
        raise UserError(f"{key}={value}: a bracket is not closed; write {key}=[NAME,NAME]")
    lists = [part for part in pieces if part.startswith("[")]
    if not lists:
        return f"[{','.join(map(_word, pieces))}]"
    return ",".join(f"[{','.join(map(_word, parts(part.strip('[]')) or []))}]" for part in pieces)


def _list_or_null(key: str, value: str) -> str:
    return _list(key, value, "null")


def _any(key: str, value: str) -> str:
    """A value of a type that is not known here: read as it is, or as a text."""
    value = re.sub(r"(\s*,)+$", "", value) if value.strip(", ") else value
    if parsed(f"key={value}"):
        return value
    pieces = parts(value) or [value]
    return ",".join(part if parsed(f"key={part}") else quoted(part) for part in pieces)


def _choice(key: str, group: str, value: str) -> list[str]:
    """An option of a group, or several to sweep over."""
    if _sweeps_by_function(key, value):
        return [f"{key}={value}"]
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]  # a list of options is a sweep over them
    pieces = parts(value) or parts(value, brackets=False)
    if not pieces or (value.lower() == "null" and group != "experiment"):
        raise UserError(
            f"{key}={value.strip(' ,')}: give it a value; choose among {', '.join(options(group))}"
        )
    if group == "experiment" and len(pieces) > 1:  # its grids are read once, before any point is composed
        raise UserError(f"{key}={value}: one experiment a command; run {key}={pieces[0]} and then the next")
    chosen = [_option(group, part) for part in pieces]
    if group == "model" and len(chosen) == 1 and (wanted := model_id(chosen[0])):
        return [f"{key}=hub", f"model.id={_word(wanted)}"]
    return [f"{key}={','.join(chosen)}"]


def options(group: str) -> list[str]:
    """The names that an override of the group can have."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _option(group: str, part: str) -> str:
    same = [name for name in options(group) if _folded(name) == _folded(part)]
    if part not in same and len(same) == 1:
        return same[0]
    override = parsed(f"key={part}")
    is_number = override and isinstance(override.value(), int | float)
    return part if override and not is_number else quoted(part)  # an option is a name


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")


def model_id(part: str) -> str | None:
    """What `model.id` should be where `model=` was given a path, a hub id or the page of one instead of an
    option; None if it is an option, or a word that may be a misspelt one.
    """
    override = parsed(f"key={part}")
    value = override.value() if override else part
    text = value if isinstance(value, str) else part
    if text in options("model"):
        return None
    if page := HUB_PAGE.match(text):
        return page[1]
    is_id = HUB_ID.fullmatch(text) or re.match(r"(asset|tiny):", text)
    is_path = "/" in text or text.startswith((".", "~")) or Path(text).is_dir()
    return text if is_id or is_path else None


def _word(part: str) -> str:
    """One text: as it is if the grammar reads that text in it, else in quotes; ~ is the home directory."""
    override = parsed(f"key={part}")
    value = override.value() if override else None
    text = os.path.expanduser(value if isinstance(value, str) else part)
    if "${" in re.sub(r"\$\{[^{}]+\}", "", text):
        raise UserError(f"{part}: ${{ begins a reference to another key, such as ${{eval.mirror}}")
    return part if value == text else quoted(text)


def _sweeps_by_function(key: str, value: str) -> bool:
    """Is it choice(a,b), range(1,3), glob(*) and the like?"""
    override = parsed(f"{key}={value}")
    return bool(
        override and override.is_sweep_override() and override.value_type is not ValueType.SIMPLE_CHOICE_SWEEP
    )


def parts(value: str, brackets: bool = True) -> list[str] | None:
    """The parts between commas, but for those in quotes and in brackets; empty parts are left out. None where
    a bracket is not closed. Without `brackets` these are characters like any other.
    """
    pieces, depth, quote = [""], 0, ""
    for before, character in zip(f" {value}", value, strict=False):
        if quote:
            quote = "" if character == quote and before != "\\" else quote
        elif character in "'\"" and not pieces[-1].strip(" ["):
            quote = character
        elif brackets and character in "[({":
            depth += 1
        elif brackets and character in "])}":
            depth -= 1
        if character == "," and not depth and not quote:
            pieces.append("")
        else:
            pieces[-1] += character
    return None if depth else [part.strip() for part in pieces if part.strip()]
