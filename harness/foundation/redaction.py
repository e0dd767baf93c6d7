"""Credentials stay in the environment: they are refused in configurations and blotted out of whatever is
written or printed.

What counts as one: the values of variables such as WANDB_API_KEY, HF_TOKEN or AWS_SECRET_ACCESS_KEY, the
password of a proxy, and anything shaped like a well-known token or like `user:password@` in a URL.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic

MARK = "[secret]"
SHORTEST = 8  # characters; anything shorter would blot out ordinary words
NAMES = re.compile(
    r"(?:^|.*_)(?:API_?KEY|ACCESS_KEY|ACCESS_KEY_ID|SECRET_KEY|TOKEN|SECRET|PASSWORD|PASSWD)", re.I
)
PROXIES = re.compile(r"(?:.*_)?proxy", re.I)
USERINFO = re.compile(r"(?<=://)[^\s/@'\"<>]+(?=@)")
SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bapi_org_[A-Za-z0-9]{30,}"  # Hugging Face
    r"|\bwandb_v\d_[\w-]{20,}|\blocal-[0-9a-f]{40}\b"  # Weights & Biases
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}"
    r"|\bglpat-[\w-]{20,}|\bsk-[\w-]{30,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{16,}"
)


def secrets() -> list[str]:
    """The credentials in this process's environment, longest first; as they are and as URLs spell them."""
    return _secrets(tuple(os.environ.items()))


@lru_cache(maxsize=1)
def _secrets(environment: tuple[tuple[str, str], ...]) -> list[str]:
    found = {value for name, value in environment if NAMES.fullmatch(name)}
    for name, value in environment:
        if PROXIES.fullmatch(name):
            found.update(
                part
                for userinfo in USERINFO.findall(value)
                for part in (userinfo, userinfo.partition(":")[2])
            )
    found = {value.strip() for value in found if len(value.strip()) >= SHORTEST}
    return sorted(found | {quote(value, safe="") for value in found}, key=lambda value: (-len(value), value))


def redact(text: str) -> str:
    """`text` with [secret] for every credential."""
    for value in secrets():
        text = text.replace(value, MARK)
    return SHAPES.sub(MARK, USERINFO.sub(MARK, text))


def refuse_secrets(config: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> None:
    """Check a plain configuration, or a list of strings, for credentials.

    Raises:
        UserError: there is one; the message names the key and never the value.
    """
    entries = (
        config.items()
        if isinstance(config, Mapping)
        else ((str(index), value) for index, value in enumerate(config))
    )
    for name, value in entries:
        key = f"{prefix}{name}"
        if isinstance(value, Mapping | list | tuple):
            refuse_secrets(value, f"{key}.")
        elif redact(f"{name} {value}") != f"{name} {value}":
            raise UserError(_refusal(redact(key)))


def refuse_secret_arguments(arguments: Sequence[str]) -> None:
    """Check a command line for credentials, before anything of it is printed or stored.

    Raises:
        UserError: there is one; the message names what stands before its `=`, and never the value.
    """
    for argument in arguments:
        if redact(argument) != argument:
            raise UserError(_refusal(redact(argument.partition("=")[0]).lstrip("+~")))


def _refusal(key: str) -> str:
    return (
        f"{key}: holds a credential; what is configured is written to files, so leave it in its environment "
        "variable (HF_TOKEN, ...)"
    )


class RedactingFormatter(logging.Formatter):
    """A formatter whose lines, tracebacks included, hold no credential."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def scrub_file(path: Path) -> None:
    """Blot credentials out of a text file that something else wrote, such as a child process; a file that is
    not there is left alone.
    """
    try:
        before = path.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return
    after = redact(before)
    if after != before:
        write_atomic(path, after.encode(errors="surrogateescape"))
