"""Data that travels in wheels: download a pinned one without installing it, take a member out, verify it."""

import errno
import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from harness.foundation.errors import UserError

CHUNK = 1 << 20  # bytes in memory at a time
_NO_CONNECTION = (
    "connection",
    "name resolution",
    "timed out",
    "timeout",
    "unreachable",
    "proxyerror",
    "sslerror",
    "retries exceeded",
)


def download(requirement: str, options: Sequence[str], directory: Path) -> Path:
    """Let pip put the wheel of `requirement` (`name==version`) into `directory`; nothing is installed.

    `options` choose among platform wheels, so that every machine gets the same file. Raises UserError without
    pip, without a connection, when the index does not have the wheel, or on a full disk.
    """
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"cannot download {requirement}: this Python ({sys.executable}) has no pip; "
            "run `python -m ensurepip` or `uv pip install pip`, or point PTQ_BENCH_CACHE to a cache "
            "filled elsewhere"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--retries", "2", "--only-binary=:all:"]
    command += ["--dest", str(directory), *options, requirement]
    before = set(directory.glob("*.whl"))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise _failure(requirement, done.stderr)
    wheels = set(directory.glob("*.whl")) - before
    if len(wheels) != 1:
        raise UserError(
            f"pip found {len(wheels)} wheels for {requirement} instead of one: check `pip config list`"
        )
    return wheels.pop()


def extract(wheel: Path, member: str, sha256: str, output: BinaryIO) -> None:
    """Append one member of `wheel` to `output`. Raises UserError when it is missing, damaged or not the
    pinned one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            digest = hashlib.sha256()
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                output.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{wheel.name} is damaged or lacks {member} ({error}): check the package index in use"
        ) from error
    if digest.hexdigest() != sha256:
        raise UserError(
            f"{member} of {wheel.name} is not the pinned file (sha256 {digest.hexdigest()[:16]}…, expected "
            f"{sha256[:16]}…): run `pip cache purge` and check which package index `pip config list` names"
        )


def _failure(requirement: str, messages: str) -> Exception:
    if "No space left" in messages or "Errno 28" in messages:
        return OSError(errno.ENOSPC, "No space left on device")
    if any(sign in messages.lower() for sign in _NO_CONNECTION):
        return UserError(
            f"cannot download {requirement}: no connection to the package index; go online (or set pip's "
            "index or proxy), or point PTQ_BENCH_CACHE to a cache filled elsewhere"
        )
    lines = [line.strip() for line in messages.splitlines() if line.startswith("ERROR")] or messages.split(
        "\n"
    )[-2:]
    reason = (lines[0] if lines else "").removeprefix("ERROR:").strip() or "no reason given"
    return UserError(
        f"pip cannot provide {requirement} ({reason}): check the package index that `pip config list` names"
    )
