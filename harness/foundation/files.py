"""Files that are there whole or not at all: written aside, synced, renamed into place."""

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from harness.foundation.errors import UserError

ASIDE = ".aside-"  # prefix of unfinished files and directories, next to the ones they will become

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`, so that a reader sees the old file or the new one, also
    after a crash.

    Raises UserError when the disk is full or the place cannot be written.
    """
    with replace_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replace_file(path: Path | str) -> Iterator[Path]:
    """Yield a path in the same directory to write to; on success it becomes `path`, on failure it goes."""
    path = Path(path)
    aside = _aside(path)
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            sync(aside)
            os.replace(aside, path)
            sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def replace_directory(target: Path | str, overwrite: bool = True) -> Iterator[Path]:
    """Yield an empty directory to fill; on success it becomes `target`, on failure it disappears.

    An existing `target` is moved away just before, or kept with `overwrite=False`: then the first of several
    processes wins and the others drop theirs. A directory that appears at the very moment of the exchange is
    kept too.
    """
    target = Path(target)
    aside = _aside(target)
    with disk_errors(target):
        try:
            aside.mkdir(parents=True)
            yield aside
            for file in sorted(aside.rglob("*")):
                sync(file)
            sync(aside)
            _move_into_place(aside, target, overwrite)
            sync(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(directory: Path, hours: float = 24) -> None:
    """Delete what killed processes left unfinished under `directory`; younger things may still be in work."""
    for folder, subfolders, files in os.walk(directory):  # os.walk bears folders that vanish as it goes
        unfinished = [name for name in (*subfolders, *files) if name.startswith(ASIDE)]
        subfolders[:] = (name for name in subfolders if not name.startswith(ASIDE))
        for path in (Path(folder, name) for name in unfinished):
            try:
                if time.time() - path.stat().st_mtime > 3600 * hours:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError:
                continue  # someone else was faster, or it is not ours to delete


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn the disk's refusals into a UserError that names the path and the way out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _code(error)
        if code in _FULL:
            raise UserError(
                f"disk full while writing {path}: free some space, or choose another disk "
                "(PTQ_BENCH_CACHE=<directory> for the cache, paths.results=<directory> for results)"
            ) from error
        if code in _UNUSABLE:
            raise UserError(
                f"cannot use {getattr(error, 'filename', None) or path} ({os.strerror(code)}): "
                "make it writable, or choose another place (PTQ_BENCH_CACHE=<directory> for the cache, "
                "paths.results=<directory> for results)"
            ) from error
        raise


def _code(error: OSError | SafetensorError) -> int | None:
    """The errno; safetensors tells it in its message only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"os error (\d+)", str(error))
    return int(told[1]) if told else None


def _aside(path: Path) -> Path:
    return path.parent / f"{ASIDE}{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _move_into_place(source: Path, target: Path, overwrite: bool) -> None:
    displaced = _aside(target)
    if overwrite and target.exists():
        with suppress(FileNotFoundError):  # another process displaced it first
            os.rename(target, displaced)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(displaced, ignore_errors=True)


def sync(path: Path) -> None:
    """See that a file, or which files a directory has, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
