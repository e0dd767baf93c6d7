"""JSON files that vouch for themselves: one flipped bit and they are recognised as damaged."""

import hashlib
import json
import re
from typing import Any


def seal(body: dict[str, Any]) -> bytes:
    """Canonical bytes of an object, with the digest of themselves."""
    body = json.loads(json.dumps(body))  # tuples become lists, keys strings
    return json.dumps(body | {"digest": _digest(body)}, sort_keys=True, indent=1).encode()


def unseal(raw: bytes) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: these are not the bytes that `seal` gave; how far lines are indented does not matter.
    """
    try:
        return _intact(json.loads(raw), raw)
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("damaged") from error


def read_record(raw: bytes) -> Any:
    """The content of a record.json. Those written before there were attempts have no seal.

    Raises:
        ValueError: not JSON, or not what was sealed.
    """
    record = json.loads(raw)
    sealed = isinstance(record, dict) and bool({"attempt", "digest"} & record.keys())
    return _intact(record, raw) if sealed else record


def _intact(body: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """`body`, read from `raw`, without its digest.

    Line ends and the spaces behind them are taken out before the bytes are compared: no string holds a line
    end, and Python indents JSON so slowly that it was most of the time of reading thousands of records.
    """
    digest = body.pop("digest", None)
    lines = json.dumps(body | {"digest": digest}, sort_keys=True, separators=(",", ": "))
    if digest != _digest(body) or re.sub(rb"\n *", b"", raw) != lines.encode():
        raise ValueError("damaged")
    return body


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
